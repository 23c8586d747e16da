"""Moments, questions, and whose belief a result is measured by."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from support.numbers import agree
from torch import Tensor

from guidon.guidance import CFG, GIVEN, NULL, Branch, Guided, Moment, Negative, PerpNeg
from guidon.guidance.rule import but_for
from guidon.noise import Level, Prediction
from guidon.perturbation import Corruption, Perturbation

HERE, THERE = Level(0.5, 0.8, 0.6), Level(0.4, 0.9, 0.4)


def numbers(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def belief(x0: Any, eps: Any, fraction: float | None = None) -> Prediction:
    """Return a belief of these numbers; nothing here needs them to fit together."""
    clean = numbers(x0)
    claimed = None if fraction is None else torch.full_like(clean, fraction)
    return Prediction(torch.full_like(clean, 0.5), HERE, clean, numbers(eps), claimed)


def test_where_a_run_is() -> None:
    at = Moment(HERE, THERE, 3, 5)
    assert (at.t, at.s) == (0.5, 0.4)
    assert at.noise_level == 0.6 / 0.8
    assert [Moment(HERE, THERE, i, 5).progress for i in range(5)] == [0, 0.2, 0.4, 0.6, 0.8]
    assert [Moment(HERE, THERE, i, 5).ramp for i in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert [Moment(HERE, THERE, i, 2).ramp for i in range(2)] == [0, 1]
    assert (Moment(HERE, THERE).progress, Moment(HERE, THERE).ramp) == (0, 0)


def test_a_question_without_what_changes_from_step_to_step() -> None:
    blur = Corruption(0.5, 0.1)
    noises = [Perturbation("time-noise", None, amount, seed) for amount, seed in ((0.5, 3), (0.7, 4))]
    first, second = (Branch("given", perturbation=noise) for noise in noises)
    assert first != second
    assert first.plain == second.plain != GIVEN
    assert Branch("given", corruption=blur).plain == GIVEN
    for branch in (NULL, Branch("given", "weak"), Branch("given", inner=True), Branch("given", gradient=True)):
        assert branch.plain == branch
    near, far = (Branch("given", perturbation=Perturbation("query-blur", None, amount)) for amount in (1.0, 9.0))
    assert (near.plain, far.plain) == (near, far)


def test_a_prediction_as_it_is() -> None:
    told = belief([[1.0]], [[2.0]], 0.3)
    plain = Guided.plain(told)
    assert plain.x0 is told.x0
    assert plain.eps is told.eps
    assert plain.variance_fraction is told.variance_fraction
    assert plain.noise_x0 is plain.drift is plain.given is None


def test_whose_belief_a_result_is_measured_by() -> None:
    """The given one's, but for images in which it has no part."""
    negative = Branch("negative")
    told = {b: belief([[v]] * 2, [[-v]] * 2) for b, v in ((GIVEN, 1.0), (NULL, 2.0), (negative, 3.0))}
    at = Moment(HERE, THERE)
    for rule, values in (
        (CFG(3.0), [1, 1]),
        (CFG(0.0), [2, 2]),
        (CFG((0.0, 3.0)), [2, 1]),
        (Negative((3.0, 0.0)), [1, 3]),
        (PerpNeg((3.0, 0.0)), [1, 2]),
        (PerpNeg(0.0), [2, 2]),
    ):
        measure = rule.measure({b: told[b] for b in rule.branches(at, None)}, at)
        assert measure.x0[:, 0].tolist() == values
        assert measure.eps[:, 0].tolist() == [-value for value in values]


def test_another_belief_for_some_images() -> None:
    usual = belief([[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]], 0.1)
    other = belief([[-1.0, -2.0], [-3.0, -4.0]], [[-5.0, -6.0], [-7.0, -8.0]], 0.2)
    assert but_for(False, other, usual) is usual
    assert but_for(True, other, usual) is other
    assert but_for((False, False), other, usual) is usual
    mixed = but_for((False, True), other, usual)
    agree(mixed.x0, numbers([[1.0, 2.0], [-3.0, -4.0]]), "x0")
    agree(mixed.eps, numbers([[5.0, 6.0], [-7.0, -8.0]]), "eps")
    assert mixed.variance_fraction is not None
    agree(mixed.variance_fraction, numbers([[0.1, 0.1], [0.2, 0.2]]), "variance")
    unsure = dataclasses.replace(other, variance_fraction=None)
    assert but_for((False, True), unsure, usual).variance_fraction is usual.variance_fraction
    assert but_for((False, True), usual, unsure).variance_fraction is None
    images = [belief([[[[v]] * 3]] * 2, [[[[v]] * 3]] * 2) for v in (1.0, 2.0)]  # (2, 1, 3, 1)
    agree(but_for((True, False), *images).x0[:, 0, 0, 0], numbers([1.0, 2.0]), "images")
