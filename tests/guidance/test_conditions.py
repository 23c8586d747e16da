"""Rules of several conditions, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.numbers import agree
from torch import Tensor

from guidon.errors import BadValue, ShapeMismatch
from guidon.guidance import (
    CFG,
    GIVEN,
    NULL,
    Avoid,
    Branch,
    Conjunction,
    Interval,
    LinearWeight,
    Moment,
    Negative,
    PerpNeg,
    Rule,
    TwoScale,
)
from guidon.guidance.rule import Guided
from guidon.noise import Level, Prediction

HERE = Level(0.5, 0.8, 0.6)
NEGATIVE, PARTIAL = Branch("negative"), Branch("partial")
INSIDE, OUTSIDE = Interval(0.5, 1.0), Interval(0.75, 9.0)  # of 0.6 / 0.8, which is 0.75


def numbers(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def moment(index: int = 0, steps: int = 1, level: Level = HERE) -> Moment:
    return Moment(level, Level(0.4, 0.9, 0.4), index, steps)


def beliefs(level: Level = HERE, x: float = 0.3, **clean: Any) -> dict[Branch, Prediction]:
    """Return beliefs with these clean images (B, 2), by condition; each claims another variance, 0.1, 0.2, ..."""
    told = {}
    for i, (name, rows) in enumerate(clean.items(), start=1):
        x0 = numbers(rows)
        state = torch.full_like(x0, x)
        told[Branch(name.replace("_", "-"))] = Prediction.from_x0(state, x0, level, torch.full_like(x0, i / 10))
    return told


def guided(rule: Rule, told: dict[Branch, Prediction], at: Moment | None = None) -> Guided:
    """Return what a rule makes of the branches that it asks for; they must not contradict the state."""
    at = at or moment()
    result, _ = rule.combine({branch: told[branch] for branch in rule.branches(at, None)}, at, None)
    one = next(iter(told.values()))
    agree(one.level.alpha * result.x0 + one.level.sigma * result.eps, one.x, "x = alpha x0 + sigma eps")
    return result


def check(rule: Rule, told: dict[Branch, Prediction], x0: Any, variance: Any, at: Moment | None = None) -> None:
    result = guided(rule, told, at)
    agree(result.x0, numbers(x0), "clean images")
    assert result.variance_fraction is not None
    agree(result.variance_fraction, numbers(variance).expand_as(result.x0), "variance")


# c = 1, u = 0, n = -1, and c = 5, u = 2, n = 4
NO = beliefs(given=[[1.0, 5.0]], null=[[0.0, 2.0]], negative=[[-1.0, 4.0]])


def test_negative_stands_in_for_null() -> None:
    assert Negative(3.0).branches(moment(), None) == (GIVEN, NEGATIVE)
    assert Negative(0.0).branches(moment(), None) == (NEGATIVE,)
    check(Negative(3.0), NO, [[-1 + 3 * 2, 4 + 3 * 1]], 0.1)


def test_avoid_moves_away_from_the_negative_condition() -> None:
    """7.5 (1 - 0) - 3 (-1 - 0) = 10.5, and 2 + 7.5 (5 - 2) - 3 (4 - 2) = 18.5."""
    check(Avoid(7.5, 3.0), NO, [[10.5, 18.5]], 0.1)
    check(Avoid(1.0, 2.0), NO, [[3.0, 1.0]], 0.1)
    check(Avoid(1.5, 0.5), NO, [[2.0, 5.5]], 0.1)  # 1.5 c - 0.5 n, without null
    check(Avoid(0.0, 0.5), NO, [[0.5, 1.0]], 0.2)  # away from n alone: the variance is that of null


def test_avoid_asks_for_what_counts() -> None:
    assert set(Avoid(7.5, 3.0).branches(moment(), None)) == {GIVEN, NEGATIVE, NULL}
    assert set(Avoid(1.5, 0.5).branches(moment(), None)) == {GIVEN, NEGATIVE}
    assert set(Avoid(0.0, 0.5).branches(moment(), None)) == {NEGATIVE, NULL}
    assert set(Avoid(3.0, 0.0).branches(moment(), None)) == {GIVEN, NULL}
    assert Avoid(1.0, 0.0).branches(moment(), None) == (GIVEN,)
    assert Avoid(0.0, 0.0).branches(moment(), None) == (NULL,)
    check(Avoid(1.0, 0.0), NO, [[1.0, 5.0]], 0.1)
    check(Avoid(0.0, 0.0), NO, [[0.0, 2.0]], 0.2)
    check(Avoid(3.0, 0.0), NO, [[3.0, 11.0]], 0.1)
    with pytest.raises(BadValue, match="push >= 0"):
        Avoid(2.0, -1.0)


def test_avoid_by_image_over_time_and_in_an_interval() -> None:
    three = beliefs(given=[[1.0]] * 3, null=[[0.0]] * 3, negative=[[-1.0]] * 3)
    check(Avoid((7.5, 1.0, 0.0), 3.0), three, [[10.5], [4.0], [3.0]], [[0.1], [0.1], [0.2]])
    check(Avoid((7.5, 0.0, 0.0), 0.0), three, [[7.5], [0.0], [0.0]], [[0.1], [0.2], [0.2]])
    check(Avoid(LinearWeight(2.0, 6.0), 1.0), NO, [[5.0, 12.0]], 0.1, moment(1, 3))
    check(Avoid(7.5, 3.0, INSIDE), NO, [[10.5, 18.5]], 0.1)
    check(Avoid(7.5, 3.0, OUTSIDE), NO, [[1.0, 5.0]], 0.1)
    assert Avoid(7.5, 3.0, OUTSIDE).branches(moment(), None) == (GIVEN,)


MANY = beliefs(
    given=[[5.0]] * 2, null=[[1.0]] * 2, also=[[2.0]] * 2, also_2=[[-1.0]] * 2, also_3=[[11.0]] * 2
)  # over null: 4, 1, -2 and 10


def test_conjunction_adds_every_condition() -> None:
    check(Conjunction((3.0,)), MANY, [[13.0]] * 2, 0.1)
    check(Conjunction((3.0, 2.0)), MANY, [[15.0]] * 2, 0.1)
    check(Conjunction((3.0, 2.0, 0.5)), MANY, [[14.0]] * 2, 0.1)
    check(Conjunction((3.0, 2.0, 0.5, -1.0)), MANY, [[4.0]] * 2, 0.1)
    check(Conjunction((0.0, 2.0, 0.5)), MANY, [[2.0]] * 2, 0.2)
    check(Conjunction((0.0, 1.5, -0.5)), MANY, [[3.5]] * 2, 0.3)  # without null and given
    check(Conjunction((0.5, 0.5)), MANY, [[3.5]] * 2, 0.1)
    check(Conjunction((0.0, 0.0)), MANY, [[1.0]] * 2, 0.2)


def test_conjunction_by_image_and_over_time() -> None:
    check(Conjunction(((3.0, 0.0), 2.0)), MANY, [[15.0], [3.0]], [[0.1], [0.2]])
    check(Conjunction(((3.0, 0.0), (2.0, 1.0))), MANY, [[15.0], [2.0]], [[0.1], [0.3]])  # without null either
    check(Conjunction(((3.0, 0.0), (2.0, 0.0))), MANY, [[15.0], [1.0]], [[0.1], [0.2]])
    check(Conjunction(((0.5, 0.0), (0.5, 1.0))), MANY, [[3.5], [2.0]], [[0.1], [0.3]])
    check(
        Conjunction(((0.5, 0.0, 0.0), (0.5, 1.0, 0.0), (0.0, 0.0, 1.0))),
        beliefs(given=[[5.0]] * 3, null=[[1.0]] * 3, also=[[2.0]] * 3, also_2=[[-1.0]] * 3),
        [[3.5], [2.0], [-1.0]],
        [[0.1], [0.3], [0.4]],
    )
    check(Conjunction(((3.0, 0.5), (2.0, -1.0))), MANY, [[15.0], [2.0]], 0.1)
    check(Conjunction((LinearWeight(1.0, 5.0), 2.0)), MANY, [[15.0]] * 2, 0.1, moment(1, 3))
    with pytest.raises(ShapeMismatch, match="different numbers of images"):
        Conjunction(((1.0, 2.0), (1.0, 2.0, 3.0))).branches(moment(), None)


def test_conjunction_asks_for_what_counts() -> None:
    for weights, names in (
        ((3.0, 2.0, 0.5, -1.0), {"given", "also", "also-2", "also-3", "null"}),
        ((3.0, 0.0, 0.5), {"given", "also-2", "null"}),
        ((0.5, 0.5), {"given", "also"}),
        ((0.7, 0.3), {"given", "also"}),  # 1 - 0.7 - 0.3 is not quite 0
        ((1.0, 0.0), {"given"}),
        ((0.0, 0.0), {"null"}),
        (((0.0, 0.5), 0.0), {"given", "null"}),
        (((0.5, 1.5), (0.5, -0.5)), {"given", "also"}),
    ):
        asked = Conjunction(weights).branches(moment(), None)  # type: ignore[arg-type]
        assert {branch.condition for branch in asked} == names
        assert len(asked) == len(names)
    with pytest.raises(BadValue, match="list of weights"):
        Conjunction(())


# part over null: 2 and 1; given over part: 4 and -2
PARTS = beliefs(given=[[7.0, 4.0]] * 2, null=[[1.0, 5.0]] * 2, partial=[[3.0, 6.0]] * 2)


def test_two_scales_build_on_each_other() -> None:
    check(TwoScale(2.0, 1.5), PARTS, [[12.0, 2.5]] * 2, 0.1)
    check(TwoScale(2.0, 1.0), PARTS, [[11.0, 2.0]] * 2, 0.1)
    check(TwoScale(1.0, 1.5), PARTS, [[8.0, 4.5]] * 2, 0.1)
    check(TwoScale(3.0, 3.0), PARTS, [[19.0, 2.0]] * 2, 0.1)  # cfg
    check(TwoScale(0.0, 3.0), PARTS, [[7.0, 8.0]] * 2, 0.2)
    check(TwoScale((2.0, 0.0), 1.5), PARTS, [[12.0, 2.5], [4.0, 6.5]], [[0.1], [0.2]])
    check(TwoScale((2.0, 0.0), 0.0), PARTS, [[9.0, 1.0], [1.0, 5.0]], [[0.1], [0.2]])
    check(TwoScale(LinearWeight(1.0, 3.0), 1.5), PARTS, [[12.0, 2.5]] * 2, 0.1, moment(1, 3))
    check(TwoScale(2.0, 1.5, INSIDE), PARTS, [[12.0, 2.5]] * 2, 0.1)
    check(TwoScale(2.0, 1.5, OUTSIDE), PARTS, [[7.0, 4.0]] * 2, 0.1)


def test_two_scales_ask_for_what_counts() -> None:
    for rule, asked in (
        (TwoScale(2.0, 1.5), {GIVEN, PARTIAL, NULL}),
        (TwoScale(2.0, 1.0), {GIVEN, PARTIAL}),
        (TwoScale(1.0, 1.5), {GIVEN, PARTIAL, NULL}),
        (TwoScale(3.0, 3.0), {GIVEN, NULL}),
        (TwoScale(0.0, 3.0), {PARTIAL, NULL}),
        (TwoScale(0.0, 1.0), {PARTIAL}),
        (TwoScale(1.0, 1.0), {GIVEN}),
        (TwoScale(0.0, 0.0), {NULL}),
        (TwoScale(2.0, 1.5, OUTSIDE), {GIVEN}),
        (TwoScale(2e-12, 0.0), {GIVEN, PARTIAL, NULL}),
        (TwoScale(1e-12, 0.0), {GIVEN, NULL}),  # no more than rounding
        (TwoScale((2e-12, 1e-12), 0.0), {GIVEN, PARTIAL, NULL}),
        (TwoScale((1e-12, 1e-12), 0.0), {GIVEN, NULL}),
    ):
        assert set(rule.branches(moment(), None)) == asked


# over u = (1, 1) the given difference is (2, 0), the negative ones (1, 3) and (-1, -2): at right angles (0, 3) and (0, -2)
AROUND = beliefs(given=[[3.0, 1.0]] * 2, null=[[1.0, 1.0]] * 2, negative=[[2.0, 4.0]] * 2, negative_2=[[0.0, -1.0]] * 2)


def test_of_a_negative_condition_counts_what_is_at_right_angles() -> None:
    check(PerpNeg(2.0), AROUND, [[5.0, -5.0]] * 2, 0.1)
    check(PerpNeg(2.0, (0.5,)), AROUND, [[5.0, -2.0]] * 2, 0.1)
    check(PerpNeg(2.0, (0.5, 0.25)), AROUND, [[5.0, -1.0]] * 2, 0.1)
    check(PerpNeg(2.0, (0.0, 0.25)), AROUND, [[5.0, 2.0]] * 2, 0.1)
    check(PerpNeg(3.0, (0.0, 0.0)), AROUND, [[7.0, 1.0]] * 2, 0.1)
    check(PerpNeg(1.0, (0.5,)), AROUND, [[3.0, -0.5]] * 2, 0.1)
    check(PerpNeg((2.0, 0.0), (0.5,)), AROUND, [[5.0, -2.0], [1.0, 1.0]], [[0.1], [0.2]])
    check(PerpNeg(LinearWeight(1.0, 3.0), (0.5,)), AROUND, [[5.0, -2.0]] * 2, 0.1, moment(1, 3))
    check(PerpNeg(2.0, (0.5,), INSIDE), AROUND, [[5.0, -2.0]] * 2, 0.1)


def test_each_image_has_an_angle_of_its_own() -> None:
    """The differences (2, 0) and (1, 3), and (3, 3) and (0, 4), which leaves (-2, 2)."""
    told = beliefs(given=[[3.0, 1.0], [3.0, 3.0]], null=[[1.0, 1.0], [0.0, 0.0]], negative=[[2.0, 4.0], [0.0, 4.0]])
    check(PerpNeg(2.0, (0.5,)), told, [[5.0, -2.0], [8.0, 4.0]], 0.1)


def test_perp_neg_asks_for_what_counts() -> None:
    second = Branch("negative-2")
    for rule, asked in (
        (PerpNeg(2.0), (GIVEN, NULL, NEGATIVE)),
        (PerpNeg(2.0, (0.5, 0.25)), (GIVEN, NULL, NEGATIVE, second)),
        (PerpNeg(2.0, (0.0, 1.0, 2.0)), (GIVEN, NULL, second, Branch("negative-3"))),
        (PerpNeg(2.0, ()), (GIVEN, NULL)),
        (PerpNeg(1.0, (0.5,)), (GIVEN, NULL, NEGATIVE)),
        (PerpNeg(1.0, (0.0,)), (GIVEN,)),
        (PerpNeg((1.0, 1.0), ()), (GIVEN,)),
        (PerpNeg(2.0, (0.0,)), (GIVEN, NULL)),
        (PerpNeg(0.0), (NULL,)),
        (PerpNeg((0.0, 0.0)), (NULL,)),
        (PerpNeg(2.0, when=OUTSIDE), (GIVEN,)),
        (PerpNeg(0.0, when=OUTSIDE), (GIVEN,)),
    ):
        assert rule.branches(moment(), None) == asked
    check(PerpNeg(2.0, when=OUTSIDE), AROUND, [[3.0, 1.0]] * 2, 0.1)
    check(PerpNeg(0.0), AROUND, [[1.0, 1.0]] * 2, 0.2)
    check(PerpNeg(1.0, ()), AROUND, [[3.0, 1.0]] * 2, 0.1)


@pytest.mark.parametrize(
    ("level", "x", "clean"),
    [
        (HERE, 0.0, 1.0),  # as long as the clean image is
        (HERE, 0.8, 1.0),  # without noise
        (HERE, 1000.0, 1.0),
        (HERE, 1.0, 1000.0),
        (Level(0.5, 0.01, 1.0), 30.0, 1.0),  # at alpha 0.01 a rounding of x is a hundred of a clean image
        (Level(1.0, 0.0, 1.0), 1.0, 1000.0),  # where x says nothing of the clean image
        (HERE, 1e-6, 1e-6),
        (HERE, 1e6, 1e6),
    ],
)
def test_a_difference_that_is_rounding_has_no_direction(level: Level, x: float, clean: float) -> None:
    """Two branches that agree push nowhere; a difference of 3000 roundings is one, and all but its direction counts."""
    size = clean * 2**0.5 + (x * 2**0.5 / level.alpha if level.alpha else 0.0)
    for roundings, across in ((50, 0.0), (3000, 4.0 * clean)):
        least = roundings * torch.finfo(torch.float64).eps * size
        told = beliefs(
            level, x, given=[[clean + least, clean]], null=[[clean, clean]], negative=[[clean, clean + 4 * clean]]
        )
        result, _ = PerpNeg(2.0, (0.5,)).combine(told, moment(level=level), None)
        agree(result.x0, numbers([[clean, clean - across]]), f"{roundings} roundings", rtol=1e-8, atol=0)


def test_branches_that_agree_are_finite() -> None:
    for value in (0.0, 1.0):
        told = beliefs(HERE, 0.0, given=[[value] * 2], null=[[value] * 2], negative=[[value, 7.0]])
        check(PerpNeg(2.0), told, [[value, value]], 0.1)


@pytest.mark.parametrize("rule", [Avoid(3.0, 0.0), Conjunction((3.0,)), TwoScale(3.0, 3.0), PerpNeg(3.0, ())])
def test_reduces_to_cfg(rule: Rule) -> None:
    want = guided(CFG(3.0), PARTS)
    got = guided(rule, PARTS)
    agree(got.x0, want.x0, "x0")
    agree(got.eps, want.eps, "eps")


def test_conditions_that_must_be_told() -> None:
    for rule, names in (
        (Negative(2.0), {"negative", "main"}),
        (Avoid(2.0), {"null", "negative"}),
        (Conjunction((2.0,)), {"null"}),
        (Conjunction((2.0, 0.0)), {"null", "also"}),
        (Conjunction((2.0, 1.0, 3.0, 4.0)), {"null", "also", "also-2", "also-3"}),
        (TwoScale(2.0), {"null", "partial"}),
        (PerpNeg(2.0, ()), {"null"}),
        (PerpNeg(2.0, (1.0, 0.0, 2.0)), {"null", "negative", "negative-2", "negative-3"}),
    ):
        assert rule.uses() == names


def test_which_images_are_made_without_the_given_condition() -> None:
    """They are made of what a stage that saves evaluations must not invent."""
    for rule, zeros in (
        (Avoid(2.0, 1.0), False),
        (Avoid(0.0, 1.0), True),
        (Avoid(0.0, 0.0), True),
        (Avoid((2.0, 0.0), 0.0), (False, True)),
        (Avoid(0.0, 0.0, OUTSIDE), False),
        (Conjunction((0.0, 2.0)), True),
        (Conjunction((0.0, 0.0)), True),
        (Conjunction(((0.0, 0.0, 2.0), (0.0, 3.0, 0.0))), (True, True, False)),
        (Conjunction(((0.0, 2.0), 0.0)), (True, False)),
        (Conjunction(((0.0, 0.5), 0.5)), (True, False)),
        (TwoScale(0.0, 0.0), True),
        (TwoScale(0.0, 1.5), True),
        (TwoScale((0.0, 2.0), 0.0), (True, False)),
        (PerpNeg((0.0, 2.0)), (True, False)),
        (PerpNeg(0.0, ()), True),
        (PerpNeg(0.0, when=OUTSIDE), False),
    ):
        assert rule.zeros(moment()) == zeros, rule
