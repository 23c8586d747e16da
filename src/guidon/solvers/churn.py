"""Churn: a little fresh noise before every step, which the step then removes with the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Moment
from guidon.registry import register, to_text
from guidon.solvers.euler import Heun
from guidon.solvers.solver import Carry, Noise, Solver, Step


@register("solver", "churn")
@dataclass(frozen=True)
class Churn(Solver):
    """EDM's stochastic sampler: before a step the noise level is raised by fresh noise, and the step starts from there.

    Args:
        solver: the steps; Heun is EDM's. One without memory of the steps before it.
        amount: how much noise in all, > 0: each step raises the noise level by amount / steps of itself, at most by 41 %. The paper's
            40 is for 256 steps.
        low, high: noise levels between which it happens, both included; a rule sees the raised level.
        noise: standard deviation of the fresh noise beside what the level asks for; a little over 1 makes up for detail lost.

    Source: Karras et al., arXiv 2206.00364, algorithm 2; low, high and noise are table 5's for ImageNet.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    solver: Solver = field(default_factory=Heun)
    amount: float = 4.0
    low: float = 0.05
    high: float = 50.0
    noise: float = 1.003

    def __post_init__(self) -> None:
        if not isinstance(self.solver, Solver):
            raise BadValue(f"churn stands around a solver such as Heun(), not {self.solver!r}")
        if self.solver.remembers or self.solver.particular:
            raise BadValue(
                f"churn moves the state between steps, which {to_text(self.solver)} cannot follow; take heun, euler or dpm-2"
            )
        if not (self.amount > 0 and 0 <= self.low < self.high and self.noise > 0):
            raise BadValue(
                "churn needs amount > 0, 0 <= low < high and noise > 0; without churn write the solver alone"
            )

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return self.solver.evaluations

    @property
    def asks_at_start(self) -> bool:  # type: ignore[override]
        return self.solver.asks_at_start

    def init(self) -> Carry:
        return self.solver.init()

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        if self.low <= at.noise_level <= self.high and math.isfinite(at.noise_level):
            raised = at.here.with_noise_level(at.noise_level * (1 + min(self.amount / at.steps, math.sqrt(2) - 1)))
            fresh = math.sqrt(float(raised.noise_level) ** 2 - at.noise_level**2) * self.noise
            x = (x / at.here.alpha + noise() * fresh) * raised.alpha
            at = replace(at, here=raised)
        return (yield from self.solver.step(x, at, carry, noise))
