"""Pseudo linear multistep: Adams-Bashforth as if the steps were equal."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guidon.guidance.rule import Moment
from guidon.registry import register
from guidon.solvers.euler import renoise
from guidon.solvers.multistep import remember
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step

WEIGHTS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


@register("solver", "plms")
@dataclass(frozen=True)
class PLMS(Solver):
    """PLMS: the noise of four steps by the weights of equal steps, then DDIM's transfer with it.

    The first step is Heun's and takes a second evaluation, two more are of lower orders. As noise levels are not equally spaced,
    the weights are not those of the integral: the order is 2. The step to the clean image is Euler's.

    Source: Liu et al., arXiv 2202.09778, eq. 11 and 12; diffusers' ``PNDMScheduler`` with ``skip_prk_steps``.
    """

    order: ClassVar[int] = 2
    remembers: ClassVar[bool] = True

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        memory, after = remember(carry, at, guided.eps, 4), renoise(guided, at.there)
        if at.there.sigma == 0 or math.isinf(at.noise_level):
            return after, memory
        length = float(at.there.alpha) * (float(at.there.noise_level) - at.noise_level)
        if len(memory) == 1:
            ahead = yield Ask(after.clone(), replace(at, here=at.there, began=at.here), advance=False)
            return after.add_(ahead.eps - guided.eps, alpha=length / 2), memory
        for (_, older), weight in zip(memory[1:], WEIGHTS[len(memory)][1:], strict=True):
            after = after.add_(older - guided.eps, alpha=length * weight)
        return after, memory
