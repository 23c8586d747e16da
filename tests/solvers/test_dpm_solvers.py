"""DPM-Solver and DPM-Solver++: exact where a belief is a line in log noise level, equal where they are one method, and their noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from support.drive import drive, guided_by, moments, no_noise
from support.mixtures import Exact, plane, told
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG, Guided, Moment
from guidon.noise import EDM, Cosine, Level, Process
from guidon.noise.grids import Karras
from guidon.solvers import (
    DPM2,
    DPM2Ancestral,
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp2SAncestral,
    DPMpp3M,
    DPMpp3MSDE,
    DPMppSDE,
    DPMSolver2M,
    EulerAncestral,
    Solver,
)

PROCESSES = pytest.mark.parametrize("process", [EDM(), Cosine()], ids=lambda p: type(p).__name__)
UNEVEN = [9.0, 7.5, 4.0, 3.1, 2.0, 0.7, 0.3]


def levels_of(process: Process, taus: list[float] = UNEVEN) -> list[Level]:
    return [process.level_at(tau) for tau in taus]


def clean_is(curve: Callable[[float], float]) -> Callable[[Tensor, Moment], Guided]:
    """Return a belief whose clean image depends on log(alpha / sigma) alone."""

    def believe(x: Tensor, at: Moment) -> Guided:
        x0 = torch.full_like(x, curve(-math.log(at.noise_level)))
        return Guided(x0, (x - at.here.alpha * x0) / at.here.sigma)

    return believe


def gained(length: float, power: int) -> float:
    """Return the integral of e^(u - length) u^power over a step of a length, by hand."""
    one = -math.expm1(-length)
    return (one, length - one, length**2 - 2 * length + 2 * one)[power]


def walk(solver: Solver, levels: list[Level], curve: Callable[[float], float], eta: float = 0.0) -> list[float]:
    """Return what each step adds to (alpha / sigma^(1 + eta)) scaled states beside the decay of the state."""
    states, _ = drive(solver, moments(levels), f64([1.0]), clean_is(curve), lambda: f64([0.0]))
    added = []
    for (a, x), (b, y) in itertools.pairwise(zip(levels, states, strict=True)):
        decay = (b.noise_level / a.noise_level) ** (1 + eta)
        added.append((y / b.alpha - x / a.alpha * decay).item())
    return added


@PROCESSES
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_a_line_is_integrated_exactly_by_the_heun_form(process: Process, eta: float) -> None:
    """dx0/dlambda = 1: over a step the state takes up the integral of (1 + eta) e^((1 + eta) (u - h)) (lambda + u)."""
    levels = levels_of(process)
    got = walk(DPMpp2MSDE(eta, "heun"), levels, lambda log_snr: log_snr, eta)
    for i, (a, b) in list(enumerate(itertools.pairwise(levels)))[1:]:
        begin, length = -math.log(a.noise_level), (1 + eta) * math.log(a.noise_level / b.noise_level)
        want = gained(length, 0) * begin + gained(length, 1) / (1 + eta)
        assert math.isclose(got[i], want, rel_tol=1e-11), i


@PROCESSES
def test_the_midpoint_form_takes_the_slope_at_half_weight(process: Process) -> None:
    levels = levels_of(process)
    got = walk(DPMpp2M(), levels, lambda log_snr: log_snr)
    for i, (a, b) in list(enumerate(itertools.pairwise(levels)))[1:]:
        middle = -math.log(math.sqrt(a.noise_level * b.noise_level))
        assert math.isclose(got[i], (1 - b.noise_level / a.noise_level) * middle, rel_tol=1e-11)


@PROCESSES
@pytest.mark.parametrize("solver", [DPMpp3M(), DPMpp3MSDE(0.0), DPMpp3MSDE(1.0)], ids=str)
def test_a_parabola_loses_half_of_its_curvature(solver: Solver, process: Process) -> None:
    """What the reference codes do: they are exact for x0 = lambda^2 but for half of the last integral."""
    levels, eta = levels_of(process), getattr(solver, "eta", 0.0)
    got = walk(solver, levels, lambda log_snr: log_snr**2, eta)
    for i, (a, b) in list(enumerate(itertools.pairwise(levels)))[2:]:
        begin, length = -math.log(a.noise_level), (1 + eta) * math.log(a.noise_level / b.noise_level)
        parts = [gained(length, power) / (1 + eta) ** power for power in range(3)]
        assert math.isclose(got[i], parts[0] * begin**2 + parts[1] * 2 * begin + parts[2] / 2, rel_tol=1e-10), i


@PROCESSES
def test_dpm_solver_is_exact_for_a_line_of_noise(process: Process) -> None:
    levels = levels_of(process)

    def believe(x: Tensor, at: Moment) -> Guided:
        eps = torch.full_like(x, -math.log(at.noise_level))
        return Guided((x - at.here.sigma * eps) / at.here.alpha, eps)

    for form in ("heun", "midpoint"):
        states, _ = drive(DPMSolver2M(form), moments(levels), f64([0.5]), believe)
        z = [(x / level.alpha).item() for x, level in zip(states, levels, strict=True)]
        for i, (a, b) in list(enumerate(itertools.pairwise(level.noise_level for level in levels)))[1:]:
            exact = -(b * math.log(b) - b) + (a * math.log(a) - a)
            halfway = -(b - a) * math.log(math.sqrt(a * b))
            assert math.isclose(z[i + 1] - z[i], exact if form == "heun" else halfway, rel_tol=1e-11)


def ends_of(solver: Solver, seed: int = 5) -> Tensor:
    levels = Karras(sigma_min=0.05, sigma_max=20.0).levels(Cosine(), 7)
    believe = guided_by(CFG(2.5), Exact(plane()), told([0, 1, 1, 0]))
    noise = (normal(4, 2, seed=seed + i) for i in itertools.count())
    draw = (lambda: next(noise)) if solver.stochastic else no_noise
    return torch.stack(drive(solver, moments(levels), normal(4, 2), believe, draw)[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DPMpp2MSDE(0.0), DPMpp2M()),
        (DPMpp2MSDE(0.0, "heun", "lower"), DPMpp2M("heun", "lower")),
        (DPMpp3MSDE(0.0), DPMpp3M("heun")),
        (DPMppSDE(0.0), DPMpp2SAncestral(0.0)),
        (DPM2Ancestral(0.0), DPM2()),
    ],
    ids=str,
)
def test_one_method_by_two_names(one: Solver, other: Solver) -> None:
    agree(ends_of(one), ends_of(other), "states", rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", [DPMpp2MSDE(), DPMpp3MSDE(), DPMpp2SAncestral(), DPM2Ancestral(0.6)], ids=str)
def test_a_clean_image_that_nobody_doubts(solver: Solver) -> None:
    """Every order takes ancestral Euler's steps."""
    levels, x = Karras(sigma_min=0.05, sigma_max=20.0).levels(Cosine(), 6), normal(3)
    ends = []
    for each in (solver, EulerAncestral(solver.eta)):  # type: ignore[attr-defined]
        noise = (normal(3, seed=seed) for seed in itertools.count())
        states, _ = drive(each, moments(levels), x, clean_is(lambda _: 0.7), lambda n=noise: next(n))
        ends.append(torch.stack(states))
    agree(*ends, "states", rtol=1e-12)


