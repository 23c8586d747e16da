"""Singlestep DPM-Solvers: their blocks, their order, and what they are by other names."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from support.blocks import fast_levels
from support.drive import drive, guided_by, moments, sample
from support.mixtures import Exact, plane, told
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG, Guided, Moment
from guidon.noise import EDM, Cosine, Flow
from guidon.noise.grids import Karras, Listed, LogSNR
from guidon.registry import parse, to_text
from guidon.solvers import DPMFast, DPMpp2SAncestral, DPMppSinglestep, Euler, Heun, Solver
from guidon.solvers.singlestep import block

LABELS = [0, 1] * 12


@pytest.mark.parametrize(
    ("steps", "longest", "lower", "orders"),
    [
        (9, 3, True, "123 123 12 1"),
        (10, 3, True, "123 123 123 1"),
        (11, 3, True, "123 123 123 12"),
        (9, 3, False, "123 123 123"),
        (11, 3, False, "123 123 123 12"),
        (6, 2, True, "12 12 1 1"),
        (7, 2, True, "12 12 12 1"),
        (6, 2, False, "12 12 12"),
        (3, 1, True, "1 1 1"),
        (3, 3, True, "12 1"),
        (2, 3, True, "12"),
        (1, 3, True, "1"),
    ],
)
def test_blocks(steps: int, longest: int, lower: bool, orders: str) -> None:
    stated = [(int(order) - 1, len(part)) for part in orders.split() for order in part]
    assert [block(i, steps, longest, lower) for i in range(steps)] == stated


def run(solver: Solver, levels: list[float]) -> Tensor:
    points = [EDM().level(tau) for tau in levels]
    return sample(Exact(plane()), points, solver, CFG(2.0), levels[0] * normal(24, 2), told(LABELS))


def karras(steps: int) -> list[float]:
    return [level.sigma for level in Karras(7.0, 0.02, 20.0).levels(EDM(), steps + 1)[:-1]]


@functools.cache
def endpoint() -> Tensor:
    coarse, fine = run(Heun(), karras(512)), run(Heun(), karras(1024))
    return fine + (fine - coarse) / 3


def order_of(solver: Solver, levels: list[list[float]]) -> float:
    """Return the order of convergence between two runs."""
    errors = [(run(solver, each) - endpoint()).norm(dim=1).median().item() for each in levels]
    return math.log(errors[0] / errors[1]) / math.log(len(levels[1]) / len(levels[0]))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_order(order: int) -> None:
    levels = [[level.sigma for level in LogSNR(0.02, 20.0).levels(EDM(), n + 1)[:-1]] for n in (60, 120)]
    assert abs(order_of(DPMppSinglestep(order, "full"), levels) - order) < 0.15


def test_order_of_dpm_fast() -> None:
    """Three where the last block is of two steps, though one step of order 1 at the end leaves two in the limit."""
    assert abs(order_of(DPMFast(), [fast_levels(n, 0.02, 20.0) for n in (62, 122)]) - 3) < 0.3
    assert order_of(DPMFast(), [fast_levels(n, 0.02, 20.0) for n in (60, 120)]) > DPMFast.order


@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow()], ids=str)
def test_two_steps_through_the_middle_are_2s(process: EDM | Cosine | Flow) -> None:
    ends = LogSNR(0.02, 20.0).levels(process, 6)[:-1]
    both = LogSNR(0.02, 20.0).levels(process, 11)[:-1]
    x, believe = ends[0].sigma * normal(4, 2), guided_by(CFG(2.5), Exact(plane()), told([0, 1, 1, 0]))
    got, _ = drive(DPMppSinglestep(2, "full"), moments(both), x, believe)
    want, _ = drive(DPMpp2SAncestral(eta=0.0), moments(ends), x, believe)
    agree(torch.stack(got[::2]), torch.stack(want), "every other state")
    euler, _ = drive(Euler(), moments(both), x, believe)
    agree(got[1], euler[1], "the first state of a block")
    agree(sample(Exact(plane()), both, DPMppSinglestep(1), CFG(2.5), x, told([0, 1, 1, 0])), euler[-1], "order 1")


@pytest.mark.parametrize("solver", [DPMppSinglestep(3, "full"), DPMFast()], ids=str)
def test_third_steps_follow_a_straight_line_exactly(solver: Solver) -> None:
    """A belief linear in log noise level, whatever the state: third steps, and of dpm-fast second ones, go where the integral says."""
    taus = [9.0, 6.0, 3.5, 3.0, 1.4, 0.9, 0.3]  # blocks of three, however long their steps
    levels = [*Listed(tuple(taus)).levels(Cosine(), 7)[:-1], Cosine().level_at(0.1)]

    def believe(x: Tensor, at: Moment) -> Guided:
        value = torch.full_like(x, 0.4 - 0.7 * math.log(at.noise_level))
        if isinstance(solver, DPMFast):
            return Guided((x - at.here.sigma * value) / at.here.alpha, value)
        return Guided(value, (x - at.here.alpha * value) / at.here.sigma)

    states, _ = drive(solver, moments(levels), f64([0.3, -2.0]), believe)
    ends = [(0, 3), (3, 6)] + ([(0, 2), (3, 5)] if isinstance(solver, DPMFast) else [])
    for i, j in ends:
        here, there = levels[i], levels[j]
        a, b = math.log(here.noise_level), math.log(there.noise_level)
        if isinstance(solver, DPMFast):  # d(x / alpha)/du = e^u (p + q u), u = log tau
            integral = (0.4 - 0.7 * (b - 1)) * math.exp(b) - (0.4 - 0.7 * (a - 1)) * math.exp(a)
            want = there.alpha * (states[i] / here.alpha + integral)
        else:  # d(x / sigma)/du = -e^-u (p + q u)
            integral = (0.4 - 0.7 * (b + 1)) * math.exp(-b) - (0.4 - 0.7 * (a + 1)) * math.exp(-a)
            want = there.sigma * (states[i] / here.sigma + integral)
        agree(states[j], want, f"from {i} to {j}")


def test_levels_of_dpm_fast() -> None:
    for n, strides in ((9, "3 3 2 1"), (10, "3 3 3 1"), (11, "3 3 3 2")):
        logs = [math.log(tau) for tau in fast_levels(n, 0.05, 18.0)]
        stride, at = (logs[-1] - logs[0]) / len(strides.split()), 0
        for cut in (int(cut) for cut in strides.split()):
            assert all(math.isclose(logs[at + j + 1] - logs[at + j], stride / cut) for j in range(cut))
            at += cut
        assert at == n == len(logs) - 1


def test_values() -> None:
    solver = DPMppSinglestep(3, "full")
    assert parse("solver", to_text(solver)) == solver
    for wrong in ({"order": 4}, {"order": 0}, {"end": "clean"}):
        with pytest.raises(BadValue, match=next(iter(wrong))):
            DPMppSinglestep(**wrong)  # type: ignore[arg-type]
