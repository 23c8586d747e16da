"""Precision, recall, density and coverage: what lies in balls around real and around generated images.

A ball around each image reaches to its k-th nearest neighbour in its own set. Precision and recall take balls with their
surface, as their paper does; density and coverage take them without, as their authors' code does, so that a set's density
against itself is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.measure.distances import joined
from guidon.measure.estimate import Mean, Statistic
from guidon.measure.manifold import around, inside, radii
from guidon.measure.metric import Metric
from guidon.measure.metrics.seen import both, kept
from guidon.measure.observe import Rows
from guidon.registry import register

_BALLS = 100  # real images whose bits are looked at at once


@dataclass(frozen=True)
class OfBalls(Metric):
    """A share, or a number, of images in balls.

    Args:
        k: the neighbour that a ball reaches to.
        most: real images at most, drawn with seed 0; figures compare only where there are as many.

    Raises:
        BadValue: k is no number of a neighbour, or there would be too few real images.
        DataError: a set has no k-th neighbour.
    """

    better: ClassVar[Literal["higher", "lower"] | None] = "higher"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    compares: ClassVar[bool] = True

    k: int = 3
    most: int = 10_000

    def __post_init__(self) -> None:
        if not 1 <= self.k < self.most:
            raise BadValue(f"k is the number of a neighbour, 1 to {self.most - 1} of {self.most} images, not {self.k}")

    def _sets(self, sample: Rows, reference: Rows | None, network: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of the sample (N, D) and of the real images (M, D), M at most ``most``."""
        here, there = both(sample, reference, aspect := f"{network}/features", self.k + 1)
        if len(there) <= self.most:
            return here, there
        assert reference is not None
        order = torch.randperm(len(there), generator=torch.Generator().manual_seed(0))[: self.most].sort().values
        return here, kept(reference, ("drawn", aspect, self.most), lambda: there[order.numpy()])

    def _reach(self, reference: Rows | None, network: str, real: np.ndarray) -> Tensor:
        """Return the squared radius (M,) of the ball around each real image."""
        assert reference is not None
        return kept(reference, ("radii", network, self.k, self.most), lambda: radii(real, self.k))

    def _among(
        self,
        sample: Rows,
        reference: Rows | None,
        network: str,
        count: Callable[[Tensor], Tensor],
        bounds: tuple[float, float],
        *,
        closed: bool = True,
    ) -> Statistic:
        """Return the mean of what is counted (rows,) of the real balls that generated images lie in, bool (rows, M)."""
        here, real = self._sets(sample, reference, network)
        found = inside(here, real, self._reach(reference, network, real), closed=closed)
        return _compared(Mean(joined((count(block) for block in found), len(here)), bounds), real)


@register("metric", "precision")
@dataclass(frozen=True)
class Precision(OfBalls):
    """The share of generated images that lie in a ball around any real image.

    Source: Kynkäänniemi et al., arXiv 1904.06991, eq. 1 and 2.
    """

    title: ClassVar[str] = "Precision"
    about: ClassVar[str] = "Share of generated images that lie among the real ones."
    source: ClassVar[str] = "Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 2"

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        return self._among(sample, reference, network, lambda balls: balls.any(1), (0, 1))


@register("metric", "recall")
@dataclass(frozen=True)
class Recall(OfBalls):
    """The share of real images that lie in a ball around any generated image.

    A generated image that counts no times is not there; the balls of the others keep the size that they have in the whole sample.

    Source: Kynkäänniemi et al., arXiv 1904.06991, eq. 1 and 2.
    """

    title: ClassVar[str] = "Recall"
    about: ClassVar[str] = "Share of real images that lie among the generated ones."
    source: ClassVar[str] = "Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 2"

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        here, real = self._sets(sample, reference, network)
        return _compared(Covered(inside(real, here, radii(here, self.k)), len(real), len(here)), real)


@register("metric", "density")
@dataclass(frozen=True)
class Density(OfBalls):
    """In how many balls around real images a generated one lies, over k: above 1 where it keeps to where they are dense.

    Source: Naeem et al., arXiv 2002.09797, eq. 3.
    """

    title: ClassVar[str] = "Density"
    about: ClassVar[str] = "Real images around each generated one, over what they have around themselves."
    source: ClassVar[str] = "Naeem et al. 2020, arXiv 2002.09797, eq. 3"

    k: int = 5

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        return self._among(
            sample, reference, network, lambda balls: balls.sum(1).double() / self.k, (0, math.inf), closed=False
        )


@register("metric", "coverage")
@dataclass(frozen=True)
class Coverage(OfBalls):
    """The share of real images in whose ball lies a generated one.

    A generated image that counts no times is not there.

    Source: Naeem et al., arXiv 2002.09797, eq. 4.
    """

    title: ClassVar[str] = "Coverage"
    about: ClassVar[str] = "Share of real images that have a generated one near them."
    source: ClassVar[str] = "Naeem et al. 2020, arXiv 2002.09797, eq. 4"

    k: int = 5

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        here, real = self._sets(sample, reference, network)
        found = around(real, here, self._reach(reference, network, real), closed=False)
        return _compared(Covered(found, len(real), len(here)), real)


class Covered(Statistic):
    """The share of real images that any generated image which counts is near to.

    Args:
        near: blocks (rows, N) of the real images: which generated ones are near. Kept as bits.
        m: real images, M.
        n: generated images, N.
    """

    bounds = (0.0, 1.0)

    def __init__(self, near: Iterable[Tensor], m: int, n: int) -> None:
        self.n = n
        self._near = joined((torch.from_numpy(np.packbits(block.numpy(), axis=1)) for block in near), m)  # (M, N / 8)

    def values(self, counts: Tensor) -> Tensor:
        there = torch.from_numpy(np.packbits((counts > 0).numpy(), axis=1))  # (R, N / 8)
        near = torch.zeros(len(counts), dtype=torch.int64)
        for block in self._near.split(_BALLS):
            near += torch.stack([(block & bits).any(1).sum() for bits in there])
        return near.double() / len(self._near)


def _compared(statistic: Statistic, real: np.ndarray) -> Statistic:
    statistic.n_reference = len(real)
    return statistic
