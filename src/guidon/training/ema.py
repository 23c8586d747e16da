"""Averages of the weights over the course of training: exponential, by half-life, and power functions.

An average is used in place of the raw weights for sampling. Power-function averages of two lengths, stored now and then, are
enough to make an average of any other length after training (Karras et al., arXiv 2312.02696, section 3).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from guidon.errors import BadValue
from guidon.registry import register

Tensors = tuple[Tensor, ...] | list[Tensor]
Averaged = TypeVar("Averaged", bound=nn.Module)


class Profile(ABC):
    """How much the past weighs in an average."""

    @abstractmethod
    def keep(self, before: int, batch: int) -> float:
        """Return how much of the old average stays at a step.

        Args:
            before: images seen before the step.
            batch: images of the step.
        """


@register("average", "decay")
@dataclass(frozen=True)
class Decay(Profile):
    """Exponential average with a fixed decay per step.

    Args:
        decay: part of the old average that stays, 0 <= decay < 1.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise BadValue(f"decay is at least 0 and below 1, got {self.decay}")

    def keep(self, before: int, batch: int) -> float:
        return self.decay


@register("average", "half-life")
@dataclass(frozen=True)
class HalfLife(Profile):
    """Exponential average that forgets half of itself in so many images, independent of the batch size.

    Args:
        images: the half-life, > 0.
        ramp: the half-life is at most this part of the images seen, so that the start is forgotten soon; none: no such limit.

    Source: Karras et al., arXiv 2206.00364, appendix F.2 and the code released with it.
    """

    images: float = 500_000
    ramp: float | None = 0.05

    def __post_init__(self) -> None:
        if not self.images > 0 or (self.ramp is not None and not self.ramp > 0):
            raise BadValue(f"half-life needs images > 0 and ramp > 0 (or none), got {self.images} and {self.ramp}")

    def keep(self, before: int, batch: int) -> float:
        life = self.images if self.ramp is None else min(self.images, self.ramp * before)
        return 0.5 ** (batch / life) if life else 0.0


@register("average", "power")
@dataclass(frozen=True)
class Power(Profile):
    """Average whose weight grows as a power of time, so that its length is a fixed part of the training so far.

    Args:
        length: standard deviation of the average's weight over training time, relative to that time; 0 < length < 0.288.

    Source: arXiv 2312.02696, eq. 127.
    """

    length: float = 0.1

    def __post_init__(self) -> None:
        gamma_of_length(self.length)

    def keep(self, before: int, batch: int) -> float:
        return (before / (before + batch)) ** (gamma_of_length(self.length) + 1)


class Average(Generic[Averaged]):
    """The average of a model's weights under a profile.

    Args:
        model: whose weights; it is copied.
        profile: how much the past weighs.

    Attributes:
        model: a model with the averaged weights, ready to sample.
    """

    def __init__(self, model: Averaged, profile: Profile) -> None:
        self.profile = profile
        self._keep = 0.0
        self._averaged = AveragedModel(model, multi_avg_fn=self._blend)
        self._averaged.eval().requires_grad_(False)

    @property
    def model(self) -> Averaged:
        """The model with the averaged weights."""
        return cast(Averaged, self._averaged.module)

    def update(self, model: Averaged, before: int, batch: int) -> None:
        """Take in the weights after a step; ``before`` and ``batch`` as in `Profile.keep`."""
        self._keep = self.profile.keep(before, batch)
        self._averaged.update_parameters(model)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights and the number of updates."""
        return self._averaged.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave."""
        self._averaged.load_state_dict(state)

    @torch.no_grad()
    def _blend(self, averages: Tensors, weights: Tensors, _: Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - self._keep)


def length_of_gamma(gamma: float) -> float:
    """Return the relative length (sigma_rel) of a power profile t^gamma. Source: arXiv 2312.02696, eq. 123."""
    if gamma < 0:
        raise BadValue(f"gamma is at least 0, got {gamma}")
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of_length(length: float) -> float:
    """Return the exponent whose power profile has this relative length; the inverse of `length_of_gamma` (algorithm 2)."""
    longest = length_of_gamma(0.0)
    if not 0 < length <= longest * (1 + 1e-9):  # the end itself may be rounded up
        raise BadValue(f"the relative length of a power average lies between 0 and {longest:.4f}, got {length}")
    inverse = length**-2  # (gamma + 2)^2 (gamma + 3) = inverse (gamma + 1)
    return max(float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()), 0.0)


@dataclass(frozen=True)
class Snapshot:
    """A power average as it was at some moment.

    Args:
        images: images seen until then, > 0.
        length: relative length of the profile.
        tensors: the averaged weights; read only when they are needed, so it may load them from disk.
    """

    images: int
    length: float
    tensors: Mapping[str, Tensor]


def reconstruct(snapshots: Sequence[Snapshot], length: float, images: int | None = None) -> dict[str, Tensor]:
    """Make the power average of another length out of stored ones.

    Args:
        snapshots: at least one; two lengths at several moments reconstruct well.
        length: the relative length that is wanted, 0 < length < 0.288.
        images: the moment that is wanted, in images seen; left out: that of the last snapshot.

    Raises:
        BadValue: there are no snapshots, or the moment lies after all of them.

    Source: arXiv 2312.02696, section 3.2 and algorithm 3.
    """
    if not snapshots:
        raise BadValue("there are no snapshots to reconstruct from; train with train.power_averages and snapshot_every")
    last = max(snapshot.images for snapshot in snapshots)
    end = last if images is None else images
    if not 0 < end <= last:
        raise BadValue(f"snapshots reach up to {last} images; cannot reconstruct at {end}")
    found: dict[str, Tensor] = {}
    for share, snapshot in zip(shares(snapshots, length, end), snapshots, strict=True):
        for name, value in snapshot.tensors.items():
            if not value.is_floating_point():
                found[name] = value
            elif name in found:
                found[name].add_(value, alpha=float(share))
            else:
                found[name] = value.double() * float(share)
    kinds = snapshots[-1].tensors
    return {name: value.to(kinds[name].dtype) for name, value in found.items()}


def shares(snapshots: Sequence[Snapshot], length: float, images: int) -> NDArray[np.float64]:
    """Return how much of each snapshot goes into the average that is wanted: the least-squares fit of its profile, with sum 1 (N,)."""
    times = np.array([snapshot.images for snapshot in snapshots], dtype=np.float64)
    gammas = np.array([gamma_of_length(snapshot.length) for snapshot in snapshots])
    products = _inner(times[:, None], gammas[:, None], times[None], gammas[None])
    wanted = _inner(times, gammas, np.array(float(images)), np.array(gamma_of_length(length)))
    found = np.linalg.lstsq(products, wanted, rcond=None)[0]
    return found / found.sum()


def _inner(t: NDArray, gamma: NDArray, s: NDArray, delta: NDArray) -> NDArray[np.float64]:
    """Return the integral of (gamma + 1) u^gamma / t^(gamma + 1) on [0, t] times the same of delta and s (eq. 151)."""
    ratio, exponent = np.minimum(t, s) / np.maximum(t, s), np.where(t < s, delta, gamma)
    return (gamma + 1) * (delta + 1) * ratio**exponent / ((gamma + delta + 1) * np.maximum(t, s))
