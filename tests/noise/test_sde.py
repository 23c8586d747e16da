"""The processes of Song et al. by the numbers of their equations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support.numbers import agree, f64

from guidon.errors import BadValue
from guidon.noise import EDM, VE, VP, VPTable


def test_vp_by_its_integral() -> None:
    """alpha^2 = exp(-integral of the rate beta_min + beta_d t)."""
    for beta_min, beta_d in ((0.1, 19.9), (0.3, 5.0)):
        process = VP(beta_min, beta_d)
        fine = torch.linspace(0, 0.6, 6001, dtype=torch.float64)
        total = torch.trapezoid(beta_min + beta_d * fine, fine).item()
        level = process.level(0.6)
        assert level.alpha**2 == pytest.approx(math.exp(-total), rel=1e-12)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1, rel=1e-15)
        assert process.time_at(math.sqrt(math.expm1(total))) == pytest.approx(0.6, rel=1e-12)
    assert VP().level(1.0).noise_level == pytest.approx(math.sqrt(math.expm1(10.05)), rel=1e-12)
    assert VP().time_at(math.inf) == 1.0


def test_vp_is_what_the_linear_table_discretises() -> None:
    """The product of 1 - beta_i / n over n entries against the exponential of the integral: they meet as 1 / n."""
    process, gaps = VP(), []
    for size in (1000, 2000, 4000):
        table = VPTable("linear", size, beta_start=0.1 / size, beta_end=20 / size)
        ratio = math.log(process.noise_level(0.5)) - math.log(table.noise_level(size / 2 - 1))
        gaps.append(abs(ratio))
    assert gaps[0] < 0.01
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.02) == gaps[1] / gaps[2]


@pytest.mark.parametrize("noise_level", [1e-12, 1e-6, 0.999999, 1.000001, 1e3, 1e200])
def test_vp_keeps_its_digits_at_both_ends(noise_level: float) -> None:
    t = VP().time_at(noise_level)
    total = 0.1 * t + 19.9 * t**2 / 2
    wanted = math.log1p(noise_level**2) if noise_level < 2 else math.log1p(noise_level**-2) + 2 * math.log(noise_level)
    assert total == pytest.approx(wanted, rel=1e-11, abs=0)
    if 1e-3 < t < 1:
        level = VP().level_at(noise_level)
        assert level.noise_level == pytest.approx(noise_level, rel=1e-14)
        assert level.alpha == pytest.approx(math.exp(-wanted / 2), rel=1e-13)


def test_vp_of_a_fitted_range_may_begin_below_no_noise() -> None:
    process = VP(beta_min=-0.002, beta_d=19.9)
    for t in (1e-3, 0.02, 0.5, 1.0):
        tau = process.noise_level(t)
        assert tau == pytest.approx(math.sqrt(math.expm1(t * (19.9 * t / 2 - 0.002))), rel=1e-12)
        assert process.time_at(tau) == pytest.approx(t, rel=1e-11)
    assert VP(beta_min=0).time_at(0.0) == 0
    assert process.level_at(0.0).sigma == 0


def test_vp_trains_at_uniform_times() -> None:
    agree(VP().quantile(f64([0, 0.5, 1])), f64([1e-3, 0.5005, 1]), "times", rtol=1e-14)
    assert VP(t_min=0.1).t_min == 0.1
    assert VP().clock(0.25) == 250
    assert VP().start_scale(VP().level(1.0)) == 1


def test_ve_is_edm_in_its_variance() -> None:
    process, edm = VE(0.02, 100), EDM()
    assert (process.t_min, process.t_max) == pytest.approx((4e-4, 1e4), rel=1e-14)
    for sigma in (0.02, 1.0, 7.0, 100.0):
        level = process.level(sigma**2)
        assert (level.alpha, level.sigma) == (1.0, pytest.approx(sigma, rel=1e-14))
        assert process.time_at(sigma) == sigma**2
        assert process.level_at(sigma).alpha == 1
        assert process.clock(level.t) == pytest.approx(edm.clock(sigma), abs=1e-9)
        assert process.start_scale(level) == level.sigma


def test_ve_trains_at_noise_levels_uniform_in_their_logarithm() -> None:
    times = VE(0.01, 100).quantile(f64([0, 0.25, 0.5, 1]))
    agree(times.sqrt(), f64([0.01, 0.1, 1, 100]), "noise levels", rtol=1e-13)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: VP(beta_min=-0.01), "noise at t_min"),
        (lambda: VP(beta_d=-1), "beta_d > 0"),
        (lambda: VP(t_min=0), "0 < t_min < 1"),
        (lambda: VP(t_min=1), "0 < t_min < 1"),
        (lambda: VE(0, 1), "0 < sigma_min < sigma_max"),
        (lambda: VE(2, 1), "0 < sigma_min < sigma_max"),
    ],
)
def test_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        make()
