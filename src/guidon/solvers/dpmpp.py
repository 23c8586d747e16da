"""DPM-Solver++ multistep: the clean image extrapolated from the steps before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guidon.guidance.rule import Moment
from guidon.registry import register
from guidon.solvers.euler import renoise
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


@register("solver", "dpmpp-2m")
@dataclass(frozen=True)
class DPMpp2M(Solver):
    """DPM-Solver++(2M): second order with one evaluation a step.

    The carry is the clean image of the step before (under CFG++ that of the null branch, arXiv 2406.08070, appendix) and that
    step's length in log noise level. The first step and the step
    to the clean image are Euler's. Source: Lu et al., arXiv 2211.01095, algorithm 2.
    """

    order: ClassVar[int] = 2

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        after = renoise(guided, at.there)
        if at.there.sigma == 0:
            return after, None
        shrink = float(at.there.noise_level) / at.noise_level  # e^-h; 0 from a level without signal
        length = -math.log(shrink) if shrink > 0 else math.inf
        clean = guided.x0 if guided.noise_x0 is None else guided.noise_x0
        if carry is not None:
            before, length_before = carry
            slope = length / (2 * length_before)  # 1 / (2 r), r = length_before / length
            after = after.add_(clean - before, alpha=float(at.there.alpha) * (1 - shrink) * slope)
        return after, (clean, length)
