"""Processes of the stochastic differential equations of score-based models: variance preserving and variance exploding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.noise.level import Level, Number
from guidon.noise.process import Process
from guidon.registry import register


@register("process", "vp")
@dataclass(frozen=True)
class VP(Process):
    """Continuous variance-preserving process, alpha^2 = exp(-beta_d t^2 / 2 - beta_min t), sigma^2 = 1 - alpha^2, t in [0, 1].

    The rate of noise rises linearly from beta_min to beta_min + beta_d. Training times are uniform.

    Args:
        beta_min, beta_d: rate of noise at time 0 and how much it rises to time 1. EDM's fit to a range of noise levels
            may give a beta_min a little below 0; there must be noise from t_min on.
        t_min: the least time that a network is shown, in (0, 1).

    Source: Song et al., arXiv 2011.13456, appendix C; with these names arXiv 2206.00364, table 1.
    """

    beta_min: float = 0.1
    beta_d: float = 19.9
    t_min: float = 1e-3
    t_max = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.t_min < 1:
            raise BadValue(f"vp needs 0 < t_min < 1, got {self.t_min}")
        if not (self.beta_d > 0 and self.beta_min + self.beta_d * self.t_min / 2 > 0):
            raise BadValue(
                f"vp needs beta_d > 0 and noise at t_min, got beta_d {self.beta_d} and beta_min {self.beta_min}"
            )

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        total = t * (self.beta_min + self.beta_d * t / 2)
        return torch.exp(-total / 2), torch.sqrt(-torch.expm1(-total))

    def time_at(self, noise_level: float) -> float:
        if math.isinf(noise_level):
            return self.t_max
        total = 2 * math.log(math.hypot(1.0, noise_level)) if noise_level > 1 else math.log1p(noise_level**2)
        root = math.sqrt(self.beta_min**2 + 2 * self.beta_d * total)
        if self.beta_min > 0:
            return 2 * total / (self.beta_min + root)  # the difference below, without its cancellation near time 0
        return (root - self.beta_min) / self.beta_d

    def alpha_at(self, noise_level: float) -> float:
        return 1 / math.hypot(1.0, noise_level)

    def quantile(self, u: Tensor) -> Tensor:
        return self.t_min + (self.t_max - self.t_min) * u

    def start_scale(self, level: Level) -> float:
        return 1.0


@register("process", "ve")
@dataclass(frozen=True)
class VE(Process):
    """Continuous variance-exploding process, alpha = 1, sigma = sqrt(t), t from sigma_min^2 to sigma_max^2.

    Training noise levels are uniform in their logarithm. The network is shown 250 ln(sigma), as under EDM.

    Args:
        sigma_min, sigma_max: the range of noise levels, 0 < sigma_min < sigma_max.

    Source: Song et al., arXiv 2011.13456, appendix C; in this time arXiv 2206.00364, table 1.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise BadValue(f"ve needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.sigma_min**2

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.sigma_max**2

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), torch.sqrt(t)

    def time_at(self, noise_level: float) -> float:
        return noise_level**2

    def alpha_at(self, noise_level: float) -> float:
        return 1.0

    def quantile(self, u: Tensor) -> Tensor:
        return self.t_min * (self.t_max / self.t_min) ** u

    def clock(self, t: Number) -> Number:
        return 125.0 * (torch.log(t) if isinstance(t, Tensor) else math.log(t))
