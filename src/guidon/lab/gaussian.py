"""Gaussians: one for each class and another for no class, which need not be the mixture of the classes.

Under such a model beliefs are linear, so guidance can be followed in closed form, axis by axis.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from guidon.errors import BadValue, DataError, ShapeMismatch
from guidon.lab.mixture import NULL_LABEL, rows
from guidon.noise.level import Number


@dataclass(frozen=True, eq=False)
class Gaussian:
    """One Gaussian, in the axes of its own covariance.

    Args:
        mean: float64 (*shape).
        variances: float64 (D,), >= 0, along the axes; D is the product of shape.
        axes: (D, D), orthogonal, a column for each axis; None: those of the flattened state.
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor | None = None

    @classmethod
    def of(cls, mean: Tensor, cov: Tensor) -> Self:
        """Make a Gaussian of its mean (*shape) and its covariance (D, D), or variances (*shape)."""
        if cov.shape == mean.shape:
            return cls(mean.double(), cov.double().flatten())
        if cov.shape != (mean.numel(), mean.numel()):
            raise ShapeMismatch(
                f"a covariance for the mean {tuple(mean.shape)} is ({mean.numel()}, {mean.numel()}), or variances of the "
                f"mean's shape; this is {tuple(cov.shape)}"
            )
        variances, axes = torch.linalg.eigh(cov.double())
        return cls(mean.double(), variances.clamp_min(0), axes)

    @classmethod
    def fit(cls, points: Tensor) -> Self:
        """Return the Gaussian with the mean and the unbiased covariance of ``points`` (N, *shape), N >= 2."""
        if len(points) < 2:
            raise DataError(
                f"a covariance needs at least two points, got {len(points)}; give more images of each class"
            )
        flat = points.double().flatten(1)
        away = flat - flat.mean(0)
        return cls.of(flat.mean(0).reshape(points.shape[1:]), away.T @ away / (len(flat) - 1))

    def turned(self, away: Tensor) -> Tensor:
        """Return vectors (B, D) in the coordinates of the axes."""
        return away if self.axes is None else away @ self.axes

    def back(self, coordinates: Tensor) -> Tensor:
        """Return the vectors (B, D) that have these coordinates along the axes."""
        return coordinates if self.axes is None else coordinates @ self.axes.T

    def believe(self, x: Tensor, alpha: Number, sigma: Number) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and E[eps | x] at states (B, *shape), float64."""
        a, s, mean = rows(alpha, x, 2), rows(sigma, x, 2), self.mean.flatten()
        pull = self.turned(x.double().flatten(1) - a * mean) / (a**2 * self.variances + s**2)
        x0, eps = mean + self.back(a * self.variances * pull), self.back(s * pull)
        return x0.reshape(x.shape), eps.reshape(x.shape)

    def log_density(self, x: Tensor, alpha: Number, sigma: Number) -> Tensor:
        """Return log p(x_t) at states (B, *shape), float64 (B,), differentiable in ``x``."""
        a, s = rows(alpha, x, 2), rows(sigma, x, 2)
        total = a**2 * self.variances + s**2
        away = self.turned(x.double().flatten(1) - a * self.mean.flatten())
        return -0.5 * ((2 * torch.pi * total).log() + away**2 / total).sum(1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` clean points, float64 (n, *shape)."""
        normal = torch.randn(n, len(self.variances), generator=generator, dtype=torch.float64).to(self.mean.device)
        return (self.mean.flatten() + self.back(normal * self.variances.sqrt())).reshape(n, *self.mean.shape)


class Gaussians:
    """A Gaussian for each class, and one for no class.

    Args:
        members: by label; -1 is no class.

    Raises:
        ShapeMismatch: their shapes differ.
    """

    def __init__(self, members: Mapping[int, Gaussian]) -> None:
        if len(shapes := {tuple(member.mean.shape) for member in members.values()}) != 1:
            raise ShapeMismatch(f"Gaussians are for states of one shape, these for {sorted(shapes)}")
        self._members = dict(members)
        self.shape = next(iter(members.values())).mean.shape

    @classmethod
    def fit(cls, images: Tensor, labels: Tensor, classes: Sequence[int] | None = None) -> Self:
        """Fit means and full covariances to images.

        An eigendecomposition for each class and one for all: seconds each at 3072 dimensions.

        Args:
            images: (N, *shape).
            labels: (N,), whole numbers from 0.
            classes: those to fit; left out: every label that occurs.

        Raises:
            DataError: fewer than two images of a class.
        """
        wanted = sorted(set(labels.tolist())) if classes is None else classes
        members = {label: Gaussian.fit(images[labels == label]) for label in wanted}
        return cls({**members, NULL_LABEL: Gaussian.fit(images)})

    def __getitem__(self, label: int) -> Gaussian:
        """Return the Gaussian of a label; raises `BadValue` with those that there are."""
        if label not in self._members:
            raise BadValue(f"there is no Gaussian for the label {label}; there are: {sorted(self._members)}")
        return self._members[label]

    def believe(self, x: Tensor, alpha: Number, sigma: Number, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and E[eps | x] at states (B, *shape), in the type of ``x``, given labels (B,); -1 is no class."""
        x0, eps = torch.empty_like(x), torch.empty_like(x)
        for label in labels.unique().tolist():
            mine = (labels == label).to(x.device)
            here = (
                value[mine] if isinstance(value, Tensor) and value.ndim else value for value in (alpha, sigma)
            )  # one for each state, or one for all
            clean, noise = self[int(label)].believe(x[mine], *here)
            x0[mine], eps[mine] = clean.to(x.dtype), noise.to(x.dtype)
        return x0, eps


@dataclass(frozen=True)
class Pair:
    """Two Gaussians on the line: that of class 0, and that of no class.

    Args:
        mean, std: of the class, std > 0.
        mean_all, std_all: of no class, std_all > 0.

    Raises:
        BadValue: a deviation is not positive.
    """

    mean: float
    std: float
    mean_all: float
    std_all: float

    def __post_init__(self) -> None:
        if not (self.std > 0 and self.std_all > 0):
            raise BadValue(f"a pair needs deviations > 0, got {self.std} and {self.std_all}")

    @property
    def ratio(self) -> float:
        """The deviation of the class as a part of that of no class."""
        return self.std / self.std_all

    @property
    def gap(self) -> float:
        """How far the mean of the class is from that of no class."""
        return self.mean - self.mean_all

    @functools.cached_property
    def gaussians(self) -> Gaussians:
        """The pair as `Gaussians` of states (B, 1)."""
        return Gaussians(
            {
                label: Gaussian(torch.tensor([mean], dtype=torch.float64), torch.tensor([std**2], dtype=torch.float64))
                for label, mean, std in ((0, self.mean, self.std), (NULL_LABEL, self.mean_all, self.std_all))
            }
        )

    def believe(self, x: Tensor, alpha: Number, sigma: Number, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and E[eps | x] at states (B, 1); see `Gaussians.believe`."""
        return self.gaussians.believe(x, alpha, sigma, labels)
