"""The sliced distance: closed forms, and what chance makes of it."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch

from guidon.errors import BadValue
from guidon.lab.distance import apart, chance, exact_draws, sliced_w2
from guidon.lab.plane import mixture


def test_the_distance_of_a_shift_is_its_part_in_a_direction() -> None:
    points = mixture().sample(50, 0, torch.Generator().manual_seed(1))
    shift = torch.tensor([0.3, -0.4], dtype=torch.float64)
    assert math.isclose(sliced_w2(points, points + shift), 0.5 / math.sqrt(2), rel_tol=1e-12)
    assert sliced_w2(points, points.flip(0)) < 1e-15


def test_the_distance_of_another_width_is_that_of_deviations() -> None:
    points = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = points.square().sum(1).mean().sqrt() / math.sqrt(2)  # the mean over directions of (x . way)^2
    assert math.isclose(sliced_w2(points, 2 * points), expected, rel_tol=1e-12)


def test_chance_is_the_mean_of_ten_pairs_and_the_largest() -> None:
    draws = exact_draws(partial(mixture().sample, 100, 0), 3)
    assert torch.equal(draws[2], mixture().sample(100, 0, torch.Generator().manual_seed(5)))
    found = [sliced_w2(a, b) for a, b in itertools.combinations(draws, 2)]
    assert len(found) == 10
    assert chance(draws) == (pytest.approx(sum(found) / 10), max(found))
    assert apart(draws[0], draws) == pytest.approx(sum(found[:4]) / 5)  # and no distance from itself
    with pytest.raises(BadValue, match="two draws"):
        chance(draws[:1])
