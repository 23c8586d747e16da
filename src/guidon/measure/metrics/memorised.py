"""Memorised images: generated ones that are a real one over again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from guidon.errors import BadValue, DataError
from guidon.measure.distances import blocks, doubles, joined
from guidon.measure.estimate import Mean, Statistic
from guidon.measure.manifold import squared_distances
from guidon.measure.metric import Metric
from guidon.measure.metrics.seen import both
from guidon.measure.observe import Rows
from guidon.registry import register

_ROWS = 200  # images that are subtracted from their neighbours at once


@register("metric", "memorised")
@dataclass(frozen=True)
class Memorised(Metric):
    """The share of images that are far nearer to one image of the reference than to any other.

    An image counts as memorised where ``d_1 < ratio d_2`` for the distances to its nearest and second nearest neighbour, or where it
    is its neighbour over again (d_1 = 0, so that a training image that stands twice in its set is found too). The reference must
    be the training set, all of it. The source measures in pixels; here it is in the features of the network.

    Args:
        ratio: of the two distances, between 0 and 1; the source takes 1/3.

    Raises:
        BadValue: the ratio is out of range.

    Source: Yoon et al., "Diffusion Probabilistic Models Generalize when They Fail to Memorize", ICML 2023 workshop on Structured
    Probabilistic Inference & Generative Modeling; taken up by Gu et al., arXiv 2310.02664.
    """

    title: ClassVar[str] = "Memorised"
    better: ClassVar[Literal["higher", "lower"] | None] = "lower"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    compares: ClassVar[bool] = True
    about: ClassVar[str] = "Share of images that repeat one image of the training set."
    source: ClassVar[str] = "Yoon et al. 2023, Diffusion Probabilistic Models Generalize when They Fail to Memorize"

    ratio: float = 1 / 3

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise BadValue(f"the ratio of two distances lies between 0 and 1, not at {self.ratio}; 1/3 is usual")

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        here, there = both(sample, reference, f"{network}/features")
        _, distance = nearest(here, there, 2)
        first, second = distance.unbind(1)
        statistic = Mean((first < self.ratio * second) | (first == 0), (0, 1))
        statistic.n_reference = len(there)
        return statistic


def nearest(features: Tensor | np.ndarray, reference: Tensor | np.ndarray, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return which vectors of a reference are nearest to each of some others, and how far they are.

    Args:
        features: (N, D).
        reference: (M, D).
        k: neighbours, the nearest first.

    Returns:
        Their numbers (N, k) int64, and their distances (N, k) float64, which are exact: 0 where the vectors are equal.

    Raises:
        DataError: the reference has fewer than k vectors.
    """
    if not 1 <= k <= len(reference):
        raise DataError(f"{len(reference)} images have no {k}. nearest; take more of them, or a smaller k")
    rows = (block.topk(k, largest=False).indices for block in squared_distances(features, reference))
    found = joined(rows, len(features))

    def apart(part: Tensor, block: Tensor) -> Tensor:
        neighbours = doubles(reference[part.flatten().numpy()]).unflatten(0, part.shape)  # (B, k, D)
        return (neighbours - block[:, None]).square().sum(2).sqrt()

    pairs = zip(found.split(_ROWS), blocks(features, _ROWS), strict=True)
    distance, order = joined((apart(*pair) for pair in pairs), len(features)).sort(stable=True)
    return found.gather(1, order), distance
