"""The pictures of `shapes.py`: what holds over the weight, and the same seeds at several weights."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

SCALE, GAP, LEFT, TOP = 3, 6, 88, 58  # pixels of an image's pixel, and around images

Curve = Sequence[Mapping[str, Any]]


def draw_curves(kinds: Mapping[str, Curve], negation: Curve) -> bytes:
    """Return a PNG of three panels: whole captions by kind, parts of the captions of two related things, negation.

    Args:
        kinds: for each kind of caption a cell for each weight.
        negation: a cell for each weight.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    whole, parts, gone = figure.subplots(1, 3)
    for kind, curve in kinds.items():
        _line(
            whole, curve, lambda cell: cell["whole"], {"single": "one thing", "count": "several alike"}.get(kind, kind)
        )
    for part in kinds["relation"][0]["parts"]:
        _line(parts, kinds["relation"], lambda cell, part=part: cell["parts"][part], part)
    _line(gone, negation, lambda cell: cell["removed"], "what is negated is gone")
    _line(gone, negation, lambda cell: cell["prompt_still_followed"], "the prompt still holds")
    for axes, title in (
        (whole, "everything in the caption holds"),
        (parts, "two related things: parts that hold"),
        (gone, "a negative prompt"),
    ):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("guidance weight", fontsize=9)
        axes.set_ylim(0, 1.02)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    whole.set_ylabel("share of images, with standard error", fontsize=9)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110)
    return stream.getvalue()


def _line(axes: Any, curve: Curve, cell_of: Any, label: str) -> None:
    cells = [cell_of(cell) for cell in curve]
    weights, shares = [cell["weight"] for cell in curve], [cell["share"] for cell in cells]
    axes.errorbar(
        weights,
        shares,
        [cell["standard_error"] for cell in cells],
        marker="o",
        markersize=3,
        linewidth=1.2,
        label=label,
    )


def draw_samples(rows: Sequence[tuple[str, Sequence[Image.Image]]], prompts: Sequence[str]) -> bytes:
    """Return a PNG with a row of images for each name, a column for each prompt."""
    side = SCALE * rows[0][1][0].width + GAP
    sheet = Image.new("RGB", (LEFT + len(prompts) * side, TOP + len(rows) * side), (236, 236, 238))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, prompt in enumerate(prompts):
        lines = "\n".join(textwrap.wrap(prompt, 15))
        place = (LEFT + column * side + (side - GAP) // 2, TOP - GAP)
        draw.multiline_text(place, lines, "black", font, anchor="md", align="center", spacing=2)
    for row, (name, images) in enumerate(rows):
        top = TOP + row * side
        draw.text((LEFT - 8, top + side // 2), name, "black", font, anchor="rm")
        for column, image in enumerate(images):
            size = (SCALE * image.width, SCALE * image.height)
            sheet.paste(image.convert("RGB").resize(size, Image.Resampling.NEAREST), (LEFT + column * side, top))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()
