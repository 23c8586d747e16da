"""Classifier-free guidance and its weights."""

from __future__ import annotations

import math

import pytest
import torch
from support.numbers import agree, normal

from guidon.errors import BadValue, ShapeMismatch
from guidon.guidance import CFG, GIVEN, NULL, CosineWeight, Interval, LinearWeight, Moment, from_ho_salimans
from guidon.noise import EDM, Level, Prediction

HERE = Level(2.0, 1.0, 2.0)


def moment(noise_level: float = 2.0, index: int = 0, steps: int = 1) -> Moment:
    return Moment(EDM().level(noise_level), EDM().clean, index, steps)


def answers(batch: int = 3) -> dict:
    given, null = normal(batch, 2, 4, seed=1), normal(batch, 2, 4, seed=2)
    fraction = torch.rand(batch, 2, 4)
    return {
        GIVEN: Prediction(given, HERE, given, -given, fraction),
        NULL: Prediction(null, HERE, null, -null, 1 - fraction),
    }


@pytest.mark.parametrize("weight", [-0.5, 0.3, 1.7, 4.0, 30.0])
def test_extrapolates_from_null_to_given(weight: float) -> None:
    told = answers()
    guided, state = CFG(weight).combine(told, moment(), None)
    given, null = told[GIVEN].x0, told[NULL].x0
    agree(guided.x0, null + weight * (given - null), "x0")
    agree(guided.eps, -null - weight * (given - null), "eps")
    assert guided.variance_fraction is told[GIVEN].variance_fraction
    assert state is None


def test_one_weight_for_each_image() -> None:
    told, weights = answers(), [1.0, 0.0, 3.5]
    guided, _ = CFG(weights).combine(told, moment(), None)
    for i, weight in enumerate(weights):
        alone = {b: p.take(slice(i, i + 1)) for b, p in told.items()}
        agree(guided.x0[i : i + 1], alone[NULL].x0 + weight * (alone[GIVEN].x0 - alone[NULL].x0), "x0")
    assert CFG(torch.tensor(weights)) == CFG(weights) == CFG(tuple(weights))
    assert CFG(torch.tensor(3.0)) == CFG(3)
    with pytest.raises(ShapeMismatch, match="2 weights for 3 images"):
        CFG([1.0, 2.0]).combine(told, moment(), None)


def test_ho_and_salimans_count_from_plain_conditional() -> None:
    told = answers()
    guided, _ = CFG(from_ho_salimans(2.0)).combine(told, moment(), None)
    agree(guided.eps, (1 + 2.0) * told[GIVEN].eps - 2.0 * told[NULL].eps, "eps")


def test_interval_is_open_below_and_closed_above() -> None:
    rule = CFG(3.0, when=Interval(0.5, 2.0))
    expected = {0.4: 1, 0.5: 1, 0.50001: 2, 2.0: 2, 2.00001: 1}
    assert {level: len(rule.branches(moment(level), None)) for level in expected} == expected
    assert rule.branches(moment(9.0), None) == (GIVEN,)


@pytest.mark.parametrize("weight", [LinearWeight(1.0, 5.0), CosineWeight(1.0, 5.0)])
def test_schedules_reach_both_ends(weight: LinearWeight | CosineWeight) -> None:
    values = [weight.at(moment(index=i, steps=9)) for i in range(9)]
    assert values[0] == 1.0
    assert math.isclose(values[-1], 5.0)
    assert math.isclose(values[4], 3.0)
    assert values == sorted(values)
    assert weight.at(moment()) == 1.0  # a single step is the first
    assert CFG(weight).branches(moment(index=0, steps=9), None) == (GIVEN,)
    assert CFG(weight).branches(moment(index=1, steps=9), None) == (GIVEN, NULL)


def test_cosine_starts_flat() -> None:
    assert CosineWeight(0.0, 1.0).at(moment(index=1, steps=9)) < LinearWeight(0.0, 1.0).at(moment(index=1, steps=9)) / 2


@pytest.mark.parametrize("weight", ["abc", None, math.nan, math.inf, [1.0, math.nan], [], object(), ["a"], [[1.0]]])
def test_bad_weights(weight: object) -> None:
    with pytest.raises(BadValue, match="a weight is"):
        CFG(weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(("low", "high"), [(-1, 2), (2, 2), (3, 2), (math.nan, 2)])
def test_bad_intervals(low: float, high: float) -> None:
    with pytest.raises(BadValue, match="low < high"):
        Interval(low, high)
