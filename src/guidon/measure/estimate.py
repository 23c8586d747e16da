"""A figure as a function of how often each image counts: its value, its bootstrap interval, and the difference of two."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from guidon.errors import BadValue

CHUNK = 4_000_000  # counts that are held at once
WORK, FEWEST = (
    2e12,
    20,
)  # multiplications for an interval, one or two minutes of a core; resamples below which it says nothing
MANY = 100  # resamples whose percentiles can be told


class Statistic(ABC):
    """A figure of a sample, for any number of times that each of its images counts.

    Attributes:
        n: how many images there are.
        n_reference: how many they are compared with; 0: with none.
        affordable: resamples that can be had in reasonable time; None: any number.
        bounds: between which the figure lies, whatever the images.
    """

    n: int
    n_reference: int = 0
    affordable: int | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @abstractmethod
    def values(self, counts: Tensor) -> Tensor:
        """Return the figure (R,) float64 for each row of counts (R, n) float64; a row of ones gives the sample's own."""


class Mean(Statistic):
    """The mean of a number that each image has.

    Args:
        per_image: (N,); NaN where an image has none, which then does not count.
        bounds: of the number.
    """

    def __init__(self, per_image: Tensor, bounds: tuple[float, float] = Statistic.bounds) -> None:
        self.bounds = bounds
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
        low, high: ends of its interval; NaN: there is none.
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
        low, high: ends of its interval; NaN: there is none.
        p: how often resampling alone makes a difference as large, two-sided; NaN: unknown.
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
    is farther from any other, which says nothing about the sample. Fewer than 100 resamples, which a large set may not afford, tell no
    percentiles but a deviation s: then it is that of the normal distribution, ``value +- z s``. It ends where the range of the figure
    does. A resample in which nothing is left to measure does not count; where more than half are such, there is no interval.

    Args:
        statistic: of the sample.
        resamples: how many times the sample is drawn anew from itself; 0: no interval (NaN).
        seed: of these draws.
        confidence: between 0 and 1.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 10 and 13.
    """
    value = float(statistic.values(torch.ones(1, statistic.n, dtype=torch.float64))[0])
    resamples = _resamples(resamples, statistic)
    drawn = _finite(_bootstrap((statistic,), resamples, seed)[0])
    low, high = _interval(drawn, value, statistic.bounds, confidence)
    return Figure(value, low, high, statistic.n, statistic.n_reference, len(drawn), confidence)


def difference(
    first: Statistic, second: Statistic, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Difference:
    """Return how far two samples of the same seeds are apart, and how often chance alone would do that.

    Both samples are drawn anew together, a seed at a time, so that what the seeds share does not count as chance. With fewer than 100
    resamples interval and p are those of the normal distribution with their deviation s, ``p = erfc(|value| / (s sqrt 2))``.

    Args:
        first, second: statistics of images that belong together row by row.
        resamples, seed, confidence: as of `estimate`; of 100 resamples or more p is at least 1 / (resamples + 1).

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
    moved = _finite(other - one)
    bounds = second.bounds[0] - first.bounds[1], second.bounds[1] - first.bounds[0]
    low, high = _interval(moved, value, bounds, confidence)
    return Difference(value, low, high, math.nan if math.isnan(low) else _chance(moved, value), len(moved))


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


def _finite(drawn: Tensor) -> Tensor:
    """Return what some resamples gave without those that gave nothing; none at all where that were most."""
    finite = drawn[drawn.isfinite()]
    return finite if 2 * len(finite) >= len(drawn) else finite[:0]


def _interval(drawn: Tensor, value: float, bounds: tuple[float, float], confidence: float) -> tuple[float, float]:
    """Return the ends of an interval around a figure, given what resamples of it gave; NaN where these say nothing."""
    if not 0 < confidence < 1:
        raise BadValue(f"confidence lies between 0 and 1, not at {confidence}; 0.95 is usual")
    if len(drawn) < 2 or not math.isfinite(value):
        return math.nan, math.nan
    out = (1 - confidence) / 2
    if len(drawn) < MANY:
        half = NormalDist().inv_cdf(1 - out) * float(drawn.std())
        low, high = value - half, value + half
    else:
        ends = torch.tensor([out, 1 - out], dtype=torch.float64)
        low, high = (drawn - drawn.mean() + value).quantile(ends).tolist()
    return max(low, min(bounds[0], value)), min(high, max(bounds[1], value))


def _chance(drawn: Tensor, value: float) -> float:
    """Return how often differences that spread like those of resamples are as large as a value, two-sided."""
    away = (drawn - drawn.mean()).abs()
    if len(drawn) >= MANY:
        return (1 + int((away >= abs(value) * (1 - 1e-12)).sum())) / (len(drawn) + 1)
    deviation = float(drawn.std())
    if deviation == 0:
        return float(value == 0)
    return math.erfc(abs(value) / (deviation * math.sqrt(2)))


def _resamples(resamples: int, statistic: Statistic) -> int:
    if resamples < 0:
        raise BadValue(f"{resamples} resamples cannot be drawn; 200 are usual, 0 gives no interval")
    return resamples if statistic.affordable is None else min(resamples, statistic.affordable)


def affordable(work: float) -> int:
    """Return how many resamples can be had in reasonable time where each takes so many multiplications."""
    return max(FEWEST, int(WORK / max(1.0, work)))
