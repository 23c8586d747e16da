"""What a network believes at (x, t), in every parameterisation.

A network gives a raw tensor; what the tensor means is its *output*: eps, x0, v, velocity, or the EDM-preconditioned
residual. All of them turn into one `Prediction` with the same views, so that guidance and solvers never ask what the
network was trained on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.errors import BadValue, NotSupported
from guidon.noise.level import Level, Number
from guidon.registry import register

SPACES = ("x0", "eps", "v", "velocity", "score")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network believes at ``x`` of a level: the clean image and the noise, with x = alpha x0 + sigma eps.

    Args:
        x: the state (B, ...).
        level: where on the process; floats, or tensors (B,).
        x0: the clean image (B, ...).
        eps: the noise (B, ...).
        variance_fraction: where the network learned the variance of the reverse step, its place in [0, 1] between the
            smallest and the largest log-variance that the step may have; the solver, which knows the step, makes the
            log-variance of it (arXiv 2102.09672, eq. 15).
        inner: where the network has a head halfway, what that one believes.
    """

    x: Tensor
    level: Level
    x0: Tensor
    eps: Tensor
    variance_fraction: Tensor | None = None
    inner: Prediction | None = None

    @property
    def v(self) -> Tensor:
        """Return alpha eps - sigma x0 (arXiv 2202.00512)."""
        at = self.level.like(self.x)
        return at.alpha * self.eps - at.sigma * self.x0

    @property
    def velocity(self) -> Tensor:
        """Return eps - x0, the velocity of rectified flow."""
        return self.eps - self.x0

    @property
    def score(self) -> Tensor:
        """Return the gradient of log p_t at x, -eps / sigma."""
        return -self.eps / self.level.like(self.x).sigma

    def take(self, rows: slice) -> Prediction:
        """Return the prediction for some rows of the batch."""
        fraction = None if self.variance_fraction is None else self.variance_fraction[rows]
        inner = None if self.inner is None else self.inner.take(rows)
        return Prediction(self.x[rows], self.level.take(rows), self.x0[rows], self.eps[rows], fraction, inner)

    def moved(self, space: str, change: Tensor) -> Prediction:
        """Return the prediction after a change of one view, the other views following, at the same ``x``.

        Args:
            space: the view that changes: x0, eps, v, velocity or score.
            change: what is added to it (B, ...).
        """
        alpha, sigma = (at := self.level.like(self.x)).alpha, at.sigma
        if space in ("eps", "score"):
            _nonzero(self.level.alpha, "eps", "the clean image where no signal is left", "let the rule act on x0 or v")
        match space:  # d x0 / d view; then alpha d x0 + sigma d eps = 0, for x stays
            case "x0":
                x0, eps = change, change * (-alpha / sigma)
            case "eps":
                x0, eps = change * (-sigma / alpha), change
            case "v":
                norm = alpha**2 + sigma**2
                x0, eps = change * (-sigma / norm), change * (alpha / norm)
            case "velocity":
                x0, eps = change * (-sigma / (alpha + sigma)), change * (alpha / (alpha + sigma))
            case "score":
                x0, eps = change * (sigma**2 / alpha), change * -sigma
            case _:
                raise BadValue(f"there is no view {space!r}; there are: {', '.join(SPACES)}")
        return Prediction(self.x, self.level, self.x0 + x0, self.eps + eps, self.variance_fraction)

    @staticmethod
    def from_score(x: Tensor, score: Tensor, level: Level) -> Prediction:
        """Return what one believes whose score, the gradient of a log density at ``x``, is this (Tweedie's formula)."""
        at = level.like(x)
        return Prediction.from_eps(x, score * -at.sigma, level)

    @staticmethod
    def from_eps(x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        """Read ``raw`` as the noise."""
        at = level.like(x)
        _nonzero(level.alpha, "eps", "the clean image where no signal is left", "start sampling below the last time")
        return Prediction(x, level, torch.sub(x, raw * at.sigma) / at.alpha, raw, fraction)

    @staticmethod
    def from_x0(x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        """Read ``raw`` as the clean image."""
        at = level.like(x)
        _nonzero(level.sigma, "x0", "the noise where there is none", "end sampling above the clean image")
        return Prediction(x, level, raw, torch.sub(x, raw * at.alpha) / at.sigma, fraction)

    @staticmethod
    def from_v(x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        """Read ``raw`` as v = alpha eps - sigma x0 (arXiv 2202.00512)."""
        at = level.like(x)
        norm = at.alpha**2 + at.sigma**2
        x0 = x * (at.alpha / norm) - raw * (at.sigma / norm)
        return Prediction(x, level, x0, x * (at.sigma / norm) + raw * (at.alpha / norm), fraction)

    @staticmethod
    def from_velocity(x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        """Read ``raw`` as eps - x0, the velocity of rectified flow (arXiv 2209.03003)."""
        at = level.like(x)
        total = at.alpha + at.sigma
        return Prediction(x, level, (x - raw * at.sigma) / total, (x + raw * at.alpha) / total, fraction)


class Output(ABC):
    """What the raw tensor of a network means."""

    def input_scale(self, level: Level) -> Number:
        """Return what the state is multiplied with before it enters the network."""
        return 1.0

    @abstractmethod
    def read(self, x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        """Turn a raw output (B, ...) at state ``x`` into a `Prediction`."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """Return the raw tensor that a perfect network would give for this image and noise."""

    @abstractmethod
    def x0_gain(self, level: Level) -> Number:
        """Return d x0 / d raw: how an error of the raw tensor shows in the clean image."""


@register("output", "eps")
@dataclass(frozen=True)
class EpsOutput(Output):
    """The network gives the noise."""

    def read(self, x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        return Prediction.from_eps(x, raw, level, fraction)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps

    def x0_gain(self, level: Level) -> Number:
        return -level.sigma / level.alpha


@register("output", "x0")
@dataclass(frozen=True)
class X0Output(Output):
    """The network gives the clean image."""

    def read(self, x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        return Prediction.from_x0(x, raw, level, fraction)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return x0

    def x0_gain(self, level: Level) -> Number:
        return level.alpha * 0 + 1.0


@register("output", "v")
@dataclass(frozen=True)
class VOutput(Output):
    """The network gives v = alpha eps - sigma x0."""

    def read(self, x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        return Prediction.from_v(x, raw, level, fraction)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        at = level.like(x0)
        return at.alpha * eps - at.sigma * x0

    def x0_gain(self, level: Level) -> Number:
        return -level.sigma / (level.alpha**2 + level.sigma**2)


@register("output", "velocity")
@dataclass(frozen=True)
class VelocityOutput(Output):
    """The network gives eps - x0."""

    def read(self, x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        return Prediction.from_velocity(x, raw, level, fraction)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps - x0

    def x0_gain(self, level: Level) -> Number:
        return -level.sigma / (level.alpha + level.sigma)


@register("output", "edm")
@dataclass(frozen=True)
class EDMOutput(Output):
    """The network gives the residual of EDM: x0 = c_skip z + c_out raw, with z = x / alpha.

    Args:
        sigma_data: standard deviation of the images, > 0.

    Source: Karras et al., arXiv 2206.00364, table 1. Written in z so that it fits every process with signal left.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise BadValue(f"edm needs sigma_data > 0, got {self.sigma_data}")

    def input_scale(self, level: Level) -> Number:
        return 1 / (level.alpha * (level.noise_level**2 + self.sigma_data**2) ** 0.5)

    def _skip_out(self, level: Level) -> tuple[Number, Number]:
        tau, data = level.noise_level, self.sigma_data
        total = tau**2 + data**2
        return data**2 / total, tau * data / total**0.5

    def read(self, x: Tensor, raw: Tensor, level: Level, fraction: Tensor | None = None) -> Prediction:
        at = level.like(x)
        _nonzero(level.alpha, "edm", "the clean image where no signal is left", "use v or velocity for such a process")
        skip, out = self._skip_out(at)
        return Prediction.from_x0(x, x * (skip / at.alpha) + raw * out, level, fraction)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        at = level.like(x0)
        skip, out = self._skip_out(at)
        return (x0 - skip * (x0 + at.noise_level * eps)) / out

    def x0_gain(self, level: Level) -> Number:
        return self._skip_out(level)[1]


def _nonzero(value: Number, output: str, what: str, remedy: str) -> None:
    if bool((value == 0).any()) if isinstance(value, Tensor) else value == 0:
        raise NotSupported(f"a network with output {output!r} cannot tell {what}; {remedy}")
