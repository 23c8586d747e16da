"""What a tuning is after: objectives, and limits such as "nfe<=30", read as what they are and never evaluated as code."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from guidon.errors import BadValue, nearest
from guidon.measure.metric import Wanted
from guidon.study.columns import COSTS, columns
from guidon.study.store import Cell

LIMIT = re.compile(r"\s*(?P<key>.+?)\s*(?P<relation><=|>=|<|>|=<|=>)\s*(?P<bound>[-+\d.eE]+)\s*")


@dataclass(frozen=True)
class Objective:
    """A figure or a cost that is to be as good as it can be.

    Args:
        key: of the metric, or "nfe", "seconds" (an image), "peak_memory" (GiB).
        better: "higher" or "lower".
    """

    key: str
    better: str

    def loss(self, cell: Cell) -> float:
        """Return a number that is lower where the cell is better; NaN where it has none."""
        value = value_of(cell, self.key)
        return value if self.better == "lower" else -value


@dataclass(frozen=True)
class Limit:
    """What must hold of a figure or a cost.

    Args:
        key: as of `Objective`.
        relation: "<=", ">=", "<" or ">".
        bound: the number on its right.
    """

    key: str
    relation: str
    bound: float

    def excess(self, cell: Cell) -> float:
        """Return by how much a cell fails, more than 0, or at most 0 where it holds; NaN, which is no number, fails."""
        value = value_of(cell, self.key)
        over = value - self.bound if self.relation.startswith("<") else self.bound - value
        if math.isnan(over):
            return math.inf
        return math.ulp(abs(self.bound)) if over == 0 and "=" not in self.relation else over

    def __str__(self) -> str:
        return f"{self.key}{self.relation}{self.bound:g}"


def read_objective(text: str, network: str) -> Objective:
    """Read what is to be as good as it can be; raises `BadValue` for what is neither good nor bad, `UnknownName`."""
    key = text.strip()
    if key in COSTS:
        return Objective(key, "lower")
    better = _metric(key, network).metric.better
    if better is None:
        raise BadValue(f"{key} is neither better high nor low; take another objective, or limit it: --subject-to")
    return Objective(key, better)


def read_limit(text: str, network: str) -> Limit:
    """Read a limit such as "nfe<=30" or "recall>=0.5"; raises `BadValue`, `UnknownName`."""
    found = LIMIT.fullmatch(text)
    try:
        bound = math.nan if found is None else float(found["bound"])
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise BadValue(f"cannot read the limit {text!r}; write for instance nfe<=30 or recall>=0.5")
    if found["key"] not in COSTS:
        _metric(found["key"], network)
    return Limit(found["key"], found["relation"].replace("=<", "<=").replace("=>", ">="), bound)


def value_of(cell: Cell, key: str) -> float:
    """Return a figure or a cost of a cell, NaN where it has none."""
    column = next((column for column in columns([cell]) if column.key == key), None)
    point = None if column is None else column.of(cell)
    return math.nan if point is None else point.value


def excess(cell: Cell, limits: Sequence[Limit]) -> float:
    """Return by how much a cell fails all limits together, each relative to its bound; 0 where all hold."""
    return sum(max(limit.excess(cell), 0.0) / (abs(limit.bound) or 1.0) for limit in limits)


def winners(cells: Sequence[Cell], objectives: Sequence[Objective], limits: Sequence[Limit]) -> list[Cell]:
    """Return the cells within all limits that no other one there beats, the best of the first objective first."""
    allowed = [cell for cell in cells if excess(cell, limits) == 0]
    losses = [tuple(objective.loss(cell) for objective in objectives) for cell in allowed]
    known = [(cell, loss) for cell, loss in zip(allowed, losses, strict=True) if not any(map(math.isnan, loss))]
    best = [(cell, loss) for cell, loss in known if not any(_beats(other, loss) for _, other in known)]
    return [cell for cell, _ in sorted(best, key=lambda pair: pair[1])]


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def _metric(key: str, network: str) -> Wanted:
    try:
        return Wanted.parse(key, network)
    except BadValue as error:
        close = nearest(key, COSTS)
        raise BadValue(f"{error}; or a cost: {', '.join(COSTS)}{close}") from error
