"""What experiments on the line share, beside closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from guidon.errors import BadValue
from guidon.lab.endpoints import ode
from guidon.lab.gaussian import Pair
from guidon.lab.line import extrapolated, levels, moments, normal, power, quantiles
from guidon.solvers import DDIM, Heun


def test_a_run_goes_from_much_noise_to_the_clean_image() -> None:
    places = [float(level.noise_level) for level in levels(20)]
    assert places[0] == pytest.approx(1e3) and places[-2] == pytest.approx(1e-3) and places[-1] == 0
    assert len(places) == 21
    ratios = [a / b for a, b in itertools.pairwise(places[:-1])]
    assert ratios == pytest.approx([10 ** (6 / 19)] * 19)


def test_moments_are_those_of_the_closed_form() -> None:
    pair = Pair(1.0, 0.5, 0.0, 1.0)
    mean, variance = moments(Heun(), 2.0, 400, pair)
    assert (mean, math.sqrt(variance)) == pytest.approx((ode(pair, 2.0).mean, ode(pair, 2.0).std), rel=2e-3)
    mean, variance = moments(DDIM(), 3.0, 2000)
    assert mean == 0 and variance == pytest.approx(0.25, rel=0.02)  # 2^(1 - 3)


def test_quantiles_are_even_in_probability() -> None:
    z = quantiles(5)
    assert torch.special.ndtr(z).tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert z.dtype == torch.float64
    with pytest.raises(BadValue, match="at least one quantile"):
        quantiles(0)


def test_a_density_has_its_mean_and_variance() -> None:
    x = torch.linspace(-12, 14, 4001, dtype=torch.float64)
    share = normal(0.8, 0.3875**0.5)(x) * (x[1] - x[0])
    assert float(share.sum()) == pytest.approx(1.0)
    assert float((share * x).sum()) == pytest.approx(0.8)
    assert float((share * (x - 0.8) ** 2).sum()) == pytest.approx(0.3875)


def test_extrapolation_takes_the_error_of_its_order_away() -> None:
    steps = (10, 30, 70)
    for order in (1, 2):
        assert extrapolated(steps, [0.4 + 3 / n**order for n in steps], order) == pytest.approx(0.4)
    assert extrapolated((10,), (0.7,), 1) == 0.7


def test_the_power_is_that_of_the_last_two() -> None:
    assert power((5, 10, 30), (9.0, 8e-3, 1e-3)) == pytest.approx(math.log(8) / math.log(3))
    for errors in ((0.1, 0.0), (0.0, 0.1), (math.inf, 0.1), (0.1, math.nan)):
        assert math.isnan(power((10, 20), errors))
