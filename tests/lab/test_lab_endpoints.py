"""Closed forms of the ends of guided Gaussians: every printed digit of the reference sheet, sections 5 and 7, and the limits."""

from __future__ import annotations

import itertools
import math

import pytest
from scipy.integrate import solve_ivp

from guidon.errors import BadValue
from guidon.lab import Pair
from guidon.lab.endpoints import COUNTEREXAMPLE, counterexample, ode, powered, sde

PAIRS = [Pair(1.0, 0.5, 0.0, 1.0), Pair(0.7, 0.3, -0.2, 0.9), Pair(-0.4, 1.3, 0.3, 0.8), Pair(1.0, 0.6, 0.2, 0.6)]
PRINTED = {2: (0.6667, 0.5833, 0.5), 3: (0.5, 0.3875, 0.25), 5: (0.3333, 0.2218, 0.0625), 7: (0.25, 0.1538, 0.0156)}


def close(got: float, want: float, error: float = 1e-8) -> None:
    assert math.isclose(got, want, rel_tol=error, abs_tol=error), (got, want)


@pytest.mark.parametrize("weight", PRINTED)
def test_counterexample_1(weight: float) -> None:
    assert tuple(float(f"{value:.4f}") for value in counterexample(weight)) == PRINTED[weight]
    ends = [end(COUNTEREXAMPLE, weight) for end in (powered, sde, ode)]
    for end, variance in zip(ends, counterexample(weight), strict=True):
        close(end.variance, variance, 1e-12)
        assert end.mean == 0


def test_the_printed_example_at_both_starts() -> None:
    pair = Pair(1.0, 0.5, 0.0, 1.0)
    assert (ode(pair, 3.0).mean, ode(pair, 3.0).std) == (pytest.approx(1.5, abs=1e-12), 0.125)
    assert (round(ode(pair, 3.0, 100.0).mean, 5), round(ode(pair, 3.0, 100.0).std, 5)) == (1.49625, 0.12501)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_special_weights(pair: Pair) -> None:
    r, gap = pair.ratio, pair.gap
    close(ode(pair, 3.0).mean, pair.mean + 2 * r**2 * gap)
    if r < 1:
        root = math.sqrt(1 - r**2)
        close(ode(pair, 2.0).mean, pair.mean + gap * r**2 / root * math.log((1 + root) / r))
    if r == 1:
        for weight, end in itertools.product((0.0, 1.7, 4.0), (ode, sde)):
            close(end(pair, weight).mean, pair.mean + (weight - 1) * gap)
            close(end(pair, weight).std, pair.std)
    for end in (ode, sde, powered):
        close(end(pair, 1.0).mean, pair.mean)
        close(end(pair, 1.0).std, pair.std)
        close(end(pair, 0.0).mean, pair.mean_all)
        close(end(pair, 0.0).std, pair.std_all)


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.5, 7.5])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_ode_against_an_integrator(pair: Pair, weight: float) -> None:
    def slope(tau: float, z: list[float]) -> list[float]:
        return [
            tau * (weight * (one - pair.mean) / (pair.std**2 + tau**2) + (1 - weight) * (one - pair.mean_all) / (pair.std_all**2 + tau**2))
            for one in z
        ]  # fmt: skip

    ends = solve_ivp(slope, (100.0, 0.0), [0.0, math.hypot(1, 100)], method="DOP853", rtol=1e-11, atol=1e-11).y[:, -1]
    close(ode(pair, weight, 100.0).mean, ends[0])
    close(ode(pair, weight, 100.0).std, ends[1] - ends[0])


@pytest.mark.parametrize("weight", [0.3, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_sde_against_its_moment_equations(pair: Pair, weight: float) -> None:
    """In u = tau^2: dm/du = pull(m), dV/du = 2 pull' V - 1, from far enough that the start is forgotten."""

    def slope(y: float, state: list[float]) -> list[float]:  # in log u
        u = math.exp(y)
        given, null = weight / (pair.std**2 + u), (1 - weight) / (pair.std_all**2 + u)
        pull = given * (state[0] - pair.mean) + null * (state[0] - pair.mean_all)
        return [u * pull, u * (2 * (given + null) * state[1] - 1)]

    top = math.log(1e10)
    end = solve_ivp(slope, (top, -30.0), [0.0, 1e10], method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    close(sde(pair, weight).mean, end[0], 1e-6)
    close(sde(pair, weight).variance, end[1], 1e-6)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_far_start_is_forgotten(pair: Pair) -> None:
    for weight in (0.0, 0.6, 2.0, 3.0, 5.0):
        close(ode(pair, weight, 1e7).mean, ode(pair, weight).mean, 1e-5)
        close(ode(pair, weight, 1e7).std, ode(pair, weight).std, 1e-5)


def test_strong_guidance_ends_in_a_point_from_above() -> None:
    pair = Pair(1.0, 0.5, 0.0, 1.0)
    limit = pair.mean + pair.gap * pair.ratio**2 / (1 - pair.ratio**2)
    close(sde(pair, 200.0).mean, limit)
    assert limit < ode(pair, 200.0).mean < ode(pair, 20.0).mean < limit + 0.05
    assert ode(pair, 200.0).std < 1e-8


def test_nearly_equal_spreads_are_no_harder() -> None:
    for end, weight in itertools.product((ode, sde), (0.5, 2.0, 4.0)):
        equal, nearly = end(Pair(1.0, 1.0, 0.0, 1.0), weight), end(Pair(1.0, 1.0 + 1e-9, 0.0, 1.0), weight)
        close(nearly.mean, equal.mean)
        close(nearly.std, equal.std)


def test_refusals() -> None:
    with pytest.raises(BadValue, match="no finite integral"):
        powered(Pair(0.0, 2.0, 0.0, 1.0), 3.0)
    with pytest.raises(BadValue, match="noise level > 0"):
        ode(PAIRS[0], 2.0, 0.0)
