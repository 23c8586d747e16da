"""DPM-Solver++ with two evaluations a step, and fresh noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Moment
from guidon.registry import register
from guidon.solvers.ancestral import WithFreshNoise, kept_and_fresh
from guidon.solvers.euler import renoise
from guidon.solvers.solver import Ask, Carry, Noise, Step


@register("solver", "dpmpp-2s-ancestral")
@dataclass(frozen=True)
class DPMpp2SAncestral(WithFreshNoise):
    """DPM-Solver++(2S), ancestral: to less noise than wanted by a midpoint step, then fresh noise for the rest.

    The midpoint is halfway in log noise level. The step to the clean image, and one from a level without any signal, have no
    midpoint and are ancestral Euler's. Under CFG++ the way to the midpoint, and what is kept of the state, follow the null branch.

    Args:
        eta: 1 draws as much noise as DDPM, 0 none (second order); in [0, 1].

    Source: Lu et al., arXiv 2211.01095, algorithm 1 with r = 1/2, and k-diffusion's ``sample_dpmpp_2s_ancestral``; CFG++:
    Chung et al., arXiv 2406.08070, and their code.
    """

    evaluations: ClassVar[int] = 2
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise BadValue(f"dpmpp-2s-ancestral needs eta in [0, 1], got {self.eta}")

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        if at.there.sigma == 0:
            return renoise(guided, at.there), carry
        alpha, (kept, fresh) = float(at.there.alpha), kept_and_fresh(at, self.eta)
        shrink = kept / alpha / at.noise_level  # e^-h, on the way to less noise than wanted
        if shrink == 0:
            after = guided.x0 * alpha + guided.eps * kept
        else:
            halfway = at.here.with_noise_level(at.noise_level * math.sqrt(shrink))
            clean = guided.x0 if guided.noise_x0 is None else guided.noise_x0
            middle = clean * halfway.alpha + guided.eps * halfway.sigma
            guided = yield Ask(middle, replace(at, here=halfway, began=at.here), advance=False)
            clean = guided.x0 if guided.noise_x0 is None else guided.noise_x0
            after = (guided.x0 - clean * shrink) * alpha + x * (shrink * alpha / float(at.here.alpha))
        return (after + noise() * fresh if self.stochastic else after), carry
