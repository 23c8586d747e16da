"""What experiments on the line share: where runs start and which levels they take, densities, limits of many steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG
from guidon.lab.affine import propagate
from guidon.lab.endpoints import COUNTEREXAMPLE
from guidon.lab.experiment import Row
from guidon.lab.gaussian import Pair
from guidon.noise import VE, Level
from guidon.noise.noise_grids import LogSNR
from guidon.solvers import Solver

WIDE = VE(sigma_min=1e-3, sigma_max=1e3)
"""The process of worlds with closed forms for infinite noise: so wide that the start is all but forgotten."""


def levels(steps: int) -> tuple[Level, ...]:
    """Return the levels of a run from `WIDE`: even in the logarithm of the noise level, and the clean image."""
    return LogSNR().levels(WIDE, steps)


def moments(solver: Solver, weight: float, steps: int, pair: Pair = COUNTEREXAMPLE) -> tuple[float, float]:
    """Return mean and variance, to rounding error, at the end of a run of a pair of Gaussians under cfg.

    Args:
        solver, weight, steps: how it runs.
        pair: the class and no class.
    """
    path = levels(steps)
    mean, variance = propagate(solver, CFG(weight), path, pair, 0.0, WIDE.start_scale(path[0]) ** 2)
    return float(mean), float(variance)


def quantiles(count: int) -> Tensor:
    """Return the quantiles (k + 1/2) / count of N(0, 1), float64 (count,), rising: a start without chance.

    Raises:
        BadValue: ``count`` is below 1.
    """
    if count < 1:
        raise BadValue(f"a start needs at least one quantile, got {count}")
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)


def normal(mean: float, std: float) -> Callable[[Tensor], Tensor]:
    """Return the density of N(mean, std^2), a function of points."""

    def density(x: Tensor) -> Tensor:
        return torch.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))

    return density


def extrapolated(steps: Sequence[int], values: Sequence[float], order: int) -> float:
    """Return the value for infinitely many steps, from the last two whose error falls at an order; from one, this one."""
    if len(values) < 2:
        return float(values[-1])
    factor = (steps[-1] / steps[-2]) ** order
    return (factor * values[-1] - values[-2]) / (factor - 1)


def power(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """Return p of errors that fall as size^(-p), from the last two; NaN where one of these is zero or not finite.

    Args:
        sizes: numbers of steps or evaluations, rising, > 0.
        errors: one for each, >= 0.
    """
    coarse, fine = errors[-2:]
    if not (0 < coarse < math.inf and 0 < fine < math.inf):
        return math.nan
    return math.log(coarse / fine) / math.log(sizes[-1] / sizes[-2])


def powers(runs: Sequence[Row]) -> tuple[float, float]:
    """Return the least and the largest `power` over the weights of runs, by their "steps" and "relative error"."""
    found = []
    for weight in dict.fromkeys(row["weight"] for row in runs):
        mine = [row for row in runs if row["weight"] == weight]
        found.append(power([row["steps"] for row in mine], [row["relative error"] for row in mine]))
    known = [p for p in found if not math.isnan(p)] or [math.nan]
    return min(known), max(known)
