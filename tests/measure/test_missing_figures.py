"""What cannot be told is NaN or refused: figures of nothing, intervals of too few resamples, ends beyond what a figure can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from guidon.errors import BadValue, DataError
from guidon.measure.estimate import Mean, Statistic, affordable, difference, estimate
from guidon.measure.metric import Wanted, check
from guidon.measure.metrics import ClipScore
from guidon.measure.metrics.diversity import Spread
from guidon.measure.metrics.kernel import AllPairs
from guidon.measure.observe import Rows


class Rare(Statistic):
    """The mean of some numbers in the resamples in which the first image counts; nothing in the others."""

    def __init__(self, rows: Tensor, least: int = 1) -> None:
        self.rows, self.n, self.least = rows.double(), len(rows), least

    def values(self, counts: Tensor) -> Tensor:
        return (counts @ self.rows / counts.sum(1)).masked_fill(counts[:, 0] < self.least, torch.nan)


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_resamples_of_nothing_do_not_count() -> None:
    rows = normal(400, 0)
    whole, some = estimate(Mean(rows), resamples=1000), estimate(Rare(rows), resamples=1000)
    assert 600 <= some.resamples <= 664  # 1 - 1/e of them
    assert some.value == pytest.approx(whole.value)
    assert (some.low, some.high) == pytest.approx((whole.low, whole.high), abs=0.02)
    apart = difference(Mean(rows), Rare(rows + 0.2), resamples=1000)
    assert 600 <= apart.resamples <= 664 and apart.p == 1 / (1 + apart.resamples)
    assert apart.low == pytest.approx(0.2) == apart.high


def test_of_mostly_nothing_there_is_no_interval() -> None:
    class Twice(Rare):
        def values(self, counts: Tensor) -> Tensor:
            return super().values(torch.where(counts.std(1, keepdim=True) == 0, 2 * counts, counts))

    few = Twice(normal(50, 0), least=2)  # in a quarter of the resamples
    figure = estimate(few)
    assert math.isfinite(figure.value) and math.isnan(figure.low) and math.isnan(figure.high) and figure.resamples == 0
    apart = difference(few, Mean(normal(50, 0)))
    assert math.isfinite(apart.value) and all(map(math.isnan, (apart.low, apart.high, apart.p)))


def test_the_figure_of_nothing_has_neither_interval_nor_p() -> None:
    nothing = Mean(torch.full((9,), math.nan))
    figure, apart = estimate(nothing), difference(Mean(normal(9, 0)), nothing)
    assert all(map(math.isnan, (figure.value, figure.low, figure.high)))
    assert all(map(math.isnan, (apart.value, apart.low, apart.high, apart.p)))
    only_whole = Rare(normal(9, 0), least=2)  # ones give nothing, some resamples do
    assert math.isnan(estimate(only_whole).low) and math.isnan(difference(only_whole, only_whole).p)


def test_few_resamples_tell_a_deviation() -> None:
    rows, other = 3 + normal(2500, 0), 3 + normal(2500, 1)
    few, many = Mean(rows), estimate(Mean(rows), resamples=2000)
    few.affordable = 60
    figure = estimate(few)
    assert figure.resamples == 60 and figure.high - figure.value == pytest.approx(figure.value - figure.low)
    assert figure.high - figure.low == pytest.approx(many.high - many.low, rel=0.25)
    assert figure.high - figure.value == pytest.approx(1.96 / 50, rel=0.25)
    apart, sure = difference(few, Mean(other)), difference(few, Mean(rows + 0.3 + 0.1 * other))
    z = abs(apart.value) / ((apart.high - apart.low) / 2 / 1.959964)
    assert apart.resamples == 60 and apart.p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-5)
    assert sure.p < 1e-6  # counted among 60 resamples it could not be below 1/61
    assert difference(few, few).p == 1


def test_chance_among_few_resamples_is_called_a_difference_as_often_as_it_says() -> None:
    ps = [difference(Mean(normal(60, 2 * s)), Mean(normal(60, 2 * s + 1)), resamples=40).p for s in range(200)]
    assert 0.015 <= sum(p < 0.05 for p in ps) / 200 <= 0.10


def test_intervals_end_where_the_figure_does() -> None:
    hits = torch.ones(40)
    hits[0] = 0
    share = Mean(hits, (0, 1))
    assert estimate(Mean(hits), resamples=50).high > 1
    assert estimate(share, resamples=50).high == 1 and estimate(share, resamples=50).low < 0.975
    assert estimate(Mean(1 - hits, (0, 1)), resamples=50).low == 0
    apart = difference(Mean(1 - hits, (0, 1)), share, resamples=50)
    assert apart.high == 1 and apart.low < 0.95


def test_pairs_of_a_large_set_have_fewer_resamples() -> None:
    wide, narrow = (torch.zeros(1, 1).expand(50_000, D).numpy() for D in (2048, 64))
    whole = [np.arange(50_000)]
    tenths = list(np.arange(50_000).reshape(10, -1))
    assert 20 <= (Spread(wide, whole).affordable or 0) < 100
    assert (Spread(wide, tenths).affordable or 0) == pytest.approx(10 * (Spread(wide, whole).affordable or 0), rel=0.5)
    assert (Spread(narrow, tenths).affordable or 0) > 1000
    assert (AllPairs(np.zeros((9, 4)), np.zeros((9, 4)), torch.zeros(())).affordable or 0) > 1000
    assert affordable(1e30) == 20


def test_no_caption_no_clip_score() -> None:
    sample = Rows.of({"clip/features": np.ones((3, 2)), "clip/text": np.full((3, 2), np.nan)}, captions=[""] * 3)
    with pytest.raises(DataError, match="measure images with captions"):
        ClipScore().statistic(sample, None, "clip")
    sample["clip/text"][1] = 1
    assert estimate(ClipScore().statistic(sample, None, "clip")).value == pytest.approx(100)


@pytest.mark.parametrize("network", ["inception", "torchscript"])
def test_accuracy_is_not_told_by_networks_with_classes_of_their_own(network: str) -> None:
    told = {"labels": np.zeros(3, np.int64), "observers": {network: "f", "classifier": "g"}}
    with pytest.raises(BadValue, match=rf"accuracy is told by a classifier .* {network} knows others"):
        check(Wanted.parse("accuracy", network), Rows({}, 3, **told), None)
    assert check(Wanted.parse("accuracy@classifier", network), Rows({}, 3, **told), None) == "g"
