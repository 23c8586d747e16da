"""DPM-Solver++ on the diffusion SDE: second and third order steps with fresh noise in each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Moment
from guidon.registry import register
from guidon.solvers.ancestral import WithFreshNoise, kept_and_fresh
from guidon.solvers.dpmpp import ENDS, FORMS, multistep
from guidon.solvers.euler import renoise
from guidon.solvers.multistep import check_word
from guidon.solvers.solver import Ask, Carry, Noise, Step


@register("solver", "dpmpp-2m-sde")
@dataclass(frozen=True)
class DPMpp2MSDE(WithFreshNoise):
    """DPM-Solver++(2M) on the SDE: dpmpp-2m, and fresh noise in every step but the one to the clean image.

    Args:
        eta: how much noise, >= 0: 1 as much as DDPM, 0 none, which is dpmpp-2m.
        form, end: see dpmpp-2m.

    Raises:
        BadValue: a negative eta, another form or end.

    Source: Lu et al., arXiv 2211.01095, SDE-DPM-Solver++(2M); eta: k-diffusion's ``sample_dpmpp_2m_sde``.
    """

    remembers: ClassVar[bool] = True
    eta: float = 1.0
    form: str = "midpoint"
    end: str = "clean"

    def __post_init__(self) -> None:
        _check_eta("dpmpp-2m-sde", self.eta)
        check_word(self, "form", FORMS)
        check_word(self, "end", ENDS)

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        return multistep(x, at, carry, noise, order=2, form=self.form, end=self.end, eta=self.eta)


@register("solver", "dpmpp-3m-sde")
@dataclass(frozen=True)
class DPMpp3MSDE(WithFreshNoise):
    """DPM-Solver++(3M) on the SDE: the clean image a parabola in log noise level; the second step is "heun" of dpmpp-2m-sde.

    Without noise it is of order 2, for the reason that dpmpp-3m gives.

    Args:
        eta: how much noise, >= 0: 1 as much as DDPM, 0 none.

    Raises:
        BadValue: a negative eta.

    Source: k-diffusion's ``sample_dpmpp_3m_sde``.
    """

    remembers: ClassVar[bool] = True
    eta: float = 1.0

    def __post_init__(self) -> None:
        _check_eta("dpmpp-3m-sde", self.eta)

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        return multistep(x, at, carry, noise, order=3, form="heun", end="clean", eta=self.eta)


@register("solver", "dpmpp-sde")
@dataclass(frozen=True)
class DPMppSDE(WithFreshNoise):
    """DPM-Solver++ with two evaluations a step, and fresh noise on the way to each.

    The second evaluation is a share r of the step ahead in log noise level; what is believed there and what was believed at the
    start make a belief for the whole step. The step to the clean image, and one from a level without any signal, are ancestral
    Euler's. With r = 1/2 and without noise it is dpmpp-2s-ancestral.

    Args:
        eta: 1 draws as much noise as DDPM, 0 none (second order); in [0, 1].
        r: where the second evaluation is, in (0, 1].

    Raises:
        BadValue: eta or r out of range.

    Source: Lu et al., arXiv 2211.01095, section 5 and algorithm 1; k-diffusion's ``sample_dpmpp_sde``.
    """

    evaluations: ClassVar[int] = 2
    eta: float = 1.0
    r: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.eta <= 1 and 0 < self.r <= 1):
            raise BadValue(f"dpmpp-sde needs eta in [0, 1] and r in (0, 1], got {self.eta} and {self.r}")

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        first = yield Ask(x, at)
        if at.there.sigma == 0:
            return renoise(first, at.there), carry
        alpha, (kept, fresh) = float(at.there.alpha), kept_and_fresh(at, self.eta)
        if math.isinf(at.noise_level):
            after = first.x0 * alpha + first.eps * kept
        else:
            ratio = float(at.there.noise_level) / at.noise_level
            between = at.here.with_noise_level(at.noise_level * ratio**self.r)
            kept_between, fresh_between = kept_and_fresh(replace(at, there=between), self.eta)
            middle = (first.x0 * between.alpha).add_(first.eps, alpha=kept_between)
            if self.stochastic:
                middle = middle.add_(noise(), alpha=fresh_between)
            second = yield Ask(middle, replace(at, here=between, began=at.here), advance=False)
            share, shrink = 1 / (2 * self.r), kept / alpha / at.noise_level
            believed = torch.lerp(first.x0, second.x0, share)
            after = believed * (alpha * (1 - shrink)) + x * (shrink * alpha / float(at.here.alpha))
        return (after.add_(noise(), alpha=fresh) if self.stochastic else after), carry


def _check_eta(name: str, eta: float) -> None:
    if not eta >= 0:
        raise BadValue(f"{name} needs eta >= 0, got {eta}")
