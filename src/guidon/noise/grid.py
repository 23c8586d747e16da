"""What a grid is: the levels that a solver visits, from the noisiest to the clean image."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

from guidon.errors import BadValue
from guidon.noise.level import Level
from guidon.noise.process import Process

# What stands for an infinite noise level where the way down is measured in noise levels: that of alpha^2 = 2^-24, float32's
# spacing below 1, under alpha^2 + sigma^2 = 1.
NOISIEST = math.sqrt(2.0**24 - 1)


class Grid(ABC):
    """A way to place the levels of a run."""

    @abstractmethod
    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        """Return ``steps + 1`` levels of ``process``, the noisiest first, the clean image last unless `ends` says otherwise.

        Raises:
            BadValue: fewer than one step, or more steps than the grid can place.
            NotSupported: the grid does not fit the process.
        """


def down(process: Process, noise_levels: Iterable[float]) -> tuple[Level, ...]:
    """Return the levels of a process at noise levels, the noisiest first, and the clean image after them.

    Raises:
        BadValue: two of them are the same.
    """
    taus = [float(tau) for tau in noise_levels]
    if not all(above > below for above, below in itertools.pairwise(taus)):
        raise BadValue("two levels of the grid are the same; take fewer steps, or let it be less dense at its ends")
    return (*map(process.level_at, taus), process.clean)


def at_least_one(steps: int) -> None:
    """Raise `BadValue` where a run has no step."""
    if steps < 1:
        raise BadValue(f"sampling needs at least 1 step, got {steps}")
