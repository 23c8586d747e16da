"""Weights over the steps, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from support.numbers import agree, f64

from guidon.errors import BadValue
from guidon.guidance import Interval, Moment, Weight, from_ho_salimans
from guidon.guidance.weights import (
    BetaWeight,
    ClampLinearWeight,
    CosineWeight,
    LinearWeight,
    OfMoment,
    PowerWeight,
)
from guidon.noise import EDM


def along_the_run(weight: Weight, steps: int) -> list[float]:
    levels = [EDM().level(2.0), EDM().level(1.0)]
    return [float(weight.at(Moment(*levels, index, steps))) for index in range(steps)]  # type: ignore[arg-type]


BY_HAND = [
    (LinearWeight(2.0, 10.0), [2, 4, 6, 8, 10]),
    (LinearWeight(5.0, 1.0), [5, 4, 3, 2, 1]),
    (ClampLinearWeight(1.0, 9.0, 4.0), [4, 4, 5, 7, 9]),
    (ClampLinearWeight(9.0, 1.0, 4.0), [9, 7, 5, 4, 4]),
    (CosineWeight(2.0, 10.0), [2, 4, 8, 10]),  # the cosine of 60 degrees is a half
    (CosineWeight(7.0, 3.0), [7, 6, 4, 3]),
    (PowerWeight(2.0, 10.0, 2.0), [2, 2.5, 4, 6.5, 10]),
    (PowerWeight(1.0, 5.0, 0.5), [1, 3, 1 + math.sqrt(8), 1 + math.sqrt(12), 5]),
    # at thirds of the way r^2 (1 - r) is 2/27 and 4/27, the largest that it gets
    (BetaWeight(5.0, 3.0, 2.0), [1, 3, 5, 1]),
    (BetaWeight(5.0, 2.0, 3.0), [1, 5, 3, 1]),
    (BetaWeight(3.0), [1, 2.5, 3, 2.5, 1]),  # r (1 - r) is 3/16 and 1/4
]


@pytest.mark.parametrize(("weight", "values"), BY_HAND)
def test_by_hand(weight: Weight, values: list[float]) -> None:
    agree(f64(along_the_run(weight, len(values))), f64(values), "weight", rtol=1e-12)


def test_what_grows_upwards_spends_as_much_as_a_constant() -> None:
    """As wang2024schedulers has it: from 1 to 2w - 1, on average w."""
    for weight in (LinearWeight(1.0, 9.0), CosineWeight(1.0, 9.0)):
        assert sum(along_the_run(weight, 21)) / 21 == pytest.approx(5.0)


def test_a_single_step_is_the_first() -> None:
    for weight, values in BY_HAND:
        assert along_the_run(weight, 1) == [values[0]]


def test_interval_goes_by_the_moment_or_by_the_step() -> None:
    """A step from 2 to 0.8 whose second evaluation is at 0.8."""
    two, less = EDM().level(2.0), EDM().level(0.8)
    first, second = Moment(two, less), Moment(less, less, began=two)
    for interval, held in (
        (Interval(1.0, 3.0), (True, False)),
        (Interval(1.0, 3.0, whole_steps=True), (True, True)),
        (Interval(0.5, 1.0), (False, True)),
        (Interval(0.5, 1.0, whole_steps=True), (False, False)),
        (Interval(0.8), (True, False)),
        (Interval(0.0, 0.8), (False, True)),
        (Interval(0.0, 2.0), (True, True)),
    ):
        assert (interval.holds(first), interval.holds(second)) == held


def test_ho_and_salimans_count_from_0() -> None:
    assert [from_ho_salimans(w) for w in (-1.0, 0.0, 1.0, 6.5)] == [0, 1, 2, 7.5]


def test_functions_of_the_moment() -> None:
    at = Moment(EDM().level(2.0), EDM().level(1.0), 3, 8)
    assert OfMoment(lambda at: 2 + at.index).at(at) == 5
    assert OfMoment(lambda at: [1, at.noise_level]).at(at) == (1, 2)
    with pytest.raises(BadValue, match="not another schedule"):
        OfMoment(lambda at: LinearWeight(1.0, 2.0)).at(at)


@pytest.mark.parametrize(
    "bad",
    [lambda: PowerWeight(1, 2, 0), lambda: BetaWeight(3, 1, 2), lambda: BetaWeight(3, 2, 1), lambda: Interval(2, 1)],
)
def test_refused(bad: object) -> None:
    with pytest.raises(BadValue):
        bad()  # type: ignore[operator]
