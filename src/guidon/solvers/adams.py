"""Adams-Bashforth in noise level: the noise believed in the steps before, as a polynomial, integrated over the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Guided, Moment
from guidon.registry import register
from guidon.solvers.euler import renoise
from guidon.solvers.multistep import Memory, check_word, order_left, remember
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step

Numbers = NDArray[np.float64]
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(24)  # exact to double precision for steps of up to e^10


@register("solver", "lms")
@dataclass(frozen=True)
class LMS(Solver):
    """Linear multistep: polynomials in the noise level. The first steps are of lower orders, one evaluation each.

    Args:
        order: how many beliefs a step rests on, 1 to 4; 1 is Euler.
        through: integrate to the clean image as to any other level, as the reference codes do; else the end is what is believed.

    Raises:
        BadValue: another order.

    Source: k-diffusion's ``sample_lms`` and diffusers' ``LMSDiscreteScheduler``.
    """

    remembers: ClassVar[bool] = True
    order: int = 4  # type: ignore[misc]
    through: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 4:
            raise BadValue(f"lms takes orders 1 to 4, got {self.order}")

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        memory = remember(carry, at, guided.eps, self.order)
        if len(memory) < 2 or (at.there.sigma == 0 and not self.through):
            return renoise(guided, at.there), memory
        nodes = [math.exp(level) for level, _ in memory]
        weights = integrals(nodes, at.noise_level, float(at.there.noise_level), np.ones_like)
        return extrapolated(guided, at, memory, weights), memory


@register("solver", "deis")
@dataclass(frozen=True)
class DEIS(Solver):
    """DEIS: polynomials in log noise level. The first steps are of lower orders, the one to the clean image is Euler's.

    Args:
        order: how many beliefs a step rests on, 1 to 3; 1 is Euler.
        end: "clean" lowers the order in the step to the clean image only, "lower" to ..., 2, 1 in the last steps.

    Raises:
        BadValue: another order or end.

    Source: Zhang & Chen, arXiv 2204.13902, rho AB with polynomials in log rho; diffusers' ``DEISMultistepScheduler``, "logrho".
    """

    remembers: ClassVar[bool] = True
    order: int = 2  # type: ignore[misc]
    end: str = "clean"

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 3:
            raise BadValue(f"deis takes orders 1 to 3, got {self.order}")
        check_word(self, "end", ("clean", "lower"))

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        memory = remember(carry, at, guided.eps, self.order)
        used = memory[: order_left(at, self.order, self.end)]
        if len(used) < 2:
            return renoise(guided, at.there), memory
        start, stop = math.log(at.noise_level), math.log(at.there.noise_level)
        return extrapolated(guided, at, used, integrals([level for level, _ in used], start, stop, np.exp)), memory


def extrapolated(guided: Guided, at: Moment, memory: Memory, weights: Sequence[float]) -> Tensor:
    """Return the state after a step along a weighted sum of beliefs: Euler's, and their differences from the newest."""
    after = renoise(guided, at.there)
    for (_, older), weight in list(zip(memory, weights, strict=True))[1:]:
        after = after.add_(older - guided.eps, alpha=float(at.there.alpha) * weight)
    return after


def integrals(nodes: Sequence[float], start: float, stop: float, density: Callable[[Numbers], Numbers]) -> list[float]:
    """Return the integral of each Lagrange polynomial of ``nodes`` times a density, by Gauss and Legendre's quadrature."""
    points, weights = start + (stop - start) * (POINTS + 1) / 2, (stop - start) * WEIGHTS / 2
    weights = weights * density(points)
    return [
        float(
            np.prod([weights, *((points - other) / (node - other) for other in nodes if other != node)], axis=0).sum()
        )
        for node in nodes
    ]
