"""One pull and several, against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.numbers import agree
from torch import Tensor

from guidon.errors import ShapeMismatch
from guidon.guidance import CFG, GIVEN, NULL, Interval, Moment
from guidon.guidance.contrast import Pull, column, everywhere, pulled, those
from guidon.noise import Level, Prediction

HERE = Level(0.5, 0.8, 0.6)
AT = Moment(HERE, Level(0.4, 0.9, 0.4))


def belief(x0: Any, eps: Any, fraction: float | None = None, x: float = 0.0) -> Prediction:
    """Return a belief of these numbers; nothing here needs them to fit together."""
    clean = torch.tensor(x0, dtype=torch.float64)
    claimed = None if fraction is None else torch.full_like(clean, fraction)
    return Prediction(torch.full_like(clean, x), HERE, clean, torch.tensor(eps, dtype=torch.float64), claimed)


def numbers(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


C, U = belief([[3.0, 2.0]], [[-1.0, 7.0]], 0.1), belief([[1.0, 5.0]], [[-2.0, 9.0]], 0.2)
BASE = belief([[10.0, 20.0]], [[5.0, 30.0]], 0.3)


def test_a_pull_goes_from_away_past_given() -> None:
    got = pulled(None, Pull(C, U, 4.0))
    agree(got.x0, numbers([[9.0, -7.0]]), "x0")
    agree(got.eps, numbers([[2.0, 1.0]]), "eps")
    assert got.variance_fraction is C.variance_fraction


def test_a_pull_adds_to_a_base_what_it_adds_to_given() -> None:
    """10 + 3 (3 - 1), and 5 + 3 (-1 + 2)."""
    got = pulled(BASE, Pull(C, U, 4.0))
    agree(got.x0, numbers([[16.0, 11.0]]), "x0")
    agree(got.eps, numbers([[8.0, 24.0]]), "eps")
    assert got.variance_fraction is BASE.variance_fraction
    agree(pulled(C, Pull(C, U, 4.0)).x0, pulled(None, Pull(C, U, 4.0)).x0, "on given")


def test_images_of_weight_0_have_the_variance_of_the_other_branch() -> None:
    c, u = belief([[3.0]] * 2, [[1.0]] * 2, 0.1), belief([[1.0]] * 2, [[2.0]] * 2, 0.2)
    got = pulled(None, Pull(c, u, (0.0, 4.0)))
    agree(got.x0, numbers([[1.0], [9.0]]), "x0")
    agree(got.eps, numbers([[2.0], [-2.0]]), "eps")
    assert got.variance_fraction is not None
    agree(got.variance_fraction, numbers([[0.2], [0.1]]), "variance")
    onto = pulled(c, Pull(c, u, (0.0, 4.0)))
    assert onto.variance_fraction is c.variance_fraction, "what is added has none of its own"
    for one, other in ((c, dataclasses.replace(u, variance_fraction=None)), (belief([[3.0]] * 2, [[1.0]] * 2), u)):
        assert pulled(None, Pull(one, other, (0.0, 4.0))).variance_fraction is one.variance_fraction


def test_asks_one_branch_where_one_is_enough() -> None:
    for weight, asked in (
        (1.0, (GIVEN,)),
        (0.0, (NULL,)),
        (2.0, (GIVEN, NULL)),
        ((1.0, 1.0), (GIVEN,)),
        ((0.0, 0.0), (NULL,)),
        ((0.0, 1.0), (GIVEN, NULL)),
        ((1.0, 2.0), (GIVEN, NULL)),
    ):
        rule = CFG(weight)
        assert rule.branches(AT, None) == asked
        told = {branch: {GIVEN: C, NULL: U}[branch] for branch in asked}
        pull, _ = rule.pull(told, AT, None)
        assert (pull is None) == (asked == (GIVEN,))
        if asked == (NULL,):
            assert pull is not None
            assert pull.given is pull.away is U
        if not isinstance(weight, tuple):
            guided, _ = rule.combine(told, AT, None)
            agree(guided.x0, numbers([[1.0 + 2 * weight, 5.0 - 3 * weight]]), "x0")
            agree(guided.eps, numbers([[-2.0 + weight, 9.0 - 2 * weight]]), "eps")


def test_outside_of_its_interval_a_contrast_is_plain() -> None:
    """The noise level here is 0.75."""
    assert CFG(3.0, Interval(0.5, 1.0)).weight_at(AT) == 3.0
    assert CFG(3.0, Interval(1.0, 2.0)).weight_at(AT) == 1.0
    assert CFG((3.0, 0.0), Interval(1.0, 2.0)).weight_at(AT) == 1.0
    assert CFG(0.0, Interval(1.0, 2.0)).zeros(AT) is False
    assert CFG(0.0).zeros(AT) is True
    assert CFG((0.0, 2.0)).zeros(AT) == (True, False)


def test_weights_of_images() -> None:
    assert everywhere(2.0, 2.0)
    assert everywhere((2.0, 2.0), 2.0)
    assert not everywhere((2.0, 1.0), 2.0)
    assert not everywhere(None, 1.0)
    assert those(2.0, 2.0) is True
    assert those((2.0, 1.0), 2.0) == (True, False)
    assert those(None, 0.0) is False


def test_a_weight_as_a_column() -> None:
    like = torch.zeros(2, 3, 4, dtype=torch.float32)
    assert column(3, like) == 3.0
    for weight in ((1.0, 2.5), torch.tensor([1.0, 2.5], dtype=torch.float64)):
        made = column(weight, like)
        assert isinstance(made, Tensor)
        assert made.shape == (2, 1, 1)
        assert made.dtype == torch.float32
        assert made.flatten().tolist() == [1.0, 2.5]
    assert column((1.0, 2.0), torch.zeros(2)).shape == (2,)  # type: ignore[union-attr]
    with pytest.raises(ShapeMismatch, match="3 weights for 2 images"):
        column((1.0, 2.0, 3.0), like)
