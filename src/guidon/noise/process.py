"""Noise processes: how much signal and how much noise there is at each time.

Everything is told in x_t = alpha(t) x0 + sigma(t) eps. A process gives alpha and sigma at a time, the time at a noise level
sigma / alpha, and the times that training visits. Times are Python floats on the host, or float64 tensors in training.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.noise.level import Level, Number
from guidon.registry import register


class Process(ABC):
    """alpha(t) and sigma(t), the way back from noise level to time, and the times of training.

    Attributes:
        t_clean: the time at which nothing but the image is left (alpha 1, sigma 0).
        t_min: the least noisy time that a network is shown.
        t_max: the noisiest time, where sampling starts.
    """

    t_clean: float = 0.0
    t_min: float
    t_max: float

    @abstractmethod
    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma at times ``t``, float64 tensors of any shape."""

    @abstractmethod
    def time_at(self, noise_level: float) -> float:
        """Return the time at which sigma / alpha equals ``noise_level`` (>= 0, may be infinite)."""

    @abstractmethod
    def alpha_at(self, noise_level: float) -> float:
        """Return alpha where sigma / alpha equals ``noise_level``."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Map ``u`` uniform on [0, 1) to training times: the inverse distribution function of the times."""

    def clock(self, t: Number) -> Number:
        """Return what the network is shown for time ``t``: about 0 to 1000."""
        return 1000.0 * t

    def start_scale(self, level: Level) -> float:
        """Return the standard deviation of the state from which sampling starts at ``level``."""
        return float(level.sigma)

    def alpha(self, t: Number) -> Number:
        """Return alpha at a time (float) or at times (tensor)."""
        return self.level(t).alpha

    def sigma(self, t: Number) -> Number:
        """Return sigma at a time (float) or at times (tensor)."""
        return self.level(t).sigma

    def noise_level(self, t: Number) -> Number:
        """Return sigma / alpha at a time (float) or at times (tensor)."""
        return self.level(t).noise_level

    def level(self, t: Number) -> Level:
        """Return the level at a time (float) or the levels at times (B,)."""
        if isinstance(t, Tensor):
            return Level(t, *self.alpha_sigma(t.double()))
        alpha, sigma = self.alpha_sigma(torch.tensor(float(t), dtype=torch.float64, device="cpu"))
        return Level(float(t), alpha.item(), sigma.item(), self)

    def level_at(self, noise_level: float) -> Level:
        """Return the level whose sigma / alpha is ``noise_level``."""
        if noise_level < 0:
            raise BadValue(f"a noise level is at least 0, got {noise_level}")
        alpha = self.alpha_at(noise_level)
        return Level(self.time_at(noise_level), alpha, noise_level * alpha if alpha else 1.0, self)

    @property
    def clean(self) -> Level:
        """Return the level without noise, where every path of sampling ends."""
        return Level(self.t_clean, 1.0, 0.0, self)

    def agrees(self, other: Process) -> bool:
        """Return whether another process makes images as noisy at the same times, however often training visits them."""
        levels = [math.exp(x) for x in range(-4, 5)]
        return all(
            math.isclose(self.time_at(level), other.time_at(level), rel_tol=1e-9, abs_tol=1e-12)
            and math.isclose(self.alpha_at(level), other.alpha_at(level), rel_tol=1e-9)
            for level in levels
        )

    def sample_times(self, n: int, generator: torch.Generator | None = None, *, stratified: bool = False) -> Tensor:
        """Draw ``n`` training times, float64 (n,).

        Args:
            n: how many, >= 1.
            generator: source of randomness.
            stratified: one draw from each of ``n`` equal parts of the distribution, in random order; the same
                distribution for each item, less variance in the mean of a batch (VDM, arXiv 2107.00630, appendix I.1).
        """
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        if stratified:
            u = (torch.randperm(n, generator=generator) + u) / n
        return self.quantile(u)


@register("process", "cosine")
@dataclass(frozen=True)
class Cosine(Process):
    """Continuous variance-preserving process, alpha = cos(pi t / 2), sigma = sin(pi t / 2), t in [0, 1].

    Args:
        max_log_snr: times shown to a network keep log(alpha^2 / sigma^2) within plus and minus this, > 0.

    Source: Nichol & Dhariwal, arXiv 2102.09672, without its offset; clipping as in arXiv 2301.11093.
    """

    max_log_snr: float = 15.0

    def __post_init__(self) -> None:
        _positive("cosine", max_log_snr=self.max_log_snr)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.time_at(math.exp(-self.max_log_snr / 2))

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.time_at(math.exp(self.max_log_snr / 2))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = t * (math.pi / 2)
        return torch.cos(angle), torch.sin(angle)

    def time_at(self, noise_level: float) -> float:
        return math.atan(noise_level) * 2 / math.pi

    def alpha_at(self, noise_level: float) -> float:
        return 1 / math.hypot(1.0, noise_level)

    def quantile(self, u: Tensor) -> Tensor:
        return self.t_min + (self.t_max - self.t_min) * u

    def start_scale(self, level: Level) -> float:
        return 1.0


@register("process", "edm")
@dataclass(frozen=True)
class EDM(Process):
    """Variance-exploding process, alpha = 1, sigma = t, as in EDM.

    Args:
        p_mean, p_std: training noise levels are log-normal with these (natural logarithm).
        sigma_min, sigma_max: the range that sampling visits, 0 < sigma_min < sigma_max.

    Source: Karras et al., arXiv 2206.00364, table 1. The network is shown 250 ln(sigma), which is EDM's ln(sigma) / 4 on
    the scale of the other processes.
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        _positive("edm", p_std=self.p_std, sigma_min=self.sigma_min)
        if self.sigma_max <= self.sigma_min:
            raise BadValue(f"edm needs sigma_max > sigma_min, got {self.sigma_max} and {self.sigma_min}")

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.sigma_min

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.sigma_max

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t

    def time_at(self, noise_level: float) -> float:
        return noise_level

    def alpha_at(self, noise_level: float) -> float:
        return 1.0

    def quantile(self, u: Tensor) -> Tensor:
        # u = 0 would give sigma = 0
        return torch.exp(self.p_mean + self.p_std * torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9)))

    def clock(self, t: Number) -> Number:
        if isinstance(t, Tensor):
            return 250.0 * torch.log(t)
        return 250.0 * math.log(t)


@register("process", "flow")
@dataclass(frozen=True)
class Flow(Process):
    """Rectified flow, alpha = 1 - t, sigma = t, t in [0, 1].

    Args:
        logit_mean, logit_std: training times are the logistic of a normal with these; ``logit_std=none`` is uniform.

    Source: Liu et al., arXiv 2209.03003; logit-normal times: Esser et al., arXiv 2403.03206, section 3.1.
    """

    logit_mean: float = 0.0
    logit_std: float | None = 1.0
    t_min = 1e-3
    t_max = 1.0

    def __post_init__(self) -> None:
        if self.logit_std is not None:
            _positive("flow", logit_std=self.logit_std)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def time_at(self, noise_level: float) -> float:
        return 1.0 if math.isinf(noise_level) else noise_level / (1 + noise_level)

    def alpha_at(self, noise_level: float) -> float:
        return 1 / (1 + noise_level)

    def quantile(self, u: Tensor) -> Tensor:
        u = u.clamp(1e-9, 1 - 1e-9)
        if self.logit_std is None:
            return u
        return torch.sigmoid(self.logit_mean + self.logit_std * torch.special.ndtri(u))


def _positive(name: str, **values: float) -> None:
    for key, value in values.items():
        if not value > 0:
            raise BadValue(f"{name} needs {key} > 0, got {value}")
