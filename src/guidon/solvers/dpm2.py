"""DPM-Solver-2 in its first form: the slope of a whole step is the noise believed in its middle."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Guided, Moment
from guidon.registry import register
from guidon.solvers.ancestral import WithFreshNoise, kept_and_fresh
from guidon.solvers.euler import renoise
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


@register("solver", "dpm-2")
@dataclass(frozen=True)
class DPM2(Solver):
    """Midpoint method in noise level, its middle halfway in log noise level.

    The step to the clean image, and one from a level without any signal, have no middle and are Euler's.

    Source: k-diffusion's ``sample_dpm_2``, after Karras et al., arXiv 2206.00364, and DPM-Solver-2, arXiv 2206.00927.
    """

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        return (yield from midpoint(x, at, float(at.there.sigma))), carry


@register("solver", "dpm-2-ancestral")
@dataclass(frozen=True)
class DPM2Ancestral(WithFreshNoise):
    """dpm-2 to less noise than wanted, then fresh noise for the rest.

    Args:
        eta: 1 draws as much noise as DDPM, 0 none, which is dpm-2; in [0, 1].

    Raises:
        BadValue: eta out of range.

    Source: k-diffusion's ``sample_dpm_2_ancestral``.
    """

    evaluations: ClassVar[int] = 2
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise BadValue(f"dpm-2-ancestral needs eta in [0, 1], got {self.eta}")

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        kept, fresh = kept_and_fresh(at, self.eta)
        after = yield from midpoint(x, at, kept)
        return (after.add_(noise(), alpha=fresh) if fresh > 0 else after), carry


def midpoint(x: Tensor, at: Moment, kept: float) -> Generator[Ask, Guided, Tensor]:
    """Return the state after a step to ``kept`` noise, at the scale of ``at.there``.

    Args:
        x: the state (B, ...).
        at: the step.
        kept: the sigma that is left of the noise, at most that of ``at.there``; where it is 0 the step is Euler's.
    """
    guided = yield Ask(x, at)
    alpha = float(at.there.alpha)
    ahead = (guided.x0 * alpha).add_(guided.eps, alpha=kept)
    if kept == 0 or math.isinf(at.noise_level):
        return ahead
    down = kept / alpha
    middle = at.here.with_noise_level(math.sqrt(at.noise_level * down))
    second = yield Ask(renoise(guided, middle), replace(at, here=middle, began=at.here), advance=False)
    return ahead.add_(second.eps - guided.eps, alpha=alpha * (down - at.noise_level))
