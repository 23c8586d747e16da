"""A trace as a picture: how far the branches were apart at each step, what guidance did, and what it cost."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from guidon.checkpoints.atomic import write_bytes, write_text

_Rows = Sequence[dict[str, Any]]
_Values = Sequence[Sequence[float | None] | None]  # of each evaluation: a number for each image, where there is one
_Line = tuple[_Values, str, str]  # its label and its color

APART = "difference of clean images (root mean square)"
WIDE = 30  # how many times the smallest positive mean the largest is, at most, on a linear axis


def write_trace(folder: Path, rows: _Rows, record: dict[str, Any]) -> Path:
    """Write a trace as ``trace.json`` and as a picture beside it, and return where the picture is; nothing is overwritten.

    Args:
        folder: to write into.
        rows: of `guidon.sampling.trace.Trace`.
        record: how the images were made.
    """
    taken = {file.stem for file in folder.glob("trace*") if file.suffix in (".json", ".png")}
    path = folder / f"{next(stem for stem in _stems() if stem not in taken)}.json"
    write_text(path, json.dumps({"record": record, "evaluations": list(rows)}, indent=1, ensure_ascii=False))
    stream = io.BytesIO()
    trace_figure(rows, f"{record['rule']}   {record['solver']}, {record['steps']} steps").savefig(stream, dpi=110)
    write_bytes(path.with_suffix(".png"), stream.getvalue())
    return path.with_suffix(".png")


def _stems() -> Iterator[str]:
    yield "trace"
    yield from (f"trace-{i}" for i in itertools.count(2))


def trace_figure(rows: _Rows, title: str) -> Figure:
    """Return up to four panels over the evaluations of a run; lines are means over the images, shades the middle 80 %.

    A panel without anything to show is left out: where no second branch was asked, there is no cosine.
    """
    steps = np.arange(1, len(rows) + 1)
    lines = {name: several for name, several in _lines(rows).items() if several}
    count = len(lines) + 1  # and the costs
    down, across = (2, 2) if count == 4 else (1, count)
    figure = Figure(figsize=(5 * across, 3.2 * down), layout="constrained")
    figure.suptitle(title, fontsize=10)
    *panels, cost = figure.subplots(down, across, squeeze=False).flatten()
    for axes, (name, several) in zip(panels, lines.items(), strict=True):
        means = np.concatenate([_line(axes, steps, *line) for line in several])
        positive = means[means > 0]
        if name == APART and len(positive) and positive.max() > WIDE * positive.min():
            axes.set_yscale("log", nonpositive="mask")
        axes.set_title(name, fontsize=9)
    asked, saved = (np.array([np.mean(row[key]) for row in rows]) for key in ("asked", "saved"))
    cost.bar(steps, asked, color="C0", label=f"asked, {asked.sum():g} in all")
    cost.bar(steps, saved, bottom=asked, color="0.88", label=f"saved, {saved.sum():g}")
    cost.set_ylim(top=1.3 * max(float((asked + saved).max()), 1.0))  # room for the legend
    cost.set_title("network evaluations an image", fontsize=9)
    for axes in (*panels, cost):
        axes.set_xlabel("evaluation (noise level at the first, a middle and the last)", fontsize=8)
        ticks = sorted({0, len(rows) // 2, len(rows) - 1})
        axes.set_xticks(steps[ticks], [f"{t + 1}\n({_level(rows[t])})" for t in ticks])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    return figure


def _lines(rows: _Rows) -> dict[str, list[_Line]]:
    """Return what each panel but that of the costs shows; nothing where nothing was measured."""
    branches = list(enumerate(sorted({name for row in rows for name in row["difference"]})))
    found: dict[str, list[_Line]] = {
        APART: [
            *(([row["difference"].get(name) for row in rows], f"given - {name}", f"C{i}") for i, name in branches),
            ([row["guidance"] for row in rows], "added by guidance", "black"),
        ],
        "cosine of the branches' noise": [
            ([row["cosine"].get(name) for row in rows], f"given, {name}", f"C{i}") for i, name in branches
        ],
        "share of the clean image out of range": [([row["out_of_range"] for row in rows], "beyond [-1, 1]", "C3")],
    }
    return {name: [line for line in several if any(map(_known, line[0]))] for name, several in found.items()}


def _known(numbers: Sequence[float | None] | None) -> bool:
    return numbers is not None and any(number is not None for number in numbers)


def _line(axes: Any, steps: Any, values: _Values, label: str, color: str) -> Any:
    """Draw the mean over the images, and the middle 80 % of them; gaps where nothing was measured. Return the mean."""
    count = max(len(row) for row in values if row)
    table = np.array([row if row else [None] * count for row in values], dtype=float)  # (evaluations, images)
    known = ~np.isnan(table).all(1)
    mean, low, high = (np.full(len(table), np.nan) for _ in range(3))
    mean[known] = np.nanmean(table[known], 1)
    low[known], high[known] = np.nanquantile(table[known], [0.1, 0.9], axis=1)
    axes.plot(steps, mean, color=color, label=label, marker="o", markersize=2.5, linewidth=1.2)
    if count > 1:
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    return mean


def _level(row: dict[str, Any]) -> str:
    return "no signal" if row["noise_level"] is None else f"{row['noise_level']:.3g}"
