"""Adams-Bashforth solvers: exact on the polynomials that they integrate, lower orders at both ends, memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.drive import Believe, drive, moments
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import Guided, Moment
from guidon.noise import EDM, Cosine, Process, VPTable
from guidon.noise.grids import Trailing
from guidon.solvers import DEIS, LMS, PLMS, Euler, Solver
from guidon.solvers.adams import integrals

EXPLODING = EDM()
UNEVEN = [9.0, 7.5, 4.0, 3.1, 2.0, 0.7, 0.3]


def noise_is(curve: Callable[[float], float]) -> Believe:
    """Return a belief whose noise depends on the noise level alone, so that dz/dtau = curve(tau) is solved by hand."""

    def believe(x: Tensor, at: Moment) -> Guided:
        eps = torch.full_like(x, curve(at.noise_level))
        return Guided((x - at.here.sigma * eps) / at.here.alpha, eps)

    return believe


def path(
    solver: Solver, taus: list[float], curve: Callable[[float], float], process: Process = EXPLODING
) -> list[float]:
    """Return z = x / alpha at every noise level, from 0."""
    levels = [process.level_at(tau) if tau else process.clean for tau in taus]
    states, _ = drive(solver, moments(levels), f64([0.0]), noise_is(curve))
    return [(x / level.alpha).item() for x, level in zip(states, levels, strict=True)]


@pytest.mark.parametrize("process", [EDM(), Cosine()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_is_exact_on_polynomials_in_noise_level(order: int, process: Process) -> None:
    z = path(LMS(order), UNEVEN, lambda tau: tau ** (order - 1), process)
    for i in range(order - 1, len(UNEVEN) - 1):  # once there are as many beliefs
        want = (UNEVEN[i + 1] ** order - UNEVEN[i] ** order) / order
        assert math.isclose(z[i + 1] - z[i], want, rel_tol=1e-11)
    if order > 1:
        assert not math.isclose(z[1], (UNEVEN[1] ** order - UNEVEN[0] ** order) / order, rel_tol=1e-3)


def in_log(tau: float, power: int) -> float:
    """Return an antiderivative in tau of log(tau)^power."""
    log = math.log(tau)
    return tau * (1, log - 1, log**2 - 2 * log + 2)[power]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_exact_on_polynomials_in_log_noise_level(order: int) -> None:
    z = path(DEIS(order), UNEVEN, lambda tau: math.log(tau) ** (order - 1), Cosine())
    for i in range(order - 1, len(UNEVEN) - 1):
        want = in_log(UNEVEN[i + 1], order - 1) - in_log(UNEVEN[i], order - 1)
        assert math.isclose(z[i + 1] - z[i], want, rel_tol=1e-11)


def test_weights_of_equal_steps_are_those_of_the_textbook() -> None:
    known = {2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
    for order, want in known.items():
        got = integrals([-float(i) for i in range(order)], 0.0, 1.0, np.ones_like)
        agree(f64(got), f64(want), f"order {order}", rtol=1e-13)


def test_plms_is_exact_on_polynomials_where_steps_are_equal() -> None:
    taus = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]
    for power, first in ((1, 0), (2, 2), (3, 3)):  # Heun, two, three and four beliefs
        z = path(PLMS(), taus, lambda tau, p=power: tau**p)  # type: ignore[misc]
        for i in range(first, len(taus) - 1):
            want = (taus[i + 1] ** (power + 1) - taus[i] ** (power + 1)) / (power + 1)
            assert math.isclose(z[i + 1] - z[i], want, rel_tol=1e-12), (power, i)


def test_plms_begins_with_heun() -> None:
    levels = [EDM().level(tau) for tau in (3.0, 2.0, 1.0)]
    _, asked = drive(PLMS(), moments(levels), f64([1.0]), noise_is(lambda tau: tau))
    assert [(ask.at.noise_level, ask.advance) for ask in asked] == [(3.0, True), (2.0, False), (2.0, True)]
    assert asked[1].at.began == levels[0]


def test_the_last_step_of_lms() -> None:
    """To the clean image it returns what is believed, or integrates through: a cubic noise then leaves nothing over."""
    taus = [*UNEVEN, 0.0]
    cubic = {through: path(LMS(4, through), taus, lambda tau: tau**3) for through in (False, True)}
    assert cubic[True][:-1] == cubic[False][:-1]
    assert math.isclose(cubic[True][-1] - cubic[True][-2], -(0.3**4) / 4, rel_tol=1e-11)
    assert math.isclose(cubic[False][-1] - cubic[False][-2], -(0.3**4), rel_tol=1e-11)


def test_the_orders_of_deis_fall_to_the_end() -> None:
    ends = {end: path(DEIS(3, end), UNEVEN, math.sin) for end in ("clean", "lower")}
    assert ends["clean"][:-2] == ends["lower"][:-2]
    assert ends["clean"][-2] != ends["lower"][-2]
    here, there = UNEVEN[-2:]
    assert math.isclose(ends["lower"][-1] - ends["lower"][-2], (there - here) * math.sin(here), rel_tol=1e-12)
    second, here, there = UNEVEN[-4:-1]
    slope = (math.sin(here) - math.sin(second)) / math.log(here / second)
    want = (math.sin(here) - slope * math.log(here)) * (there - here) + slope * (in_log(there, 1) - in_log(here, 1))
    assert math.isclose(ends["lower"][-2] - ends["lower"][-3], want, rel_tol=1e-11)


@pytest.mark.parametrize("solver", [LMS(4), DEIS(3), PLMS()], ids=str)
def test_a_level_without_signal_is_not_remembered(solver: Solver) -> None:
    levels = Trailing().levels(VPTable(zero_snr=True), 8)
    assert math.isinf(levels[0].noise_level)
    x = normal(3, 2)

    def believe(x: Tensor, at: Moment) -> Guided:
        return Guided(torch.tanh(x) + at.noise_level if at.here.alpha else 100 * x, torch.cos(x))

    whole, _ = drive(solver, moments(levels), x, believe)
    first, _ = drive(Euler(), moments(levels)[:1], x, believe)
    steps = [Moment(a, b, i, 8) for i, (a, b) in enumerate(itertools.pairwise(levels[1:]), start=1)]
    rest, _ = drive(solver, steps, first[-1], believe)
    agree(torch.stack(whole[1:]), torch.stack(rest), "states", rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LMS(0), "orders 1 to 4"),
        (lambda: LMS(5), "orders 1 to 4"),
        (lambda: DEIS(0), "orders 1 to 3"),
        (lambda: DEIS(4), "orders 1 to 3"),
        (lambda: DEIS(2, "full"), "deis takes end clean or lower"),
    ],
)
def test_bad_orders_and_ends(make: Callable[[], Solver], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        make()


def test_solvers_remember() -> None:
    assert all(solver.remembers for solver in (LMS(), DEIS(), PLMS()))
