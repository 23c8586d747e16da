"""What guidance trades for what: the cells that no other beats in two columns at once, and a picture of them."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from guidon.checkpoints.atomic import write_bytes
from guidon.study.columns import Column, columns, common, lines, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from guidon.study.store import Cell

# colours that the colour-blind tell apart, on white and on black; Source: Okabe & Ito 2008, without black and yellow
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a0522d", "#808080")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
TRADES = (("fid", "is"), ("fid", "clip-score"), ("precision", "recall"), ("density", "coverage"))
QUALITY = ("fid", "kid", "accuracy", "adherence")  # the first of them that there is stands for quality
NEAR = 45  # pixels between two marks of one name, at least
WIDE = 20  # how many times the smallest value the largest is on a logarithmic axis, at least


def front(points: Sequence[tuple[float, float]], better: tuple[str | None, str | None]) -> list[bool]:
    """Return which points no other beats: none is at least as good in both coordinates and better in one.

    Equal points stand on the front together. A point with NaN never does, and where a coordinate has no better, no point does.

    Args:
        points: pairs of coordinates.
        better: "higher" or "lower", of each coordinate.
    """
    if None in better:
        return [False] * len(points)
    signs = np.array([1.0 if side == "higher" else -1.0 for side in better])
    values = np.array(points, dtype=float).reshape(-1, 2) * signs
    known = ~np.isnan(values).any(1)
    beaten = [bool(((values >= value).all(1) & (values > value).any(1)).any()) for value in values]
    return [bool(good) and not worse for good, worse in zip(known, beaten, strict=True)]


def trades(found: Sequence[Column]) -> list[tuple[Column, Column]]:
    """Return the pairs of columns worth a picture, (x, y): those of `TRADES`, and quality against what it costs where that varies."""
    by_metric: dict[str, list[Column]] = {}
    for column in found:
        by_metric.setdefault(column.metric, []).append(column)
    pairs = [
        (x, y)
        for first, second in TRADES
        for x, y in itertools.product(by_metric.get(first, ()), by_metric.get(second, ()))
        if x.network == y.network or "clip-score" in (first, second)
    ]
    quality = next((by_metric[name][0] for name in QUALITY if name in by_metric), None)
    if quality is not None:
        pairs += [(cost, quality) for cost in by_metric.get("nfe", ()) if cost.varies]
    graded = [column for column in found if column.better is not None and not column.cost]
    return pairs or [(x, y) for x, y in itertools.pairwise(graded[:2])]


def pareto_figure(cells: Sequence[Cell], x: Column, y: Column) -> Figure:
    """Return the plot of two columns: a line for each rule, intervals, and the front dashed.

    Args:
        cells: of a sweep; those without one of the columns are left out.
        x, y: of `columns`.
    """
    from matplotlib.figure import Figure

    cells = [cell for cell in cells if x.of(cell) is not None and y.of(cell) is not None]
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    drawn = lines(cells)
    names = list(dict.fromkeys(line.name for line in drawn))
    for line in drawn:
        i = names.index(line.name)
        style: dict[str, Any] = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}
        xs, ys = _places(line.cells, x), _places(line.cells, y)
        axes.errorbar(xs.value, ys.value, ys.bars, xs.bars, fmt="none", ecolor=style["color"], alpha=0.4, elinewidth=1)
        if line.along is not None:
            axes.plot(xs.value, ys.value, linewidth=1.2, alpha=0.55, color=style["color"])
        axes.plot(xs.value, ys.value, markersize=5, linestyle="none", **style)
    xs, ys = _places(cells, x), _places(cells, y)
    for axis, places in ((axes.xaxis, xs), (axes.yaxis, ys)):
        if places.value.size and places.value.min() > 0 and places.value.max() > WIDE * places.value.min():
            axis.axes.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_minor_formatter("")
    best = np.array(front(list(zip(xs.value, ys.value, strict=True)), (x.better, y.better)), dtype=bool)
    if best.any():
        order = np.flatnonzero(best)[np.lexsort((ys.value[best], xs.value[best]))]
        axes.plot(xs.value[order], ys.value[order], color="0.2", linestyle=(0, (4, 3)), linewidth=1.1, zorder=3)
        axes.scatter(
            xs.value[best], ys.value[best], s=95, facecolors="none", edgecolors="0.2", linewidths=1.1, zorder=4
        )
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, names, bool(best.any()))
    figure.supxlabel(_caption(cells, x, y), fontsize=7.5, color="0.35")
    along = drawn[0].along if drawn else None
    if along is not None:
        marked = [cell for cell, good in zip(cells, best, strict=True) if good] or cells
        marked = [cell for cell in marked if along in cell.axes]
        _name(
            figure, axes, [(*_point(cell, x, y), f"{along}={shown(cell.axes[along])}") for cell in marked], cells, x, y
        )
    return figure


def write_pareto(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Write the plot of each of `trades` as PNG and SVG, ``pareto-X-Y.png``, and return where."""
    written = []
    for x, y in trades(columns(cells)):
        figure = pareto_figure(cells, x, y)
        for suffix in ("png", "svg"):
            stream = io.BytesIO()
            figure.savefig(stream, format=suffix, dpi=160, metadata={"Date": None} if suffix == "svg" else None)
            written.append(folder / f"pareto-{x.slug}-{y.slug}.{suffix}")
            write_bytes(written[-1], stream.getvalue())
    return written


