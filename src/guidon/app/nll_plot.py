"""A likelihood as a picture: how many bits each noise level adds, and how they add up on the way to the image."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from guidon.checkpoints.atomic import write_bytes, write_text
from guidon.measure.likelihood import BitsPerDim


def write_nll(out: Path, found: BitsPerDim, record: dict[str, Any]) -> tuple[Path, Path]:
    """Write what was found as JSON, and a picture of the same name beside it; return where they are. Nothing is overwritten.

    Args:
        out: the JSON file, with ``-2``, ``-3``, ... behind its name where it or its picture is there already.
        found: of all images.
        record: how it was measured.
    """
    text, picture = _free(out)
    write_text(text, json.dumps(account(found) | {"record": record}, indent=1, ensure_ascii=False))
    stream = io.BytesIO()
    title = f"{record['model']}: {found.mean:.4f} bits/dim of {record['images']} images, in {record['steps']} steps"
    nll_figure(found, title).savefig(stream, dpi=110)
    write_bytes(picture, stream.getvalue())
    return text, picture


def _free(out: Path) -> tuple[Path, Path]:
    """Return the first of out, out-2, out-3, ... that is taken neither as JSON nor as a picture."""
    run, text = 1, out
    while text.exists() or text.with_suffix(".png").exists():
        run += 1
        text = out.with_stem(f"{out.stem}-{run}")
    return text, text.with_suffix(".png")


def account(found: BitsPerDim) -> dict[str, Any]:
    """Return what was found for JSON: means over the images, and the total of each image."""
    means = found.terms.mean(0).tolist()
    return {
        "bits_per_dim": found.mean,
        "standard_error": None if math.isnan(found.standard_error) else found.standard_error,
        "prior": float(found.prior.mean()),
        "terms": [
            {"noise_level": level if math.isfinite(level) else None, "bits": bits}
            for level, bits in zip(_noise_levels(found), means, strict=True)
        ],
        "images": found.total.tolist(),
    }


def nll_figure(found: BitsPerDim, title: str) -> Figure:
    """Return two panels over the noise level at which a step begins; lines are means over the images, shades the middle 80 %."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    each, summed = figure.subplots(1, 2)
    levels = np.array(_noise_levels(found))
    known = np.isfinite(levels)
    terms = found.terms.numpy()
    for axes, values, name in (
        (each, terms, "bits/dim of a step (the last one decodes)"),
        (summed, found.prior.numpy()[:, None] + terms.cumsum(1), "bits/dim so far, the prior's with them"),
    ):
        low, high = np.quantile(values, [0.1, 0.9], axis=0)
        axes.plot(levels[known], values.mean(0)[known], color="C0", marker="o", markersize=2.0, linewidth=1.2)
        axes.fill_between(levels[known], low[known], high[known], color="C0", alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.invert_xaxis()  # from noise to image, as sampling goes
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("noise level", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    if bool((terms.mean(0) > 0).all()):
        each.set_yscale("log")
    return figure


def _noise_levels(found: BitsPerDim) -> list[float]:
    return [float(level.noise_level) for level in found.levels[:-1]]
