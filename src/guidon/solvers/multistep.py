"""What multistep solvers share: what earlier steps were told, and how the order falls at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Moment
from guidon.registry import to_text
from guidon.solvers.solver import Carry, Solver

Memory = tuple[tuple[float, Tensor], ...]  # log noise level and belief of a step, the newest first


def remember(carry: Carry, at: Moment, belief: Tensor, most: int) -> Memory:
    """Return the newest ``most`` beliefs with the log noise levels they are about; none of a level without any signal."""
    if math.isinf(at.noise_level):
        return ()
    return ((math.log(at.noise_level), belief), *(carry or ()))[:most]


def order_left(at: Moment, order: int, end: str) -> int:
    """Return the order that a step may have: 1 to the clean image; with "lower" the last steps are of order ..., 2, 1."""
    if at.there.sigma == 0:
        return 1
    return min(order, at.steps - at.index) if end == "lower" else order


def check_word(solver: Solver, field: str, words: Sequence[str]) -> None:
    """Raise `BadValue` unless a field of a solver is one of the words it takes."""
    value = getattr(solver, field)
    if value not in words:
        raise BadValue(f"{to_text(solver).partition('(')[0]} takes {field} {' or '.join(words)}, got {value!r}")