@PROCESSES
@pytest.mark.parametrize("eta", [0.3, 1.0, 2.5])
def test_fresh_noise_of_the_sde_and_what_is_kept_add_up(process: Process, eta: float) -> None:
    for solver in (DPMpp2MSDE(eta), DPMpp3MSDE(eta)):
        for at in moments(levels_of(process)):
            x = at.here.alpha * 0.7 + at.here.sigma * f64([0.0, 1.0, 0.0])
            end = drive(solver, [at], x, clean_is(lambda _: 0.7), lambda: f64([0.0, 0.0, 1.0]))[0][-1]
            kept, fresh = (end[1] - end[0]).item(), (end[2] - end[0]).item()
            ratio = at.there.noise_level / at.noise_level
            assert math.isclose(kept, at.there.sigma * ratio**eta, rel_tol=1e-10)
            assert math.isclose(math.hypot(kept, fresh), at.there.sigma, rel_tol=1e-10)


@pytest.mark.parametrize(("eta", "r"), [(0.0, 0.5), (0.7, 0.5), (1.0, 0.3)])
def test_where_the_second_evaluation_of_dpmpp_sde_is(eta: float, r: float) -> None:
    levels = Karras(sigma_min=0.05, sigma_max=20.0).levels(Cosine(), 5)
    _, asked = drive(DPMppSDE(eta, r), moments(levels), normal(3), clean_is(math.tanh), lambda: normal(3))
    assert [ask.advance for ask in asked] == [True, False] * 4 + [True]
    for first, second in zip(asked[:-1:2], asked[1::2], strict=True):
        want = first.at.noise_level * (first.at.there.noise_level / first.at.noise_level) ** r
        assert math.isclose(second.at.noise_level, want, rel_tol=1e-12)
        assert second.at.began == first.at.here


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_the_middle_of_dpm_2_is_halfway_to_less_noise(eta: float) -> None:
    levels = Karras(sigma_min=0.05, sigma_max=20.0).levels(Cosine(), 5)
    _, asked = drive(DPM2Ancestral(eta), moments(levels), normal(3), clean_is(math.tanh), lambda: normal(3))
    for first, second in itertools.pairwise(asked):
        if not second.advance:
            ratio = first.at.there.noise_level / first.at.noise_level
            down = first.at.there.noise_level * math.sqrt(1 - eta**2 * (1 - ratio**2))
            assert math.isclose(second.at.noise_level, math.sqrt(first.at.noise_level * down), rel_tol=1e-12)


