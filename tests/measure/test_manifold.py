"""Precision and recall against what can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guidon.errors import BadValue, DataError, ShapeMismatch
from guidon.measure import manifold
from guidon.measure.distances import Picked, joined
from guidon.measure.manifold import precision_recall, radii


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def cloud(n: int, dim: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_a_line_counted_by_hand() -> None:
    # Real balls (k = 1): 0±1, 1±1, 2±1, 10±8. Of the generated 0.5, 3.5, 30 only the last lies in none.
    # Generated balls: 0.5±3, 3.5±3, 30±26.5, reaching from -2.5 to 6.5 and from 3.5 to 56.5: every real point is inside.
    assert precision_recall(points(0, 1, 2, 10), points(0.5, 3.5, 30), k=1) == (pytest.approx(2 / 3), 1.0)
    # The other way round the roles swap.
    assert precision_recall(points(0.5, 3.5, 30), points(0, 1, 2, 10), k=1) == (1.0, pytest.approx(2 / 3))


def test_radius_is_the_distance_to_the_kth_neighbour_squared() -> None:
    torch.testing.assert_close(radii(points(0, 1, 3, 10), 1), torch.tensor([1.0, 1.0, 4.0, 49.0]).double())
    torch.testing.assert_close(radii(points(0, 1, 3, 10), 2), torch.tensor([9.0, 4.0, 9.0, 81.0]).double())


def test_equal_sets_cover_each_other_and_far_sets_do_not_meet() -> None:
    x = cloud(100)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 1000) == (0.0, 0.0)


def test_collapse_keeps_precision_and_loses_recall() -> None:
    real = cloud(200)
    collapsed = real[:1].expand(50, -1)
    assert precision_recall(real, collapsed) == (1.0, pytest.approx(1 / 200))


def test_two_draws_from_one_distribution_score_alike() -> None:
    precision, recall = precision_recall(cloud(600, 4, seed=1), cloud(600, 4, seed=2))
    assert precision > 0.8 and recall > 0.8 and abs(precision - recall) < 0.05


def test_order_of_the_images_and_size_of_the_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = cloud(150, seed=3), cloud(90, seed=4) * 1.2 + 0.3
    whole = precision_recall(real, generated)
    assert 0 < whole[0] < 1 and 0 < whole[1] < 1
    assert precision_recall(real.flip(0), generated[torch.randperm(90)]) == whole
    monkeypatch.setattr(manifold, "_ENTRIES", 400)
    assert precision_recall(real, generated) == whole


def test_far_from_the_origin_equal_points_still_count_as_equal() -> None:
    x = cloud(50) + 1e4
    assert precision_recall(x, x.clone()) == (1.0, 1.0)
    assert precision_recall(x[:1].expand(10, -1), x[:1].expand(10, -1)) == (1.0, 1.0)


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(DataError, match="at least 4"):
        precision_recall(cloud(3), cloud(10))
    with pytest.raises(BadValue, match="at least 1"):
        precision_recall(cloud(10), cloud(10), k=0)
    with pytest.raises(ShapeMismatch, match="one judge"):
        precision_recall(cloud(10, 8), cloud(10, 7))


def test_a_point_lies_in_its_own_ball_even_when_the_ball_is_a_point() -> None:
    x = cloud(300, dim=100).double() * 30
    assert manifold._share_inside(x, x, torch.zeros(300, dtype=torch.float64)) == 1.0
    assert manifold._share_inside(x + 1e-2, x, torch.zeros(300, dtype=torch.float64)) == 0.0


def test_parts_are_joined_in_order_and_picked_vectors_are_those_of_the_array() -> None:
    whole = np.arange(42.0).reshape(14, 3)
    parts = torch.from_numpy(whole).split(4)
    assert torch.equal(joined(iter(parts), 14), torch.from_numpy(whole))
    numbers = np.array([1, 4, 5, 11, 13])
    picked, other = Picked(whole, numbers), torch.from_numpy(whole[:6])
    expected = torch.cdist(torch.from_numpy(whole[numbers]), other).square()
    found = torch.cat([block.clone() for block in manifold.squared_distances(picked, other)])
    torch.testing.assert_close(found, expected)
    found = torch.cat([block.clone() for block in manifold.squared_distances(other, picked)])
    torch.testing.assert_close(found, expected.T.contiguous())
