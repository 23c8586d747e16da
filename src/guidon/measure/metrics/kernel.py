"""KID: how far the features of two sets of images are apart, by a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.measure.distances import Features, blocks, joined
from guidon.measure.estimate import Statistic
from guidon.measure.metric import Metric
from guidon.measure.metrics.pairs import affordable_over_pairs, mean_over_pairs
from guidon.measure.metrics.seen import both, kept
from guidon.measure.observe import Rows
from guidon.registry import register

_ENTRIES = 8_000_000  # values of the kernel held at once: 64 MB in float64


@register("metric", "kid")
@dataclass(frozen=True)
class Kernel(Metric):
    """The unbiased squared maximum mean discrepancy under the kernel ``(x.y / D + 1)^3``.

    Over all pairs by default: that is what the mean over random subsets estimates, without the noise of drawing them. An image
    that counts twice makes two pairs with each other image and none with its copy, so the estimate stays unbiased. The interval
    of a large set has fewer resamples than were asked for.

    Args:
        subsets: mean over so many random subsets of both sets, drawn with seed 0, as the paper does; 0: all pairs of all images.
        size: images of each set in a subset.

    Raises:
        BadValue: a negative number of subsets, or subsets that have fewer than two images or more than there are.

    Source: Bińkowski et al., arXiv 1801.01401, section 4; Gretton et al., JMLR 13 (2012), eq. 3.
    """

    title: ClassVar[str] = "KID"
    better: ClassVar[Literal["higher", "lower"] | None] = "lower"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    compares: ClassVar[bool] = True
    about: ClassVar[str] = "Unbiased squared MMD of the features of generated and real images, cubic kernel."
    source: ClassVar[str] = "Bińkowski et al. 2018, arXiv 1801.01401, section 4"

    subsets: int = 0
    size: int = 1000

    def __post_init__(self) -> None:
        if self.subsets < 0 or self.size < 2:
            raise BadValue(
                f"KID takes no or some subsets of at least two images, not {self.subsets} of {self.size};"
                " kid(100, 1000) is usual, kid takes all pairs"
            )

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        here, there = both(sample, reference, aspect := f"{network}/features")
        assert reference is not None
        if not self.subsets:
            return AllPairs(here, there, kept(reference, ("kid", aspect), lambda: _own(there)))
        if self.size > min(len(here), len(there)):
            raise BadValue(
                f"subsets of {self.size} cannot be drawn from {len(here)} and {len(there)} images; say"
                f" kid({self.subsets}, {min(len(here), len(there))}) or smaller, or kid for all pairs"
            )
        return Subsets(here, there, self.subsets, self.size)


class AllPairs(Statistic):
    """The discrepancy over all pairs.

    Args:
        features: (N, D) of the sample.
        reference: (M, D) of what it is compared with.
        own: the mean of the kernel over pairs of the reference.
    """

    def __init__(self, features: Features, reference: Features, own: Tensor) -> None:
        self.features, self.own = features, own
        self.n, self.n_reference = len(features), len(reference)
        self.affordable = affordable_over_pairs(self.n**2, *features.shape)
        self._across = joined((block.mean(1) for block in _kernel(features, reference)), self.n)  # (N,)

    def values(self, counts: Tensor) -> Tensor:
        across = counts @ self._across / counts.sum(1)
        return self.own + mean_over_pairs(_kernel(self.features, self.features), counts) - 2 * across


class Subsets(Statistic):
    """The mean discrepancy over random subsets of both sets, each weighted by the counts of its own images.

    Args:
        features: (N, D) of the sample.
        reference: (M, D) of what it is compared with.
        subsets: how many.
        size: images of each set in a subset, at most N and M.
    """

    def __init__(self, features: np.ndarray, reference: np.ndarray, subsets: int, size: int) -> None:
        self.features, self.reference = features, reference
        self.n, self.n_reference = len(features), len(reference)
        generator = torch.Generator().manual_seed(0)
        self.drawn = []
        for _ in range(subsets):
            there = torch.randperm(self.n_reference, generator=generator)[:size].clone()
            self.drawn.append((torch.randperm(self.n, generator=generator)[:size].clone(), there))

    def values(self, counts: Tensor) -> Tensor:
        total = torch.zeros(len(counts), dtype=torch.float64)
        for here, there in self.drawn:
            reference = self.reference[there.numpy()]
            total += AllPairs(self.features[here.numpy()], reference, _own(reference)).values(counts[:, here])
        return total / len(self.drawn)


def _own(features: Features) -> Tensor:
    return mean_over_pairs(_kernel(features, features), torch.ones(1, len(features), dtype=torch.float64))[0]


def _kernel(a: Features, b: Features) -> Iterator[Tensor]:
    """Yield the kernel (rows, M) between blocks of rows of ``a`` (N, D) and all of ``b`` (M, D)."""
    for block in blocks(a, max(1, _ENTRIES // len(b))):
        products = torch.cat([block @ part.T for part in blocks(b)], 1)
        yield products.div_(a.shape[1]).add_(1).pow_(3)
