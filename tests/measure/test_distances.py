"""The Fréchet distance against closed forms, and statistics that do not depend on how the images were cut up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch

from guidon.errors import DataError, NumericalError, ShapeMismatch
from guidon.measure.distances import FeatureStatistics, frechet_distance


def gaussian(mean: list[float], covariance: torch.Tensor, n: int = 1000) -> FeatureStatistics:
    return FeatureStatistics(n, torch.tensor(mean, dtype=torch.float64), covariance.double() * (n - 1))


def random_covariance(dim: int, rank: int, seed: int) -> torch.Tensor:
    factor = torch.randn(dim, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T


def test_one_dimension_is_the_squared_distance_of_means_and_deviations() -> None:
    a, b = gaussian([1.0], torch.tensor([[4.0]])), gaussian([4.0], torch.tensor([[25.0]]))
    assert frechet_distance(a, b) == pytest.approx((1 - 4) ** 2 + (2 - 5) ** 2)


def test_commuting_covariances_compare_axis_by_axis() -> None:
    turn, _ = torch.linalg.qr(random_covariance(3, 3, seed=1))
    a = gaussian([0, 0, 0], turn @ torch.diag(torch.tensor([1.0, 4.0, 9.0]).double()) @ turn.T)
    b = gaussian([0, 0, 2], turn @ torch.diag(torch.tensor([16.0, 4.0, 0.0]).double()) @ turn.T)
    assert frechet_distance(a, b) == pytest.approx(4 + (1 - 4) ** 2 + 0 + (3 - 0) ** 2)


@pytest.mark.parametrize("rank", [6, 3])
def test_general_covariances_agree_with_the_textbook_square_root(rank: int) -> None:
    first, second = random_covariance(6, rank, seed=2), random_covariance(6, 6, seed=3)
    root = np.real(scipy.linalg.sqrtm((first @ second).numpy() + 0j))
    expected = 6 + float(first.trace() + second.trace()) - 2 * float(np.trace(root))
    distance = frechet_distance(gaussian([1.0] * 6, first), gaussian([0.0] * 6, second))
    assert distance == pytest.approx(expected, rel=1e-6)


def test_drawn_samples_come_close_to_the_known_distance() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(20_000, 4, generator=generator)
    y = torch.randn(20_000, 4, generator=generator) * 2 + 1
    assert frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y)) == pytest.approx(4 + 4, rel=0.03)


def test_a_set_is_at_distance_zero_from_itself_and_distance_is_symmetric() -> None:
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(5))  # fewer vectors than dimensions
    y = x[:30] * 1.5
    a, b = FeatureStatistics.of(x), FeatureStatistics.of(y)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, b) > 1


def test_moving_both_sets_alike_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(6)
    x, y = torch.randn(50, 5, generator=generator).double(), torch.randn(60, 5, generator=generator).double() * 2
    turn, _ = torch.linalg.qr(random_covariance(5, 5, seed=7))
    still = frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y))
    moved = frechet_distance(FeatureStatistics.of(x @ turn + 100), FeatureStatistics.of(y @ turn + 100))
    assert moved == pytest.approx(still, rel=1e-9)


@pytest.mark.parametrize(("cuts", "seed"), [([], 0), ([1], 1), ([199], 2), ([100], 3), ([1, 2, 3, 50, 51, 198], 4)])
def test_statistics_of_parts_in_any_order_are_those_of_the_whole(cuts: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, generator=generator) * 3 + 50
    shuffled = x[torch.randperm(200, generator=generator)]
    edges = [0, *cuts, 200]
    parts = [shuffled[a:b] for a, b in itertools.pairwise(edges)]
    whole, merged = FeatureStatistics.of(x), FeatureStatistics.of_parts(parts)
    assert merged.n == 200
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-9, atol=1e-9)


def test_covariance_is_the_unbiased_one() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    torch.testing.assert_close(FeatureStatistics.of(x).covariance, torch.cov(x.T))


def test_what_cannot_be_compared_is_refused() -> None:
    one = FeatureStatistics.of(torch.ones(1, 3))
    with pytest.raises(DataError, match="at least two"):
        frechet_distance(one, one)
    with pytest.raises(ShapeMismatch, match="3 and of 4"):
        frechet_distance(FeatureStatistics.of(torch.rand(5, 3)), FeatureStatistics.of(torch.rand(5, 4)))
    with pytest.raises(ShapeMismatch, match="4 and of 3"):
        FeatureStatistics.of(torch.rand(5, 4)).merge(one)
    with pytest.raises(NumericalError, match="1 of 5"):
        FeatureStatistics.of(torch.rand(5, 3).index_fill(0, torch.tensor([2]), float("nan")))
    with pytest.raises(ShapeMismatch):
        FeatureStatistics.of(torch.rand(0, 3))
    with pytest.raises(DataError, match="no features"):
        FeatureStatistics.of_parts([])
