"""FID: how far the features of two sets of images are apart, as Gaussians."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from guidon.measure.distances import FeatureStatistics, blocks, root
from guidon.measure.estimate import Statistic, affordable
from guidon.measure.metric import Metric
from guidon.measure.metrics.seen import both, kept
from guidon.measure.observe import Rows
from guidon.registry import register

_ENTRIES = 32_000_000  # numbers of covariances held at once: 256 MB in float64


@register("metric", "fid")
@dataclass(frozen=True)
class Frechet(Metric):
    """The Fréchet distance between Gaussians fitted to the features of sample and reference.

    ``|m - m_r|^2 + tr(A + B - 2 (A B)^1/2)``, with unbiased covariances A and B. It falls as the number of images grows, so only
    figures of as many images compare. The interval of large features has fewer resamples than were asked for; of fewer than 100 it is
    that of a normal distribution (see `estimate`).

    Source: Heusel et al., arXiv 1706.08500, eq. 6; Dowson & Landau, J. Multivariate Analysis 12 (1982).
    """

    title: ClassVar[str] = "FID"
    better: ClassVar[Literal["higher", "lower"] | None] = "lower"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    compares: ClassVar[bool] = True
    about: ClassVar[str] = "Fréchet distance between Gaussians fitted to the features of generated and real images."
    source: ClassVar[str] = "Heusel et al. 2017, arXiv 1706.08500, eq. 6"

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        here, there = both(sample, reference, aspect := f"{network}/features")
        assert reference is not None
        return FrechetStatistic(here, kept(reference, ("gaussian", aspect), lambda: Gaussian.of(there)))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """What the distance needs of a reference.

    Args:
        n: images behind it.
        mean: (D,).
        trace: of the covariance.
        root: (D, rank), whose product with its transpose is the covariance.
    """

    n: int
    mean: Tensor
    trace: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """Fit features (N, D), read in blocks."""
        found = FeatureStatistics.of_parts(blocks(features))
        covariance = found.covariance
        return cls(found.n, found.mean, covariance.trace(), root(covariance))


class FrechetStatistic(Statistic):
    """The distance of weighted features to a Gaussian.

    Written in the reference's axes, ``y = R^T (x - m_r)``, the trace of the root of a product is the sum of the roots of the
    eigenvalues of the covariance of y, a symmetric matrix: nothing can turn complex.

    Args:
        features: (N, D) of the sample, in memory or on disk.
        reference: what it is compared with.
    """

    bounds = (0.0, math.inf)

    def __init__(self, features: np.ndarray, reference: Gaussian) -> None:
        self.features, self.reference = features, reference
        self.n, self.n_reference = len(features), reference.n
        rank = reference.root.shape[1]
        self._few = self.n <= rank
        work = 8 * self.n**2 * rank if self._few else 2 * self.n * rank**2 + 4 * rank**3
        self.affordable = affordable(work)

    def values(self, counts: Tensor) -> Tensor:
        n = counts.sum(1)
        mean, squares, start = torch.zeros(len(counts), len(self.reference.mean)).double(), torch.zeros_like(n), 0
        for block in self._centred():
            part = counts[:, start : start + len(block)]
            mean += part @ block
            squares += part @ block.square().sum(1)
            start += len(block)
        mean /= n[:, None]
        apart = mean.square().sum(1)
        trace = (squares - n * apart) / (n - 1)
        crossing = self._crossing_of_few(counts) if self._few else self._crossing(counts)
        return (apart + trace + self.reference.trace - 2 * crossing / (n - 1).sqrt()).clamp_min(0)

    def _centred(self) -> Iterator[Tensor]:
        return (block - self.reference.mean for block in blocks(self.features))

    def _crossing(self, counts: Tensor) -> Tensor:
        """Return the sum of singular values of the centred sample in the reference's axes, (R,)."""
        rank = self.reference.root.shape[1]
        found = []
        for chosen in counts.split(max(1, _ENTRIES // max(1, rank**2))):
            total, start = torch.zeros(len(chosen), rank).double(), 0
            scatter = torch.zeros(len(chosen), rank, rank).double()
            for block in self._centred():
                rows = block @ self.reference.root  # (B, rank)
                part = chosen[:, start : start + len(block)]
                total += part @ rows
                for into, weights in zip(scatter, part, strict=True):
                    there = weights > 0  # in a resample two thirds
                    weighted = rows[there] * weights[there, None].sqrt()
                    into.addmm_(weighted.T, weighted)
                start += len(block)
            for mean, products, n in zip(total / chosen.sum(1, keepdim=True), scatter, chosen.sum(1), strict=True):
                squared = torch.linalg.eigvalsh(products.addr_(mean, mean, alpha=-float(n)))
                found.append(squared.clamp_min(0).sqrt().sum())
        return torch.stack(found)

    def _crossing_of_few(self, counts: Tensor) -> Tensor:
        """Return the same of the rows themselves, where there are not more of them than axes."""
        rows = torch.cat([block @ self.reference.root for block in self._centred()])  # (N, rank), N <= rank
        found = []
        for weights in counts:
            there = weights > 0
            present, weight = rows[there], weights[there]
            centred = (present - weight @ present / weight.sum()) * weight.sqrt()[:, None]
            found.append(torch.linalg.svdvals(centred).sum())
        return torch.stack(found)
