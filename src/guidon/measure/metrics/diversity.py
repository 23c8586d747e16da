"""Intra-class diversity: how different the images are that were told the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from guidon.errors import DataError
from guidon.measure.distances import Picked
from guidon.measure.estimate import Statistic
from guidon.measure.manifold import squared_distances
from guidon.measure.metric import Metric
from guidon.measure.metrics.pairs import affordable_over_pairs, mean_over_pairs
from guidon.measure.metrics.seen import vectors
from guidon.measure.observe import Rows
from guidon.registry import register


@register("metric", "diversity")
@dataclass(frozen=True)
class Diversity(Metric):
    """The mean distance between the features of two images that were told the same, each told thing weighing the same.

    What was told is the label where the images have labels, else the caption, else nothing: then all pairs count. Exact, over all
    pairs of different images; images without a label, and those that share what they were told with no other, are left out. Its
    unit is that of the network's features. The interval of a large set has fewer resamples than were asked for.

    Raises:
        DataError: no two images were told the same.

    Source: the mean pairwise distance within a class, as of Zhu et al., arXiv 1711.11586, section 5, where it is LPIPS.
    """

    title: ClassVar[str] = "Diversity"
    better: ClassVar[Literal["higher", "lower"] | None] = "higher"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    about: ClassVar[str] = "Mean feature distance between images that were told the same."
    source: ClassVar[str] = "Zhu et al. 2017, arXiv 1711.11586, section 5, in feature space"

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        features = vectors(sample, f"{network}/features")
        told = np.zeros(len(sample), np.int64) if sample.captions is None else _numbered(sample.captions)
        if sample.labels is not None:
            told = np.asarray(sample.labels)
        groups = [np.flatnonzero(told == one) for one in np.unique(told[told >= 0])]
        groups = [group for group in groups if len(group) > 1]
        if not groups:
            raise DataError("no two images were told the same; sample several images for each label or caption")
        return Spread(features, groups)


class Spread(Statistic):
    """The mean over groups of the mean distance within them; a group of which fewer than two images count is left out.

    Args:
        features: (N, D), in memory or on disk.
        groups: numbers of the images of each.
    """

    bounds = (0.0, math.inf)

    def __init__(self, features: np.ndarray, groups: list[np.ndarray]) -> None:
        self.features, self.groups, self.n = features, groups, len(features)
        pairs = sum(len(group) ** 2 for group in groups)
        self.affordable = affordable_over_pairs(pairs, *features.shape)

    def values(self, counts: Tensor) -> Tensor:
        within = []
        for group in self.groups:
            features = Picked(self.features, group)
            distances = (block.sqrt_() for block in squared_distances(features, features))
            within.append(mean_over_pairs(distances, counts[:, torch.from_numpy(group)]))
        return torch.stack(within).nanmean(0)


def _numbered(captions: tuple[str, ...]) -> np.ndarray:
    return np.unique(np.array(captions), return_inverse=True)[1]
