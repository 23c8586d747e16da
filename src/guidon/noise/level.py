"""A level: one point of a noise process, x_t = alpha x0 + sigma eps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guidon.errors import NotSupported

if TYPE_CHECKING:
    from guidon.noise.process import Process

Number = float | Tensor


@dataclass(frozen=True, slots=True)
class Level:
    """One point of a process.

    Args:
        t: the process's own time. A float on the host when a whole batch shares the level, else a tensor (B,).
        alpha: how much of the clean image is left.
        sigma: how much noise there is.
        process: the process that it is a point of; None for a level made by hand.
    """

    t: Number
    alpha: Number
    sigma: Number
    process: Process | None = field(default=None, compare=False, repr=False)

    @property
    def noise_level(self) -> Number:
        """Return sigma / alpha, infinite where nothing of the image is left."""
        if isinstance(self.alpha, Tensor):
            return self.sigma / self.alpha
        return self.sigma / self.alpha if self.alpha != 0 else math.inf

    def with_noise_level(self, noise_level: float) -> Level:
        """Return the level of the same process at another noise level; raises `NotSupported` where nobody said which process."""
        if self.process is None:
            raise NotSupported(
                "a solver that stops between levels needs to know their process; make them with process.level"
            )
        return self.process.level_at(noise_level)

    def like(self, x: Tensor) -> Level:
        """Return the level with tensor fields shaped and typed to multiply with ``x`` (B, ...); floats stay floats."""
        if not isinstance(self.alpha, Tensor):
            return self
        t, alpha, sigma = (
            torch.as_tensor(v).to(x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1))
            for v in (self.t, self.alpha, self.sigma)
        )
        return Level(t, alpha, sigma)

    def take(self, index: slice) -> Level:
        """Return the level of some of the batch's rows."""
        if not isinstance(self.alpha, Tensor):
            return self
        return Level(self.t[index], self.alpha[index], self.sigma[index])  # type: ignore[index]


def ddpm_time(noise_level: float) -> float:
    """Return the time in [0, 1] at which DDPM's process has a noise level sigma / alpha: one clock for every process.

    Its variance grows linearly from 0.1 to 20 a unit of time, so log(1 + (sigma / alpha)^2) = 0.1 t + 9.95 t^2.
    """
    if math.isinf(noise_level):
        return 1.0
    total = math.log1p(noise_level**2)
    return min((math.sqrt(0.01 + 4 * 9.95 * total) - 0.1) / (2 * 9.95), 1.0)
