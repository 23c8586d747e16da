"""DDPM, DDIM and ancestral Euler: steps with as much fresh noise as one wants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue, NotSupported
from guidon.guidance.rule import Guided, Moment
from guidon.noise.level import Number
from guidon.noise.posterior import log_variance, posterior_mean, posterior_variances
from guidon.registry import register, to_text
from guidon.solvers.euler import renoise
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


@register("solver", "ddim")
@dataclass(frozen=True)
class DDIM(Solver):
    """DDIM: the clean image re-noised, a part of the noise fresh.

    Args:
        eta: 0 is deterministic (Euler), 1 draws as much noise as DDPM with the small variance; in [0, 1].

    Source: Song et al., arXiv 2010.02502, eq. 12 and 16, in noise levels so that it fits every process.
    """

    order: ClassVar[int] = 1
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise BadValue(f"{to_text(self).partition('(')[0]} needs eta in [0, 1], got {self.eta}")

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.eta > 0

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        if self.eta == 0 or at.there.sigma == 0:
            return renoise(guided, at.there), carry
        kept, fresh = kept_and_fresh(at, self.eta)
        return guided.x0 * at.there.alpha + guided.eps * kept + noise() * fresh, carry


@register("solver", "euler-ancestral")
@dataclass(frozen=True)
class EulerAncestral(DDIM):
    """Ancestral Euler: an Euler step to less noise than wanted, and fresh noise for the rest; DDIM by another name.

    Under CFG++ it is the authors' "euler_a_cfg++".

    Args:
        eta: 1 draws as much noise as DDPM, 0 is Euler; in [0, 1].

    Source: k-diffusion's ``sample_euler_ancestral``; in noise level it is Song et al., arXiv 2010.02502, eq. 12 and 16.
    """

    eta: float = 1.0


@register("solver", "ddpm")
@dataclass(frozen=True)
class DDPM(Solver):
    """Ancestral sampling from the posterior q(x_s | x_t, x0).

    Args:
        variance: "small" (the posterior's), "large" (that of the forward step), or "learned" (between the two, as the
            network says).

    Source: Ho et al., arXiv 2006.11239, eq. 6-7; learned: arXiv 2102.09672, eq. 15.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    variance: str = "small"

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large", "learned"):
            raise BadValue(f"ddpm takes variance small, large or learned, got {self.variance!r}")

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        of_x0, of_x = posterior_mean(at.here, at.there)
        mean = guided.x0 * of_x0 + x * of_x
        small, large = posterior_variances(at.here, at.there)
        if at.there.sigma == 0:
            if guided.drift is not None:
                mean = mean + guided.drift * self._last_variance(guided, large if carry is None else carry, large)
            return mean, carry
        variance = self._variance(guided, small, large)
        if guided.drift is not None:
            mean = mean + guided.drift * variance
        return mean + noise() * variance**0.5, small  # which the last step looks at

    def _variance(self, guided: Guided, small: Number, large: Number) -> Number:
        if self.variance != "learned":
            return small if self.variance == "small" else large
        if guided.variance_fraction is None:
            raise NotSupported("this network learned no variance; use ddpm('small') or ddpm('large')")
        return torch.exp(log_variance(guided.variance_fraction, small, large))

    def _last_variance(self, guided: Guided, before: Number, large: Number) -> Number:
        """Return what a drift is multiplied with in the step to the clean image, which draws no noise.

        Args:
            guided: what the step was told.
            before: the small variance of the step before, in a run of one step the large one; it stands for the smallest.
            large: variance of the forward step.

        Source: guided-diffusion's ``condition_mean`` at index 0, where ``posterior_log_variance_clipped`` repeats index 1.
        """
        if self.variance == "small":
            return 0.0
        return before if self.variance == "large" else self._variance(guided, before, large)


class WithFreshNoise(Solver):
    """A solver with a share ``eta`` of fresh noise: of second order on the ODE without any, else of first in distribution."""

    eta: float

    @property
    def order(self) -> int:  # type: ignore[override]
        return 1 if self.stochastic else 2

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.eta > 0


def kept_and_fresh(at: Moment, eta: float) -> tuple[float, float]:
    """Return how much of the noise after a step is the old one and how much is new; their squares add up to sigma^2."""
    if eta == 0:
        return float(at.there.sigma), 0.0
    sigma, ratio = float(at.there.sigma), float(at.there.noise_level / at.noise_level)
    return sigma * math.sqrt(1 - eta**2 + (eta * ratio) ** 2), sigma * eta * math.sqrt(1 - ratio**2)
