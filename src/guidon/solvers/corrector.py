"""Predictor-corrector guidance: the condition alone leads, Langevin steps at every level sharpen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import GIVEN, Moment
from guidon.registry import register
from guidon.solvers.euler import renoise
from guidon.solvers.langevin import corrected
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


@register("solver", "pcg")
@dataclass(frozen=True)
class PCG(Solver):
    """Predictor-corrector guidance: a DDIM step with the given branch alone, then Langevin steps with the guided belief.

    So the rule says what the corrections sharpen towards: cfg(gamma) is p(x | c)^gamma p(x)^(1 - gamma) at each level. With one
    correction and ever more steps, cfg(2 w - 1) under this solver is cfg(w) under ddpm. A correction is as long as the noise
    that DDPM draws in that step. The step to the clean image has none and follows the given branch.

    Args:
        corrections: Langevin steps at each level, >= 1.

    Source: Bradley & Nakkiran, arXiv 2408.09000, algorithm 1 and theorem 3.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    asks_at_start: ClassVar[bool] = False
    corrections: int = 1

    def __post_init__(self) -> None:
        if self.corrections < 1:
            raise BadValue(f"pcg needs corrections >= 1, got {self.corrections}; without any it is ddim under cfg(1)")

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return 1 + self.corrections

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        x = renoise((yield Ask(x, at, plain=GIVEN)), at.there)
        if at.there.sigma == 0:
            return x, carry
        size = 1 - (float(at.there.noise_level) / at.noise_level) ** 2
        return (yield from corrected(x, at, self.corrections, size, noise)), carry
