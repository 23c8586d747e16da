"""Intervals hold what they are of as often as they say, and differences of the same seeds do not count what seeds share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.measure.estimate import Mean, Statistic, difference, estimate


class Raised(Statistic):
    """The mean, and more the more images stand in the sample twice: resampling raises it by about 1."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.n = rows.double(), len(rows)

    def values(self, counts: Tensor) -> Tensor:
        return (counts @ self.rows) / counts.sum(1) + counts.square().mean(1) - 1


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    rows = 3 + 2 * normal(400, 0)
    figure = estimate(Mean(rows), resamples=4000)
    half = 1.96 * float(rows.std()) / 20
    assert figure.value == pytest.approx(float(rows.mean()), rel=1e-12)
    assert figure.high - figure.value == pytest.approx(half, rel=0.06)
    assert figure.value - figure.low == pytest.approx(half, rel=0.06)
    assert (figure.n, figure.n_reference, figure.resamples, figure.confidence) == (400, 0, 4000, 0.95)
    narrow = estimate(Mean(rows), resamples=4000, confidence=0.5)
    assert (narrow.high - narrow.low) / (figure.high - figure.low) == pytest.approx(0.674 / 1.96, rel=0.06)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        figure = estimate(Mean(normal(60, seed)), resamples=200, seed=seed)
        held += figure.low <= 0 <= figure.high
    assert 0.90 <= held / 200 <= 0.985  # 0.95, with the chance of 200 draws


def test_what_resampling_adds_does_not_move_the_interval() -> None:
    rows = normal(400, 2)
    figure = estimate(Raised(rows), resamples=2000)
    assert figure.value == pytest.approx(float(rows.mean()), abs=1e-12)
    assert figure.high - figure.low < 0.5
    assert (figure.low + figure.high) / 2 == pytest.approx(figure.value, abs=0.02)


def test_images_without_a_number_do_not_count() -> None:
    rows = torch.tensor([1.0, math.nan, 3.0, math.nan])
    assert estimate(Mean(rows), resamples=0).value == 2.0
    counts = torch.tensor([[3.0, 9.0, 1.0, 0.0]], dtype=torch.float64)
    assert Mean(rows).values(counts).tolist() == [1.5]


def test_no_resamples_give_no_interval_and_a_statistic_may_afford_few() -> None:
    figure = estimate(Mean(normal(9, 0)), resamples=0)
    assert math.isnan(figure.low) and math.isnan(figure.high) and figure.resamples == 0
    dear = Mean(normal(9, 0))
    dear.affordable = 7
    assert estimate(dear).resamples == 7
    assert difference(dear, Mean(normal(9, 1))).resamples == 7


def test_the_same_seed_gives_the_same_interval_whatever_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normal(30, 1)
    whole = estimate(Mean(rows), seed=5)
    monkeypatch.setattr("guidon.measure.estimate.CHUNK", 100)
    parts = estimate(Mean(rows), seed=5)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), rel=1e-12)
    assert estimate(Mean(rows), seed=6) != whole


def test_what_seeds_share_does_not_hide_a_difference() -> None:
    shared, own = 10 * normal(200, 0), 0.1 * normal(200, 1)
    found = difference(Mean(shared), Mean(shared + 0.05 + own))
    assert found.value == pytest.approx(float((0.05 + own).mean()), rel=1e-9)
    half = 1.96 * float(own.std()) / math.sqrt(200)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.12)
    assert found.p <= 2 / 1001
    assert difference(Mean(shared + 0.05 + own), Mean(shared)).value == pytest.approx(-found.value)


def test_a_sample_does_not_differ_from_itself() -> None:
    found = difference(Mean(normal(50, 0)), Mean(normal(50, 0)))
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_chance_is_called_a_difference_as_often_as_it_says() -> None:
    ps = [difference(Mean(normal(60, 2 * s)), Mean(normal(60, 2 * s + 1)), resamples=200).p for s in range(200)]
    assert 0.015 <= sum(p < 0.05 for p in ps) / 200 <= 0.10
    assert 0.38 <= sum(p < 0.5 for p in ps) / 200 <= 0.62


def test_bad_values() -> None:
    with pytest.raises(BadValue, match="paired"):
        difference(Mean(normal(5, 0)), Mean(normal(6, 0)))
    with pytest.raises(BadValue, match="confidence"):
        estimate(Mean(normal(5, 0)), confidence=95)
    with pytest.raises(BadValue, match="resamples"):
        estimate(Mean(normal(5, 0)), resamples=-1)