@dataclass(frozen=True)
class _Places:
    """Coordinates (N,) and what intervals reach below and above them, (2, N), None where there are no intervals."""

    value: np.ndarray
    bars: np.ndarray | None


def _places(cells: Sequence[Cell], column: Column) -> _Places:
    found = [column.of(cell) for cell in cells]
    values = np.array([point.value for point in found if point is not None], dtype=float)
    if column.cost:
        return _Places(values, None)
    low, high = (np.array([getattr(point, side) for point in found if point is not None]) for side in ("low", "high"))
    return _Places(values, np.maximum(np.nan_to_num(np.stack([values - low, high - values])), 0.0))


def _point(cell: Cell, x: Column, y: Column) -> tuple[float, float]:
    across, up = x.of(cell), y.of(cell)
    assert across is not None and up is not None
    return across.value, up.value


def _legend(axes: Any, names: Sequence[str], has_front: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=COLORS[i % len(COLORS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            linewidth=1.2,
            label=name,
        )
        for i, name in enumerate(names)
        if name
    ]
    if has_front:
        handles.append(Line2D([], [], color="0.2", linestyle=(0, (4, 3)), linewidth=1, label="front"))
    if handles:
        axes.legend(handles=handles, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _caption(cells: Sequence[Cell], x: Column, y: Column) -> str:
    figures = [cell.figures[column.key] for cell in cells for column in (x, y) if not column.cost]
    counts = sorted({figure.n for figure in figures})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}" if counts else "?"
    sure, draws = (common([getattr(figure, name) for figure in figures]) for name in ("confidence", "resamples"))
    bars = f"bars: {sure:.0%} intervals of {draws} bootstrap draws" if sure and draws else "bars: bootstrap intervals"
    ringed = (
        "\nringed: no other cell is at least as good in both and better in one"
        if None not in (x.better, y.better)
        else ""
    )
    return f"{len(cells)} cells, n = {n} images each; {bars}{ringed}"


def _name(
    figure: Figure, axes: Any, marks: Sequence[tuple[float, float, str]], cells: Sequence[Cell], x: Column, y: Column
) -> None:
    """Write a name beside each mark where there is room for it and the same name does not stand near, and leave out the others."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    dots = axes.transData.transform(np.array([_point(cell, x, y) for cell in cells]))
    taken = [Bbox.from_bounds(dx - 5, dy - 5, 10, 10) for dx, dy in dots]
    named: dict[str, list[Bbox]] = {}
    sides: tuple[tuple[float, float, Literal["left", "right", "center"], Literal["bottom", "top", "center"]], ...] = (
        (6, 6, "left", "bottom"),
        (-6, -6, "right", "top"),
        (6, -6, "left", "top"),
        (-6, 6, "right", "bottom"),
        (9, 0, "left", "center"),
        (-9, 0, "right", "center"),
    )
    for across, up, text in marks:
        if not (math.isfinite(across) and math.isfinite(up)):
            continue
        for dx, dy, ha, va in sides:
            label = axes.annotate(
                text, (across, up), (dx, dy), textcoords="offset points", ha=ha, va=va, fontsize=7.5, color="0.25"
            )
            box = label.get_window_extent()
            near = [Bbox.from_bounds(other.x0, other.y0, 0, 0) for other in named.get(text, ())]
            free = not any(box.overlaps(other) for other in taken) and not any(
                box.padded(NEAR).overlaps(other) for other in near
            )
            if free and axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1:
                taken.append(box)
                named.setdefault(text, []).append(box)
                break
            label.remove()
