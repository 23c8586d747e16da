"""Annealed Langevin dynamics: at every level a few noisy steps along the score, and no other way down."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Guided, Moment
from guidon.registry import register
from guidon.solvers.euler import renoise
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


@register("solver", "langevin")
@dataclass(frozen=True)
class Langevin(Solver):
    """Annealed Langevin dynamics: the state stays, the noise level falls, and noisy steps along the score follow it down.

    It approaches the distribution with many corrections of small size at each level, not with the number of levels alone: so
    its order is 0. The step to the clean image returns what is believed.

    Args:
        corrections: steps at each level, >= 1.
        size: length of a step beside the noise variance of the level, in (0, 2].

    Source: Song & Ermon, arXiv 1907.05600, algorithm 1, with size = epsilon / sigma_L^2.
    """

    order: ClassVar[int] = 0
    stochastic: ClassVar[bool] = True
    asks_at_start: ClassVar[bool] = False
    corrections: int = 10
    size: float = 0.2

    def __post_init__(self) -> None:
        if not (self.corrections >= 1 and 0 < self.size <= 2):
            raise BadValue(
                f"langevin needs corrections >= 1 and size in (0, 2], got {self.corrections} and {self.size}"
            )

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return self.corrections

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        if at.there.sigma == 0:
            return renoise((yield Ask(x, at)), at.there), carry
        signal = float(
            at.here.alpha
        )  # x / alpha stays; without any signal it is noise, and becomes that of the new level
        x = x * (at.there.alpha / signal if signal else float(at.there.sigma) / float(at.here.sigma))
        return (yield from corrected(x, at, self.corrections, self.size, noise)), carry


def corrected(x: Tensor, at: Moment, corrections: int, size: float, noise: Noise) -> Generator[Ask, Guided, Tensor]:
    """Return a state after Langevin steps at the level that a step goes to.

    One is x + (h / 2) score + sqrt(h) z with h = size sigma^2 there; the score of the guided belief is -eps / sigma.

    Args:
        x: the state at ``at.there`` (B, ...).
        at: the step; its rule's memory advances with the last correction.
        corrections: how many.
        size: h / sigma^2.
        noise: of the solver.
    """
    for left in reversed(range(corrections)):
        guided = yield Ask(x, replace(at, here=at.there, began=at.here), advance=left == 0)
        x = x + (noise() * math.sqrt(size) - guided.eps * (size / 2)) * at.there.sigma
    return x
