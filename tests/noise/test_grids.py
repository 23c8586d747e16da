"""Grids of times and noise levels, by the numbers that other libraries give."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support.numbers import agree, f64

from guidon.errors import BadValue, NotSupported
from guidon.noise import EDM, VP, Cosine, Flow, VPTable
from guidon.noise.grids import (
    Beta,
    Exponential,
    Karras,
    Leading,
    Linspace,
    Listed,
    LogSNR,
    Polyexponential,
    Respaced,
    Trailing,
    VPGrid,
    respaced_indices,
)


def times(grid: object, steps: int, process: object = None) -> list[float]:
    return [level.t for level in grid.levels(process or VPTable(), steps)]  # type: ignore[attr-defined]


def noise_levels(grid: object, steps: int, process: object = None) -> torch.Tensor:
    return f64([level.noise_level for level in grid.levels(process or EDM(), steps)])  # type: ignore[attr-defined]


def test_of_tables() -> None:
    assert times(Leading(), 4) == [750, 500, 250, 0, -1]
    assert times(Leading(1), 4) == [751, 501, 251, 1, -1]
    assert times(Leading(), 7) == [852, 710, 568, 426, 284, 142, 0, -1]
    assert times(Trailing(), 4) == [999, 749, 499, 249, -1]
    assert times(Trailing(), 7) == [999, 856, 713, 570, 428, 285, 142, -1]
    assert times(Linspace(), 4) == [999, 666, 333, 0, -1]
    assert times(Linspace(), 3) == [999, 499.5, 0, -1]
    assert times(Linspace(), 2) == [999, 0, -1]
    assert times(Linspace(), 1) == [999, -1] == times(Linspace(whole=True), 1)
    assert times(Respaced(), 3) == [999, 500, 0, -1]
    assert times(Respaced("ddim5"), 1) == [800, 600, 400, 200, 0, -1]
    assert len(times(Respaced("10,15,20"), 1)) == 46
    assert times(Respaced("fast27"), 1)[:3] == [997, 800, 799]  # but for the 997 the sections "10,10,3,2,2"
    assert times(Trailing(), 1000) == [*range(999, -1, -1), -1] == times(Leading(), 1000)


def test_spare_places_are_left_out_at_the_clean_end() -> None:
    assert times(Leading(spare=1), 4) == [800, 600, 400, 200, -1]
    assert times(Leading(1, 2), 3) == [801, 601, 401, -1]
    assert times(Leading(spare=1), 6) == [852, 710, 568, 426, 284, 142, -1]  # the 7 places of leading, but for the 0
    assert times(Linspace(1), 3) == [999, 666, 333, -1]
    assert times(Linspace(1), 1) == [999, -1]
    agree(f64(times(Linspace(1), 2, Flow())), f64([1, 0.5005, 0]), "of flow")


def test_whole_indices_round_half_to_even() -> None:
    assert times(Linspace(whole=True), 7) == [999, 832, 666, 500, 333, 166, 0, -1]  # 832.5, 499.5, 166.5
    assert times(Linspace(1, whole=True), 4) == [999, 749, 500, 250, -1]
    assert times(Linspace(), 7)[1] == 832.5


def test_of_continuous_processes() -> None:
    agree(f64(times(Trailing(), 4, Flow())), f64([1, 0.75, 0.5, 0.25, 0]), "trailing")
    agree(f64(times(Linspace(), 3, Flow())), f64([1, 0.5005, 0.001, 0]), "linspace")
    karras = Karras(rho=7, sigma_min=0.1, sigma_max=10).levels(EDM(), 3)
    middle = ((0.1 ** (1 / 7) + 10 ** (1 / 7)) / 2) ** 7
    agree(f64([level.sigma for level in karras]), f64([10, middle, 0.1, 0]), "karras")
    logs = LogSNR(0.1, 10).levels(Cosine(), 3)
    agree(f64([level.noise_level for level in logs]), f64([10, 1, 0.1, 0]), "log-snr")
    assert Karras().levels(EDM(), 1)[0].sigma == pytest.approx(80.0)


def test_of_noise_levels() -> None:
    agree(noise_levels(Exponential(0.1, 10), 3), f64([10, 1, 0.1, 0]), "exponential", rtol=1e-14)
    assert Exponential().levels(Flow(), 7) == LogSNR().levels(Flow(), 7)
    for rho, middle in ((1, 1.0), (2, 10**-0.5), (0.5, 10 ** (2**0.5 - 1))):
        agree(noise_levels(Polyexponential(rho, 0.1, 10), 3), f64([10, middle, 0.1, 0]), f"rho {rho}", rtol=1e-14)
    arcsine = [10, 0.1 + 0.75 * 9.9, 0.1 + 0.25 * 9.9, 0.1, 0]  # quantiles sin^2(pi u / 2)
    agree(noise_levels(Beta(0.5, 0.5, 0.1, 10), 4), f64(arcsine), "beta(1/2, 1/2)", rtol=1e-12)
    agree(noise_levels(Beta(1, 1, 0.1, 10), 3), f64([10, 5.05, 0.1, 0]), "beta(1, 1)", rtol=1e-14)
    skewed = 0.1 + 9.9 * (1 - 0.5**0.5)  # median of beta(1, 2)
    agree(noise_levels(Beta(1, 2, 0.1, 10), 3)[1], f64(skewed), "beta(1, 2)", rtol=1e-12)
    assert noise_levels(Beta(), 1, VPTable())[0] == pytest.approx(VPTable().noise_level(999.0), rel=1e-14)


def test_of_the_continuous_vp_process_on_any_process() -> None:
    wanted = [math.sqrt(math.expm1(total)) for total in (10.05, 19.9 * 0.28125 + 0.075, 19.9 / 8 + 0.05)]
    for process in (EDM(), Cosine(), Flow(), VPTable()):
        agree(noise_levels(VPGrid(eps_s=0.5), 3, process), f64([*wanted, 0]), f"on {process}", rtol=1e-12)
    agree(noise_levels(VPGrid(), 9), noise_levels(Linspace(), 9, VP()), "vp's own times", rtol=1e-12)
    high, low = (math.sqrt(math.expm1(total)) for total in (9.9 / 2 + 0.2, 9.9 * 0.00005 + 0.002))
    agree(noise_levels(VPGrid(9.9, 0.2, 0.01), 2), f64([high, low, 0]), "beta_d, beta_min, eps_s", rtol=1e-12)


def test_listed_levels_have_their_own_number() -> None:
    agree(noise_levels(Listed((80, 10, 1)), 5), f64([80, 10, 1, 0]), "edm", rtol=1e-15)
    flow = Listed((math.inf, 3, 1)).levels(Flow(), 1)
    agree(f64([level.t for level in flow]), f64([1, 0.75, 0.5, 0]), "flow", rtol=1e-15)


def test_without_signal_at_the_end() -> None:
    zero = VPTable(zero_snr=True)
    assert Trailing().levels(zero, 5)[0].alpha == 0
    for grid in (Karras(), LogSNR(), Exponential(), Polyexponential(), Beta()):  # no even spacing starts at infinity
        assert grid.levels(zero, 5)[0].alpha ** 2 == pytest.approx(2**-24, rel=1e-9)


@pytest.mark.parametrize(
    ("grid", "steps", "process", "error"),
    [
        (Leading(1000), 4, VPTable(), BadValue),
        (Leading(), 1001, VPTable(), BadValue),
        (Leading(), 4, Flow(), NotSupported),
        (Respaced("ddim700"), 1, VPTable(), BadValue),
        (Respaced("many"), 1, VPTable(), BadValue),
        (Respaced("ddim"), 1, VPTable(), BadValue),
        (Respaced("10,,5"), 1, VPTable(), BadValue),
        (Respaced("-5"), 1, VPTable(), BadValue),
        (Respaced("0"), 1, VPTable(), BadValue),
        (Respaced("1001"), 1, VPTable(), BadValue),
        (Respaced("25"), 1, EDM(), NotSupported),
        (Trailing(), 0, VPTable(), BadValue),
        (Trailing(), 1001, VPTable(), BadValue),
        (Karras(sigma_min=3, sigma_max=2), 4, EDM(), BadValue),
        (LogSNR(sigma_min=-1), 4, EDM(), BadValue),
        (Beta(sigma_max=math.inf), 4, EDM(), BadValue),
        (Polyexponential(sigma_min=3, sigma_max=2), 4, EDM(), BadValue),
        (Listed((math.inf, 1)), 2, EDM(), BadValue),
        (Listed((2, 1)), 0, EDM(), BadValue),
        (Leading(spare=1), 1000, VPTable(), BadValue),
        (Linspace(1, whole=True), 1000, VPTable(), BadValue),
        (Linspace(whole=True), 4, Flow(), NotSupported),
    ],
    ids=str,
)
def test_refused(grid: object, steps: int, process: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        grid.levels(process, steps)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Leading(-1), "offset >= 0"),
        (lambda: Leading(spare=-1), "spare >= 0"),
        (lambda: Linspace(-1), "spare >= 0"),
        (lambda: Polyexponential(0), "rho > 0"),
        (lambda: Beta(alpha=0), "alpha > 0"),
        (lambda: Beta(beta=math.nan), "beta > 0"),
        (lambda: VPGrid(eps_s=1), "eps_s < 1"),
        (lambda: VPGrid(beta_min=-0.01), "noise at t_min"),
        (lambda: Listed(()), "less than the one before"),
        (lambda: Listed((1, 1)), "less than the one before"),
        (lambda: Listed((1, 0)), "noise levels > 0"),
    ],
)
def test_values_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        make()


def test_respaced_sections() -> None:
    assert respaced_indices(10, "0,2") == [5, 9]
    assert respaced_indices(10, [2, 3]) == [0, 4, 5, 7, 9]
    assert len(respaced_indices(1000, "fast27")) == 27
    assert respaced_indices(1000, "ddim1000") == list(range(1000))
