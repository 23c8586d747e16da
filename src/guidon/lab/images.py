"""Gaussians fitted to classes of images, and where linear runs among them end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.errors import BadValue, DataError
from guidon.guidance import Rule
from guidon.lab.gaussian import Gaussian, Gaussians
from guidon.lab.sampled import sample
from guidon.noise import Level
from guidon.solvers import Heun

START, END = 80.0, 0.02  # noise levels of a run
SEEN = 9  # images of a class, in three rows


@dataclass(frozen=True, eq=False)
class ImageWorld:
    """Gaussians fitted to images, in coordinates of the leading principal axes of all of them.

    Args:
        gaussians: by label.
        names: of all classes, by label.
        shown: labels of those to look at.
        centre: (C, H, W), the mean image.
        axes: (pixels, coordinates), a column for each axis.
        kept: the share of the variance along the axes.
        count: of images.
    """

    gaussians: Gaussians
    names: Sequence[str]
    shown: Sequence[int]
    centre: Tensor
    axes: Tensor
    kept: float
    count: int

    @classmethod
    def read(cls, source: str, limit: int, axes: int, classes: Sequence[str]) -> ImageWorld:
        """Read images and fit.

        Raises:
            DataError: the images have no classes.
            UnknownLabel: a class is not among theirs.
            BadValue: a class is given twice.
        """
        from guidon.training.columns import class_ids
        from guidon.training.data import DataConfig, open_data

        data = open_data(DataConfig(source=source))
        if data.classes is None or data.size is None:
            raise DataError(f"components compares classes, and the images of {source!r} have none; give others")
        batch = next(iter(data.batches(min(limit, data.size))))
        assert batch.labels is not None
        shown = class_ids(classes, data.classes) if classes else _few(len(data.classes))
        if len(set(shown)) < len(shown):
            raise BadValue(f"components shows every class once, got {list(classes)}; leave the repetition out")
        whole = Gaussian.fit(batch.images)
        assert whole.axes is not None
        basis = whole.axes[:, -axes:]
        coordinates = (batch.images.double() - whole.mean).flatten(1) @ basis
        kept = float(whole.variances[-axes:].sum() / whole.variances.sum())
        gaussians = Gaussians.fit(coordinates, batch.labels, shown)
        return cls(gaussians, data.classes, shown, whole.mean, basis, kept, len(batch))

    def images(self, coordinates: Tensor) -> Tensor:
        """Return the images (N, C, H, W) that have coordinates (N, D)."""
        return self.centre + (coordinates @ self.axes.T).reshape(-1, *self.centre.shape)

    def directions(self, vectors: Tensor) -> Tensor:
        """Return directions (N, D) as images (N, C, H, W) in [-1, 1]."""
        images = (vectors @ self.axes.T).reshape(-1, *self.centre.shape)
        return images / images.abs().amax((1, 2, 3), keepdim=True)


@dataclass(frozen=True, eq=False)
class Ends:
    """Where a linear run ends.

    Args:
        images: (SEEN, D) from the noise of seeds.
        mean: (D,) of all that arrives.
        factor: (D, D); the state at the end is mean + noise @ factor, for standard normal noise.
    """

    images: Tensor
    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, gaussians: Gaussians, label: int, rule: Rule, levels: Sequence[Level]) -> Ends:
        """Run a rule that is linear in the beliefs from seeds, from nothing and from each unit vector, all at once."""
        size = gaussians.shape[0]
        noise = torch.stack([torch.randn(size, generator=_seeded(seed), dtype=torch.float64) for seed in range(SEEN)])
        start = torch.cat([noise, torch.zeros(1, size), torch.eye(size, dtype=torch.float64)]) * START
        ends = sample(gaussians, rule, Heun(), levels, [label] * len(start), range(len(start)), start=start)
        return cls(ends[:SEEN], ends[SEEN], ends[SEEN + 1 :] - ends[SEEN])

    def std(self, vectors: Tensor) -> Tensor:
        """Return the deviation (N,) of what arrives along unit vectors (N, D)."""
        return (vectors @ self.factor.T).norm(dim=1)


def _few(classes: int) -> list[int]:
    """Return three classes, from the first to the last, or all where there are no more."""
    return sorted({round(i * (classes - 1) / 2) for i in range(3)})


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
