"""Euler and the two-evaluation methods of Heun's family on the probability-flow ODE, in noise level.

In z = x / alpha and tau = sigma / alpha every process has the same ODE, dz/dtau = eps(z, tau). An Euler step of it, written
back in x, is alpha x0 + sigma eps at the new level: the clean image, re-noised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Guided, Moment
from guidon.noise.level import Level
from guidon.noise.process import EDM, Process
from guidon.registry import register
from guidon.solvers.clock import checked_clock, knows, scale, seen, slope
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


def renoise(guided: Guided, level: Level) -> Tensor:
    """Return alpha x0 + sigma eps at a level: the Euler step, and DDIM's."""
    if level.sigma == 0:
        return guided.x0 * level.alpha
    return (guided.x0 * level.alpha).add_(guided.eps, alpha=float(level.sigma))


@register("solver", "euler")
@dataclass(frozen=True)
class Euler(Solver):
    """Euler's method; on a variance-preserving process this is deterministic DDIM.

    Args:
        clock: a continuous process in whose time the steps are straight; left out: the noise level.

    Source: Karras et al., arXiv 2206.00364, algorithm 1 without the second-order correction.
    """

    order: ClassVar[int] = 1
    clock: Process | None = None

    def __post_init__(self) -> None:
        checked_clock(self.clock)

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        if self.clock is None or not knows(self.clock, at.here):
            return renoise(guided, at.there), carry
        here, there = seen(self.clock, at.here), seen(self.clock, at.there)
        start = x if guided.noise_x0 is None else renoise(guided, at.here)  # CFG++ starts from the guided clean image
        ahead = start * scale(at.here, here) + slope(guided, self.clock, float(here.t)) * (there.t - here.t)
        return ahead * scale(there, at.there), carry


@register("solver", "heun")
@dataclass(frozen=True)
class Heun(Solver):
    """Heun's method: Euler to the new level, then the mean of both slopes.

    A step to the clean image, or from a level without any signal that the clock has no time for, has no second slope and is Euler's.

    Args:
        alpha: how far along the step the second slope is taken, in (0, 1]: 1 is Heun's method, 0.5 the midpoint's.
        clock: a continuous process in whose time the steps are straight; left out: the noise level.

    Source: Karras et al., arXiv 2206.00364, algorithm 1; other alphas: appendix D.2.
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    alpha: float = 1.0
    clock: Process | None = None

    def __post_init__(self) -> None:
        checked_clock(self.clock)
        if not 0 < self.alpha <= 1:
            raise BadValue(f"heun needs alpha in (0, 1], got {self.alpha}")

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        clock = EDM() if self.clock is None else self.clock
        if at.there.sigma == 0 or not knows(clock, at.here):
            return (yield from Euler(self.clock).step(x, at, carry, noise))
        here, there = seen(clock, at.here), seen(clock, at.there)
        start, length = x * scale(at.here, here), float(there.t) - float(here.t)
        first = slope((yield Ask(x, at)), clock, float(here.t))
        between, level = there, at.there
        if self.alpha != 1:
            between = clock.level(float(here.t) + self.alpha * length)
            level = at.here.with_noise_level(float(between.noise_level))
        ahead = (start + first * (self.alpha * length)) * scale(between, level)
        guided = yield Ask(ahead, replace(at, here=level, began=at.here), advance=False)
        second = slope(guided, clock, float(between.t))
        share = 1 / (2 * self.alpha)  # of the second slope
        return (start + (first * (1 - share) + second * share) * length) * scale(there, at.there), carry
