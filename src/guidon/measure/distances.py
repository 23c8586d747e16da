"""How far apart two sets of images are: the Fréchet distance between Gaussians fitted to their features.

With Inception features this is the FID (Heusel et al. 2017, arXiv 1706.08500, eq. 6); here the features are those of the
judge that `features.train_classifier` makes, so the numbers stand beside each other only where judge, reference and
number of samples are the same (the estimate falls as the number of samples grows).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guidon.errors import DataError, NumericalError, ShapeMismatch

_ROWS = 2000  # vectors that are turned to float64 at once


@dataclass(frozen=True, eq=False)
class Picked:
    """Some of the vectors of an array, read where they are when they are asked for.

    Args:
        features: (N, D), in memory or on disk.
        numbers: (n,) of the vectors.
    """

    features: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.features[self.numbers[rows]]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.features.shape[1]


Features = Tensor | np.ndarray | Picked  # (N, D), in memory or on disk


def blocks(features: Features, rows: int | None = None) -> Iterator[Tensor]:
    """Yield features (N, D) in order, at most ``rows`` of them at a time, each block (B, D) a float64 copy."""
    rows = min(rows or _ROWS, _ROWS)
    for start in range(0, len(features), rows):
        yield doubles(features[start : start + rows])


def joined(parts: Iterable[Tensor], n: int) -> Tensor:
    """Return parts in one tensor of n rows, into which each is put as it comes.

    Many small tensors that outlive the large ones between which they were made would leave holes in memory that no large one fits in.
    """
    whole, start = torch.empty(0), 0
    for part in parts:
        if not start:
            whole = part.new_empty(n, *part.shape[1:])
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def doubles(features: Tensor | np.ndarray) -> Tensor:
    """Return features as a float64 tensor in memory."""
    return features.double() if isinstance(features, Tensor) else torch.from_numpy(np.array(features, np.float64))


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Number, mean and spread of a set of feature vectors, in float64; statistics of parts merge into that of the whole.

    Args:
        n: how many vectors.
        mean: (D,) their mean.
        scatter: (D, D) the sum of outer products of the centred vectors.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """Measure feature vectors (N, D); raises `NumericalError` where one holds a NaN or an infinity."""
        if features.ndim != 2 or len(features) == 0:
            raise ShapeMismatch(f"features must be (N, D) with at least one row, not {tuple(features.shape)}")
        if not bool(torch.isfinite(features).all()):
            bad = int((~torch.isfinite(features)).any(1).sum())
            raise NumericalError(
                f"{bad} of {len(features)} feature vectors hold NaN or infinity; look at the images they came from"
            )
        rows = features.double()
        mean = rows.mean(0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    @classmethod
    def of_parts(cls, parts: Iterable[Tensor]) -> FeatureStatistics:
        """Measure a stream of feature chunks (N_i, D) without holding more than one."""
        total: FeatureStatistics | None = None
        for part in parts:
            measured = cls.of(part)
            total = measured if total is None else total.merge(measured)
        if total is None:
            raise DataError("there are no features to measure; give at least one chunk")
        return total

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Return the statistics of both sets together (Chan, Golub & LeVeque 1979)."""
        _same_dimension(self, other)
        n = self.n + other.n
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + torch.outer(step, step) * (self.n * other.n / n)
        return FeatureStatistics(n, self.mean + step * (other.n / n), scatter)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (D, D); raises `DataError` for fewer than two vectors."""
        if self.n < 2:
            raise DataError("a covariance needs at least two feature vectors; measure more images")
        return self.scatter / (self.n - 1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Return ``|mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)``, at least 0, for covariances A and B.

    The last trace is the sum of the singular values of ``A^1/2 B^1/2``: no square root of an unsymmetric matrix is taken, so
    nothing turns complex and rank-deficient covariances (fewer images than dimensions) do no harm.

    Raises:
        ShapeMismatch: the feature dimensions differ.
        DataError: a side has fewer than two vectors.
    """
    _same_dimension(a, b)
    cross = torch.linalg.svdvals(root(a.covariance).T @ root(b.covariance)).sum()
    apart = (a.mean - b.mean).square().sum()
    return max(0.0, (apart + a.covariance.trace() + b.covariance.trace() - 2 * cross).item())


def root(covariance: Tensor) -> Tensor:
    """Return R (D, rank) with ``R R^T = covariance``; eigenvalues that are zero but for rounding are left out."""
    values, vectors = torch.linalg.eigh(covariance)
    real = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, real] * values[real].sqrt()


def _same_dimension(a: FeatureStatistics, b: FeatureStatistics) -> None:
    if a.mean.shape != b.mean.shape:
        raise ShapeMismatch(
            f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared; use one judge for both"
        )
