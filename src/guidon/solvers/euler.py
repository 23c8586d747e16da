"""Euler and Heun on the probability-flow ODE, in noise level.

In z = x / alpha and tau = sigma / alpha every process has the same ODE, dz/dtau = eps(z, tau). An Euler step of it, written
back in x, is alpha x0 + sigma eps at the new level: the clean image, re-noised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from guidon.guidance.rule import Guided, Moment
from guidon.noise.level import Level
from guidon.registry import register
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

    Source: Karras et al., arXiv 2206.00364, algorithm 1 without the second-order correction.
    """

    order: ClassVar[int] = 1

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        return renoise(guided, at.there), carry


@register("solver", "heun")
@dataclass(frozen=True)
class Heun(Solver):
    """Heun's method: Euler to the new level, then the mean of both slopes. Source: arXiv 2206.00364, algorithm 1.

    A step to the clean image, or from a level without any signal, has no second slope and is Euler's.
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        here = yield Ask(x, at)
        ahead = renoise(here, at.there)
        if at.there.sigma == 0 or math.isinf(at.noise_level):
            return ahead, carry
        there = yield Ask(ahead, replace(at, here=at.there, began=at.here), advance=False)
        half_step = at.there.alpha * (at.there.noise_level - at.noise_level) / 2
        return torch.add(ahead, there.eps - here.eps, alpha=float(half_step)), carry
