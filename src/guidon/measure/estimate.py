"""A figure as a function of how often each image counts: its value, its bootstrap interval, and the difference of two."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.errors import BadValue

CHUNK = 4_000_000  # counts that are held at once


class Statistic(ABC):
    """A figure of a sample, for any number of times that each of its images counts.

    Attributes:
        n: how many images there are.
        n_reference: how many they are compared with; 0: with none.
        affordable: resamples that can be had in reasonable time; None: any number.
    """

    n: int
    n_reference: int = 0
    affordable: int | None = None

    @abstractmethod
    def values(self, counts: Tensor) -> Tensor:
        """Return the figure (R,) float64 for each row of counts (R, n) float64; a row of ones gives the sample's own."""


class Mean(Statistic):
    """The mean of a number that each image has.

    Args:
        per_image: (N,); NaN where an image has none, which then does not count.
    """

    def __init__(self, per_image: Tensor) -> None:
        rows = per_image.double()
        self._there = ~rows.isnan()
        self._rows = rows.nan_to_num()
        self.n = len(rows)

    def values(self, counts: Tensor) -> Tensor:
        return (counts @ self._rows) / (counts @ self._there.double())


@dataclass(frozen=True)
class Figure:
    """What was measured, and how sure it is.

    Args:
        value: the figure.
        low, high: ends of its interval.
        n: images that it was measured on.
        n_reference: images that they were compared with; 0: none.
        resamples: behind the interval.
        confidence: how often such an interval holds what it is of.
        network: fingerprint of the network whose features were compared; empty: none.
    """

    value: float
    low: float
    high: float
    n: int
    n_reference: int = 0
    resamples: int = 0
    confidence: float = 0.95
    network: str = ""


@dataclass(frozen=True)
class Difference:
    """How far two figures of the same seeds are apart.

    Args:
        value: the second minus the first.
        low, high: ends of its interval.
        p: how often resampling alone makes a difference as large, two-sided.
        resamples: behind both.
    """

    value: float
    low: float
    high: float
    p: float
    resamples: int


def estimate(statistic: Statistic, *, resamples: int = 200, seed: int = 0, confidence: float = 0.95) -> Figure:
    """Return a figure with its bootstrap interval.

    The interval is that of the percentiles, moved by what resampling adds on average: a set with images that stand in it twice
    is farther from any other, which says nothing about the sample.

    Args:
        statistic: of the sample.
        resamples: how many times the sample is drawn anew from itself; 0: no interval (NaN).
        seed: of these draws.
        confidence: between 0 and 1.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 10 and 13.
    """
    value = float(statistic.values(torch.ones(1, statistic.n, dtype=torch.float64))[0])
    resamples = _resamples(resamples, statistic)
    drawn = _bootstrap((statistic,), resamples, seed)[0]
    low, high = _interval(drawn - drawn.mean() + value, confidence)
    return Figure(value, low, high, statistic.n, statistic.n_reference, resamples, confidence)


def difference(
    first: Statistic, second: Statistic, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Difference:
    """Return how far two samples of the same seeds are apart, and how often chance alone would do that.

    Both samples are drawn anew together, a seed at a time, so that what the seeds share does not count as chance.

    Args:
        first, second: statistics of images that belong together row by row.
        resamples, seed, confidence: as of `estimate`; p is at least 1 / (resamples + 1).

    Raises:
        BadValue: the samples are not of one size.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 16.4.
    """
    if first.n != second.n:
        raise BadValue(f"{first.n} images are paired with {second.n}; sample as many, from the same seeds")
    ones = torch.ones(1, first.n, dtype=torch.float64)
    value = float(second.values(ones)[0] - first.values(ones)[0])
    resamples = min(_resamples(resamples, first), _resamples(resamples, second))
    one, other = _bootstrap((first, second), resamples, seed)
    moved = other - one
    moved = moved - moved.mean()
    low, high = _interval(moved + value, confidence)
    p = (1 + int((moved.abs() >= abs(value) * (1 - 1e-12)).sum())) / (resamples + 1)
    return Difference(value, low, high, p, resamples)


def _bootstrap(statistics: tuple[Statistic, ...], resamples: int, seed: int) -> list[Tensor]:
    """Return what each statistic gives on the same resamples, (R,) each."""
    n = statistics[0].n
    generator = torch.Generator().manual_seed(seed)
    drawn: list[list[Tensor]] = [[] for _ in statistics]
    rows = max(1, CHUNK // n)
    for start in range(0, resamples, rows):
        counts = torch.zeros(min(rows, resamples - start), n, dtype=torch.float64)
        for row in counts:
            row += torch.randint(n, (n,), generator=generator).bincount(minlength=n)
        for kept, statistic in zip(drawn, statistics, strict=True):
            kept.append(statistic.values(counts))
    return [torch.cat(kept) if kept else torch.zeros(0, dtype=torch.float64) for kept in drawn]


def _interval(values: Tensor, confidence: float) -> tuple[float, float]:
    """Return the middle part of some values."""
    if not 0 < confidence < 1:
        raise BadValue(f"confidence lies between 0 and 1, not at {confidence}; 0.95 is usual")
    if not len(values):
        return math.nan, math.nan
    out = (1 - confidence) / 2
    low, high = values.quantile(torch.tensor([out, 1 - out], dtype=torch.float64)).tolist()
    return low, high


def _resamples(resamples: int, statistic: Statistic) -> int:
    if resamples < 0:
        raise BadValue(f"{resamples} resamples cannot be drawn; 200 are usual, 0 gives no interval")
    return resamples if statistic.affordable is None else min(resamples, statistic.affordable)