@pytest.mark.parametrize("make", [DPMpp2M, DPMpp3M, DPMSolver2M, lambda **kw: DPMpp2MSDE(0.0, **kw)])
def test_orders_fall_to_the_end(make: Callable[..., Solver]) -> None:
    """With "lower" the last step is Euler's, and of three the one before has two beliefs; the steps before are as ever."""
    levels, x = levels_of(Cosine()), f64([0.3])
    plain, lower = (drive(make(end=end), moments(levels), x, clean_is(math.sin))[0] for end in ("clean", "lower"))
    changed = [i for i, (a, b) in enumerate(zip(plain, lower, strict=True)) if not torch.equal(a, b)]
    assert changed == ([5, 6] if make is DPMpp3M else [6])
    at = moments(levels)[-1]
    euler, _ = drive(make(), [at], lower[-2], clean_is(math.sin))
    agree(lower[-1], euler[-1], "last step", rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DPMpp2M("trapezoid"), "dpmpp-2m takes form midpoint or heun"),
        (lambda: DPMpp3M(end="full"), "dpmpp-3m takes end clean or lower"),
        (lambda: DPMSolver2M("x"), "dpm-solver-2m takes form"),
        (lambda: DPMpp2MSDE(-0.1), "dpmpp-2m-sde needs eta >= 0"),
        (lambda: DPMpp2MSDE(1.0, "x"), "dpmpp-2m-sde takes form"),
        (lambda: DPMpp2MSDE(1.0, end="x"), "dpmpp-2m-sde takes end"),
        (lambda: DPMpp3MSDE(math.nan), "dpmpp-3m-sde needs eta >= 0"),
        (lambda: DPMppSDE(1.1), "dpmpp-sde needs eta in"),
        (lambda: DPMppSDE(r=0.0), "r in"),
        (lambda: DPMppSDE(r=1.1), "r in"),
        (lambda: DPM2Ancestral(math.nan), "dpm-2-ancestral needs eta in"),
    ],
)
def test_bad_values(make: Callable[[], Solver], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        make()
