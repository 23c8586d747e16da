"""The table of a sweep: its figures and its costs as columns, its axes, and the lines that its cells stand in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from guidon.measure.metric import Wanted
from guidon.study.axes import is_number

if TYPE_CHECKING:
    from guidon.study.store import Cell

T = TypeVar("T")


@dataclass(frozen=True)
class Point:
    """A number with its interval; the number thrice where it is a cost."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Column:
    """A figure or a cost that cells have.

    Args:
        key: what it is called in the store, for instance "fid@dinov2".
        metric, network: its name and the network it is taken of, "" for costs and for the sweep's own.
        title: for people, with its unit.
        better: "higher", "lower" or None.
        varies: whether cells differ in it.
    """

    key: str
    metric: str
    network: str
    title: str
    better: str | None
    varies: bool

    @property
    def cost(self) -> bool:
        """Whether this is a cost, which is counted and has no interval."""
        return self.key in COSTS

    @property
    def label(self) -> str:
        """The title and which way is better."""
        return self.title if self.better is None else f"{self.title}, {self.better} is better"

    @property
    def slug(self) -> str:
        """The key as part of a file's name."""
        return slug(self.key)

    def of(self, cell: Cell) -> Point | None:
        """Return what a cell has here, None where it has nothing."""
        if self.cost:
            value = _cost(cell, self.key)
            return None if value is None or not math.isfinite(value) else Point(value, value, value, cell.cost.images)
        figure = cell.figures.get(self.key)
        if figure is None or not math.isfinite(figure.value):
            return None
        return Point(figure.value, figure.low, figure.high, figure.n)


COSTS = {
    "nfe": "network evaluations an image",
    "seconds": "seconds an image",
    "peak_memory": "peak memory, GiB",
}


def columns(cells: Sequence[Cell]) -> list[Column]:
    """Return every figure and every cost that any of the cells has, figures first, in the order in which they were asked for."""
    keys = list(dict.fromkeys(key for cell in cells for key in cell.figures))
    found = []
    for key in keys:
        wanted = Wanted.parse(key, "")
        title = wanted.metric.title + (f" ({key})" if key != _name(key) else "")
        values = [cell.figures[key].value for cell in cells if key in cell.figures]
        found.append(Column(key, _name(key), _network(key), title, wanted.metric.better, len(set(values)) > 1))
    for key, title in COSTS.items():
        spent = [value for cell in cells if (value := _cost(cell, key)) is not None]
        if spent:
            found.append(Column(key, key, "", title, "lower", len(set(spent)) > 1))
    return found


def best(cells: Sequence[Cell], column: Column) -> list[Cell]:
    """Return the cells that are best in a column: none where neither way is better, or all are alike."""
    if column.better is None or not column.varies:
        return []
    values = {id(cell): point.value for cell in cells if (point := column.of(cell)) is not None}
    choose = max if column.better == "higher" else min
    return [cell for cell in cells if values.get(id(cell)) == choose(values.values())] if values else []


@dataclass(frozen=True)
class Line:
    """Cells that differ in one axis only, in its order.

    Args:
        name: of its colour, the value on the axis that `coloured` returns.
        along: the axis that it runs along; None where there is none, and each cell stands alone.
        cells: on it; one that has no value on that axis stands alone.
    """

    name: str
    along: str | None
    cells: tuple[Cell, ...]


def lines(cells: Sequence[Cell]) -> list[Line]:
    """Return the cells as lines along the weight, or else along the axis with the most numbers."""
    run, hue = along(cells), coloured(cells)
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        rest = tuple(f"{name}={shown(value)}" for name, value in cell.axes.items() if name != run)
        alone = (cell.key,) if run is None or run not in cell.axes else ()
        groups.setdefault(alone + rest, []).append(cell)
    return [
        Line(
            shown(members[0].axes.get(hue, "")) if hue is not None else "",
            run,
            tuple(sorted(members, key=lambda cell: cell.axes.get(run or "", 0))),
        )
        for members in groups.values()
    ]


def along(cells: Sequence[Cell]) -> str | None:
    """Return the axis that lines run along: ``w``, or the one with the most numbers; None where no axis has two."""
    counts = {name: len(set(values)) for name, values in axes(cells).items() if all(map(is_number, values))}
    counts = {name: count for name, count in counts.items() if count > 1}
    return "w" if "w" in counts else max(counts, key=lambda name: counts[name], default=None)


def coloured(cells: Sequence[Cell]) -> str | None:
    """Return the axis that tells colours: ``rule``, or the first that varies and that lines do not run along."""
    run = along(cells)
    varied = [name for name, values in axes(cells).items() if len(values) > 1 and name != run]
    return "rule" if "rule" in varied else next(iter(varied), None)


def axes(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    """Return every axis with its values, numbers in order of size, others in that in which they come."""
    found: dict[str, list[Any]] = {}
    for cell in cells:
        for name, value in cell.axes.items():
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return {name: sorted(values) if all(map(is_number, values)) else values for name, values in found.items()}


def common(values: Sequence[T]) -> T | None:
    """Return the value that all have, None where they differ."""
    return values[0] if values and all(value == values[0] for value in values) else None


def shown(value: Any) -> str:
    """Return the value of an axis for people."""
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def as_json(value: Any) -> Any:
    """Return data as JSON can hold it: numbers that are none become null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def slug(text: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "x"


def _name(key: str) -> str:
    return re.split(r"[(@]", key, maxsplit=1)[0].strip()


def _network(key: str) -> str:
    return key.rpartition("@")[2] if "@" in key else ""


def _cost(cell: Cell, key: str) -> float | None:
    cost = cell.cost
    if key == "nfe":
        return float(cost.nfe)
    if key == "seconds":
        return cost.seconds / cost.images
    return cost.peak_memory / 2**30 if cost.peak_memory else None
