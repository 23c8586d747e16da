"""Inception Score: how surely a classifier tells each image, and how many different things it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.measure.distances import doubles
from guidon.measure.estimate import Statistic
from guidon.measure.metric import Metric
from guidon.measure.metrics.seen import vectors
from guidon.measure.observe import Rows
from guidon.registry import register

_ROWS = 2000  # images whose probabilities are held at once


@register("metric", "is")
@dataclass(frozen=True)
class InceptionScore(Metric):
    """``exp(mean of KL(p(y | x) || p(y)))``, the mean over splits of the sample.

    Between 1 and the number of classes. It never sees a real image, and each split has its own p(y), so the score depends on the
    order of the images where there are several splits: they are dealt out by a permutation drawn with seed 0.

    Args:
        splits: parts that the sample is cut into; 1: none.

    Raises:
        BadValue: there is no split.
        DataError: there are fewer images than splits.

    Source: Salimans et al., arXiv 1606.03498, section 4.
    """

    title: ClassVar[str] = "IS"
    better: ClassVar[Literal["higher", "lower"] | None] = "higher"
    needs: ClassVar[tuple[str, ...]] = ("logits",)
    about: ClassVar[str] = "Inception Score: sure and varied predictions of a classifier, 1 to the number of classes."
    source: ClassVar[str] = "Salimans et al. 2016, arXiv 1606.03498, section 4"

    splits: int = 10

    def __post_init__(self) -> None:
        if self.splits < 1:
            raise BadValue(f"the sample is cut into at least one split, not {self.splits}; 10 are usual")

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        return ScoreOfSplits(vectors(sample, f"{network}/logits", self.splits), self.splits)


class ScoreOfSplits(Statistic):
    """The score of weighted images: those that count twice are two in their split.

    Args:
        logits: (N, K), in memory or on disk.
        splits: how many, at most N.
    """

    def __init__(self, logits: np.ndarray, splits: int) -> None:
        self.logits, self.n, self.bounds = logits, len(logits), (1.0, float(logits.shape[1]))
        self._splits = torch.randperm(self.n, generator=torch.Generator().manual_seed(0)).chunk(splits)

    def values(self, counts: Tensor) -> Tensor:
        return torch.stack([self._score(split, counts[:, split]) for split in self._splits]).nanmean(0)

    def _score(self, split: Tensor, counts: Tensor) -> Tensor:
        """Return the score (R,) of some images; NaN where none of them counts."""
        marginal, start = torch.zeros(len(counts), self.logits.shape[1]).double(), 0
        sureness = torch.zeros(len(counts)).double()
        for part in split.split(_ROWS):
            log_p = doubles(self.logits[part.numpy()]).log_softmax(1)
            weights = counts[:, start : start + len(part)]
            marginal += weights @ log_p.exp()
            sureness += weights @ (log_p.exp() * log_p).sum(1)
            start += len(part)
        n = counts.sum(1)
        marginal = marginal / n[:, None]
        return (sureness / n - torch.xlogy(marginal, marginal).sum(1)).exp()
