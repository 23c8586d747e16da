"""The best weight: 1 for exact scores, and the whole table of the reference sheet, section 7, for over-smoothed ones."""

from __future__ import annotations

import math

import pytest

from guidon.errors import BadValue
from guidon.lab import Pair
from guidon.lab.endpoints import Normal, ode, sde
from guidon.lab.optimal import best_weight, best_weight_of_equal_means, best_weight_to_first_order, kl, smoothed, w2

# deviation of the class, smoothing, gap | best by W2, to first order, by KL, by W2 of the SDE
TABLE = [
    (0.5, 0.25, 0.0, "1.1823", "1.1725", "1.1823", "1.241"),
    (0.5, 0.25, 0.5, "1.0957", "1.0915", "1.1253", "1.125"),
    (0.5, 0.25, 1.0, "1.0388", "1.0380", "1.0629", "1.050"),
    (0.3, 0.3, 0.0, "1.3849", "1.3253", "1.3849", "1.681"),
    (0.3, 0.3, 1.0, "1.1290", "1.1162", "1.1885", "1.212"),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_table(row: tuple[float, float, float, str, str, str, str]) -> None:
    std, amount, gap, *printed = row
    truth = Pair(gap, std, 0.0, 1.0)
    believed = smoothed(truth, amount, amount)
    assert f"{best_weight(truth, believed):.4f}" == printed[0]
    assert f"{best_weight_to_first_order(truth, believed):.4f}" == printed[1]
    assert f"{best_weight(truth, believed, kl):.4f}" == printed[2]
    assert f"{best_weight(truth, believed, ends=sde):.3f}" == printed[3]
    assert best_weight(truth, believed, ends=sde) > best_weight(truth, believed)


@pytest.mark.parametrize("gap", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("ends", [ode, sde])
def test_exact_scores_want_no_guidance(gap: float, ends: object) -> None:
    truth = Pair(gap, 0.4, 0.1, 1.2)
    for distance in (w2, kl):
        assert abs(best_weight(truth, truth, distance, ends) - 1) < 1e-6  # type: ignore[arg-type]


@pytest.mark.parametrize(("amount", "amount_all"), [(0.2, 0.2), (0.4, 0.0), (0.1, 0.6)])
def test_equal_means_end_exactly_right(amount: float, amount_all: float) -> None:
    truth = Pair(0.3, 0.5, 0.3, 1.0)
    believed = smoothed(truth, amount, amount_all)
    weight = best_weight_of_equal_means(truth, believed)
    s_c, s = math.hypot(0.5, amount) ** 2, math.hypot(1.0, amount_all) ** 2
    assert math.isclose(weight, 1 + math.log(1 + amount**2 / 0.25) / math.log(s / s_c), rel_tol=1e-12)
    assert math.isclose(ode(believed, weight).std, 0.5, rel_tol=1e-12)
    assert abs(best_weight(truth, believed) - weight) < 1e-6


def test_the_first_order_is_first_order() -> None:
    errors = []
    for amount in (0.1, 0.05):
        truth = Pair(0.8, 0.5, 0.0, 1.0)
        believed = smoothed(truth, amount, amount)
        best = best_weight(truth, believed)
        errors.append(abs(best_weight_to_first_order(truth, believed) - best) / (best - 1))
    assert errors[1] < errors[0] / 3 < 0.02, errors  # relative, in the square of the smoothing


def test_distances_by_hand() -> None:
    a, b = Normal(1.0, 0.5), Normal(0.0, 2.0)
    assert w2(a, b) == 1 + 1.5**2
    assert math.isclose(kl(a, b), math.log(4) + 1.25 / 8 - 0.5)
    assert kl(a, a) == w2(a, a) == 0


def test_refusals() -> None:
    pair = Pair(1.0, 1.0, 0.0, 1.0)
    with pytest.raises(BadValue, match="low to high"):
        best_weight(pair, pair, low=2.0, high=1.0)
    with pytest.raises(BadValue, match="equally wide"):
        best_weight_of_equal_means(pair, pair)
    with pytest.raises(BadValue, match="narrower than all"):
        best_weight_to_first_order(pair, pair)
