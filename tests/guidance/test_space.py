"""Sums over an image, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from support.beliefs import LEVEL, believing
from support.numbers import agree
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.space import along, check_space, deviation, dot, length, rescaled, view
from guidon.noise.prediction import SPACES


def numbers(rows: object, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(rows, dtype=dtype)


def test_views_are_those_of_the_prediction() -> None:
    raw = numbers([[1.0, -2.0]])
    for space in SPACES:
        check_space(space)
        agree(view(believing(raw, space), space), raw, space)
    told = believing(raw)
    agree(view(told, "velocity"), told.eps - told.x0, "velocity")
    agree(view(told, "score"), -told.eps / LEVEL.sigma, "score")
    with pytest.raises(BadValue, match="no space 'pixels'"):
        check_space("pixels")


def test_inner_products_and_lengths() -> None:
    a, b = numbers([[3.0, 4.0], [0.0, 0.5]]), numbers([[2.0, -1.0], [7.0, 6.0]])
    agree(dot(a, b), numbers([[2.0], [3.0]]), "dot")
    agree(length(a), numbers([[5.0], [0.5]]), "length")
    cube = numbers([[[3.0, 1.0], [4.0, 2.0]]])  # (1, 2, 2)
    agree(length(cube), numbers([[[30**0.5]]]), "all of an image")
    agree(length(cube, (1,)), numbers([[[5.0, 5**0.5]]]), "over rows")
    agree(length(cube, (-1,)), numbers([[[10**0.5], [20**0.5]]]), "over columns")


def test_the_part_along_another() -> None:
    a, b = numbers([[1.0, 3.0], [2.0, 2.0], [5.0, 1.0]]), numbers([[2.0, 0.0], [0.0, -4.0], [0.0, 0.0]])
    agree(along(a, b), numbers([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), "along")
    agree(along(numbers([[1.0, 2.0]]), numbers([[3.0, 4.0]])), numbers([[11 * 3 / 25, 11 * 4 / 25]]), "3 4 5")


def test_deviation_is_unbiased() -> None:
    """Of 1, 2, 3, 6 the squares from the mean, 3, sum to 14."""
    agree(deviation(numbers([[[1.0, 2.0], [3.0, 6.0]]])), numbers([[[(14 / 3) ** 0.5]]]), "four")
    agree(deviation(numbers([[1.0, 5.0], [2.0, 2.0]])), numbers([[8**0.5], [0.0]]), "two")


def test_rescaling_moves_the_deviation() -> None:
    guided, given = numbers([[1.0, 5.0]]), numbers([[3.0, 4.0]])  # four times as far apart
    for mix, factor in ((0.0, 1.0), (0.5, 0.625), (1.0, 0.25)):
        agree(rescaled(guided, given, mix), factor * guided, f"mix {mix}")
    three = numbers([[1.0, 5.0, 6.0]])
    agree(rescaled(three, three / 2 + 9, 1.0), three / 2, "three numbers")


def test_rescaling_means_the_same_at_every_size() -> None:
    guided, given = numbers([[1.0, 5.0]]), numbers([[3.0, 4.0]])
    for scale in (1e-100, 1e-20, 1e20, 1e100):
        agree(rescaled(scale * guided, scale * given, 1.0), scale * guided / 4, f"times {scale}", rtol=1e-9, atol=0)


def test_what_has_no_deviation_stays() -> None:
    one = numbers([[3.0]])
    assert torch.equal(rescaled(one, one + 4, 1.0), one)
    flat, varied, nothing = numbers([[5.0, 5.0]]), numbers([[1.0, 5.0]]), numbers([[0.0, 0.0]])
    assert torch.equal(rescaled(flat, varied, 1.0), flat)
    assert torch.equal(rescaled(nothing, varied, 1.0), nothing)
    assert torch.equal(rescaled(nothing, nothing, 1.0), nothing)
    assert torch.equal(rescaled(varied, flat, 1.0), nothing)
