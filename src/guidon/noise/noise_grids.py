"""Grids of noise levels sigma / alpha: they fit every process."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from guidon.errors import BadValue
from guidon.noise.grid import NOISIEST, Grid, at_least_one, down
from guidon.noise.level import Level
from guidon.noise.process import Process
from guidon.noise.sde import VP
from guidon.registry import register


@register("grid", "karras")
@dataclass(frozen=True)
class Karras(Grid):
    """Noise levels evenly spaced in their rho-th root. Source: arXiv 2206.00364, eq. 5.

    Args:
        rho: 7 in the paper; larger means more levels near the image.
        sigma_min, sigma_max: range of the noise level; left out: that of the process.
    """

    rho: float = 7.0
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise BadValue(f"karras needs rho > 0, got {self.rho}")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        low, high = _range(process, self.sigma_min, self.sigma_max, "karras")
        ramp = _ramp(steps)
        roots = high ** (1 / self.rho) + ramp * (low ** (1 / self.rho) - high ** (1 / self.rho))
        return down(process, roots**self.rho)


@register("grid", "log-snr")
@dataclass(frozen=True)
class LogSNR(Grid):
    """Noise levels evenly spaced in their logarithm. Source: DPM-Solver, arXiv 2206.00927, section 3.3.

    Args:
        sigma_min, sigma_max: range of the noise level; left out: that of the process.
    """

    sigma_min: float | None = None
    sigma_max: float | None = None

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        low, high = _range(process, self.sigma_min, self.sigma_max, "log-snr")
        logs = math.log(high) + _ramp(steps) * (math.log(low) - math.log(high))
        return down(process, np.exp(logs))


@register("grid", "exponential")
@dataclass(frozen=True)
class Exponential(LogSNR):
    """Noise levels that fall by the same factor each step; log-snr by another name.

    Args:
        sigma_min, sigma_max: range of the noise level; left out: that of the process.

    Source: k-diffusion's ``get_sigmas_exponential``.
    """


@register("grid", "polyexponential")
@dataclass(frozen=True)
class Polyexponential(Grid):
    """Noise levels whose logarithm falls as a power of what is left of the run.

    Args:
        rho: the power, > 0; 1 is exponential, larger means more levels near the image.
        sigma_min, sigma_max: range of the noise level; left out: that of the process.

    Source: k-diffusion's ``get_sigmas_polyexponential``.
    """

    rho: float = 1.0
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise BadValue(f"polyexponential needs rho > 0, got {self.rho}")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        low, high = _range(process, self.sigma_min, self.sigma_max, "polyexponential")
        left = (1 - _ramp(steps)) ** self.rho
        return down(process, np.exp(math.log(low) + left * (math.log(high) - math.log(low))))


@register("grid", "vp")
@dataclass(frozen=True)
class VPGrid(Grid):
    """The noise levels of the continuous vp process at evenly spaced times, on any process.

    The range is its own: from 152 down to 0.01 with the values left out.

    Args:
        beta_d, beta_min: as in the process vp.
        eps_s: the last time before the clean image, in (0, 1).

    Source: Song et al., arXiv 2011.13456, appendix C; k-diffusion's ``get_sigmas_vp``.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    eps_s: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.eps_s < 1:
            raise BadValue(f"vp needs 0 < eps_s < 1, got {self.eps_s}")
        VP(self.beta_min, self.beta_d, self.eps_s)  # refuses what is no process

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        times = 1 + _ramp(steps) * (self.eps_s - 1)
        own = VP(self.beta_min, self.beta_d)
        return down(process, (float(own.noise_level(float(t))) for t in times))


@register("grid", "beta")
@dataclass(frozen=True)
class Beta(Grid):
    """Noise levels at even quantiles of a beta distribution over their range: close together at both ends.

    Args:
        alpha, beta: the distribution's, > 0; smaller means closer together at the least and at the noisiest level.
        sigma_min, sigma_max: range of the noise level; left out: that of the process.

    Source: Lee et al., arXiv 2407.12173; diffusers' ``use_beta_sigmas``.
    """

    alpha: float = 0.6
    beta: float = 0.6
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and self.beta > 0):
            raise BadValue(f"beta needs alpha > 0 and beta > 0, got {self.alpha} and {self.beta}")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        low, high = _range(process, self.sigma_min, self.sigma_max, "beta")
        return down(process, low + betaincinv(self.alpha, self.beta, 1 - _ramp(steps)) * (high - low))


@register("grid", "listed")
@dataclass(frozen=True)
class Listed(Grid):
    """Noise levels given by hand, and the clean image after them; the number of steps is the list's own.

    Args:
        noise_levels: sigma / alpha, falling, > 0, e.g. ``[80, 10, 1]``; the first may be ``inf`` where the process has
            a level without any signal.
    """

    noise_levels: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_levels", tuple(self.noise_levels))
        falling = all(a > b for a, b in zip(self.noise_levels, self.noise_levels[1:], strict=False))
        if not self.noise_levels or not falling or not self.noise_levels[-1] > 0:
            raise BadValue(
                f"listed needs noise levels > 0, each less than the one before, got {list(self.noise_levels)}"
            )

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        at_least_one(steps)
        if math.isinf(self.noise_levels[0]) and math.isfinite(float(process.noise_level(process.t_max))):
            raise BadValue("this process keeps some signal at every time; begin the list with a finite noise level")
        return down(process, self.noise_levels)


def _ramp(steps: int) -> np.ndarray:
    at_least_one(steps)
    return np.linspace(0, 1, steps)


def _range(process: Process, low: float | None, high: float | None, grid: str) -> tuple[float, float]:
    lowest = float(process.noise_level(process.t_min)) if low is None else low
    highest = float(process.noise_level(process.t_max)) if high is None else high
    if high is None and math.isinf(highest):
        highest = NOISIEST
    if not 0 < lowest < highest < math.inf:
        raise BadValue(f"{grid} needs 0 < sigma_min < sigma_max < inf, got {lowest} and {highest}")
    return lowest, highest
