"""The pictures of `cifar10_classifier.py`: curves over the weight, and the same seeds at several weights."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

SCALE, GAP, LEFT, TOP = 2, 3, 92, 22  # pixels of an image's pixel, and around images

Curve = Sequence[dict[str, Any]]


def draw_curves(led: Curve, free: Curve, measured: dict[str, Any]) -> bytes:
    """Return a PNG of four panels: accuracy and Fréchet distance over the weight, precision against recall, the classifier itself.

    Args:
        led: cells of the classifier's curve, each with its ``weight`` and scores.
        free: cells of classifier-free guidance.
        measured: accuracy.json of the classifier's run.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    accuracy, distance, manifold, itself = figure.subplots(2, 2).flatten()
    for curve, label, color in (
        (led, "unconditional, led by a classifier", "C1"),
        (free, "classifier-free guidance", "C0"),
    ):
        weights = [cell["weight"] for cell in curve]
        style: dict[str, Any] = {"color": color, "marker": "o", "markersize": 3, "linewidth": 1.2, "label": label}
        accuracy.plot(weights, [cell["accuracy"] for cell in curve], **style)
        distance.plot(weights, [cell["frechet"] for cell in curve], **style)
        manifold.plot([cell["recall"] for cell in curve], [cell["precision"] for cell in curve], **style)
        for cell in curve:
            place = (cell["recall"], cell["precision"])
            manifold.annotate(f"{cell['weight']:g}", place, fontsize=7, xytext=(3, 3), textcoords="offset points")
    accuracy.axhline(0.1, color="0.6", linewidth=0.8, linestyle=":")
    levels = measured["rows"]
    itself.plot(
        [row["noise_level"] for row in levels],
        [row["accuracy"] for row in levels],
        color="C1",
        marker="o",
        markersize=3,
    )
    itself.axhline(0.1, color="0.6", linewidth=0.8, linestyle=":")
    itself.set_xscale("log")
    for axes, title, x in (
        (accuracy, "share recognised as the class that was asked for (dotted: chance)", "weight"),
        (distance, "Fréchet distance to the real images, in the judge's features", "weight"),
        (manifold, "precision against recall, by weight", "recall"),
        (itself, "the noisy classifier on held-out images: accuracy", "noise level"),
    ):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(x, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.legend(fontsize=8, frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110)
    return stream.getvalue()


def draw_samples(rows: Sequence[tuple[str, Sequence[Image.Image]]], classes: Sequence[str]) -> bytes:
    """Return a PNG with a row of images for each name, a column for each class."""
    side = SCALE * rows[0][1][0].width + GAP
    sheet = Image.new("RGB", (LEFT + len(classes) * side, TOP + len(rows) * side), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, name in enumerate(classes):
        draw.text((LEFT + column * side + side // 2, TOP // 2), name[:10], "black", font, anchor="mm")
    for row, (name, images) in enumerate(rows):
        top = TOP + row * side
        draw.text((LEFT - 8, top + side // 2), name, "black", font, anchor="rm")
        for column, image in enumerate(images):
            size = (SCALE * image.width, SCALE * image.height)
            sheet.paste(image.convert("RGB").resize(size, Image.Resampling.NEAREST), (LEFT + column * side, top))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()
