"""The way back along a chain of levels: the posterior q(x_s | x_t, x0) of a step, and the variances that a model's step may have.

Everything is told for levels with floats, a step for a whole batch, or with tensors (B,), a step for each image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from guidon.errors import BadValue, NotSupported
from guidon.noise.level import Level, Number
from guidon.noise.tables import VPTable

Variance = Literal["small", "large", "learned"]


def posterior_mean(here: Level, there: Level) -> tuple[Number, Number]:
    """Return the weights of x0 and of x_t in the mean of q(x_s | x_t, x0), for the step from ``here`` to ``there``."""
    _, forward = posterior_variances(here, there)
    total = here.sigma**2
    return there.alpha * forward / total, here.alpha / there.alpha * there.sigma**2 / total


def posterior_variances(here: Level, there: Level) -> tuple[Number, Number]:
    """Return the variance of q(x_s | x_t, x0) and that of the forward step q(x_t | x_s)."""
    total, after = here.sigma**2, there.sigma**2
    forward = total - (here.alpha / there.alpha) ** 2 * after
    return forward * after / total, forward


def log_variance(fraction: Tensor, small: Number, large: Number) -> Tensor:
    """Return the log-variance at a learned fraction (B, ...) of the way from log small to log large.

    Source: Nichol & Dhariwal, arXiv 2102.09672, eq. 15.
    """
    low, high = wide(_log(small), fraction), wide(_log(large), fraction)
    return low + fraction * (high - low)


def wide(value: Number, x: Tensor) -> Number:
    """Return a number for each image (B,) shaped and typed to go with ``x`` (B, ...); floats stay floats."""
    return value.to(x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1)) if isinstance(value, Tensor) else value


def _log(value: Number) -> Number:
    return value.log() if isinstance(value, Tensor) else math.log(value)


@dataclass(frozen=True)
class Steps:
    """Steps of a chain of levels, with the variances between which a model's own step lies.

    Args:
        here, there: where each begins and ends, float64 (N,) in every field.
        small: variance of q(x_s | x_t, x0), float64 (N,). In the last step, to the clean image, it would be 0. Down the indices of
            a table the variance of the step before stands for it; elsewhere, and in a single step, that of the forward step.
        large: variance of the forward step q(x_t | x_s), float64 (N,).

    Source: arXiv 2102.09672, eq. 15; the last step of a table as guided-diffusion's ``posterior_log_variance_clipped``.
    """

    here: Level
    there: Level
    small: Tensor
    large: Tensor

    @classmethod
    def of(cls, levels: Sequence[Level]) -> Self:
        """Return all N steps of a chain of N + 1 levels, the noisiest first, the clean image last.

        Raises:
            BadValue: the chain has no step, or ends in noise.
        """
        if len(levels) < 2 or levels[-1].sigma != 0:
            raise BadValue("a bound needs levels from the noisiest to the clean image; take a grid that ends there")
        variances = [posterior_variances(here, there) for here, there in itertools.pairwise(levels)]
        small, large = torch.tensor(variances, dtype=torch.float64).T
        of_table = all(isinstance(level.process, VPTable) and float(level.t).is_integer() for level in levels)
        before = small[-2:-1] if of_table and len(small) > 1 else large[-1:]
        return cls(_stacked(levels[:-1]), _stacked(levels[1:]), torch.cat([small[:-1], before]), large)

    @property
    def last(self) -> Tensor:
        """Which steps end at the clean image, (N,) bool."""
        return torch.as_tensor(self.there.sigma) == 0

    def take(self, index: slice | Tensor) -> Steps:
        """Return some of the steps, in the order of ``index``."""
        return Steps(_rows(self.here, index), _rows(self.there, index), self.small[index], self.large[index])

    def starting_at(self, t: Tensor) -> Steps:
        """Return the steps that begin at times ``t`` (B,); raises `BadValue` where none does."""
        found = t.to(self.small.device)[:, None] == torch.as_tensor(self.here.t)
        if not bool(found.any(1).all()):
            raise BadValue("a time lies between the steps of the chain; draw times of the chain itself")
        return self.take(found.int().argmax(1))

    def log_variance(self, variance: Variance, fraction: Tensor | None, x: Tensor) -> Tensor:
        """Return the log-variance of a model's steps, to go with ``x`` (B, ...).

        Args:
            variance: "small", "large" (in the last step small too), or "learned".
            fraction: what the network learned (B, ...), see `Prediction`.
            x: gives shape, type and device.

        Raises:
            NotSupported: the variance is learned and the network learned none.
        """
        if variance == "learned":
            if fraction is None:
                raise NotSupported("this network learned no variance; take variance small or large")
            return log_variance(fraction, self.small, self.large)
        fixed = self.small if variance == "small" else torch.where(self.last, self.small, self.large)
        return torch.as_tensor(wide(fixed.log(), x))


def _stacked(levels: Sequence[Level]) -> Level:
    """Return levels with floats as one level with tensors (N,)."""
    rows = torch.tensor([(float(at.t), float(at.alpha), float(at.sigma)) for at in levels], dtype=torch.float64)
    return Level(*rows.T)


def _rows(level: Level, index: slice | Tensor) -> Level:
    t, alpha, sigma = (torch.as_tensor(value)[index] for value in (level.t, level.alpha, level.sigma))
    return Level(t, alpha, sigma)
