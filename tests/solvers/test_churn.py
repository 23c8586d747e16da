"""Churn: how far the noise level is raised, where, with how much noise, and around which solvers."""

from __future__ import annotations

import math

import pytest
import torch
from support.drive import drive, guided_by, moments, no_noise
from support.mixtures import Exact, plane, told
from support.numbers import agree, f64, normal

from guidon.errors import BadValue
from guidon.guidance import CFG, Guided, Moment
from guidon.noise import EDM, VPTable
from guidon.noise.grids import Karras, Trailing
from guidon.solvers import DPM2, LMS, PLMS, Churn, DPMpp2M, Euler, Heun, Rectified, Solver, UniPC

LEVELS = Karras(7.0, 0.02, 20.0).levels(EDM(), 10)


@pytest.mark.parametrize(("amount", "gamma"), [(2.0, 0.2), (4.0, 0.4), (40.0, math.sqrt(2) - 1)])
def test_a_step_starts_from_a_raised_level(amount: float, gamma: float) -> None:
    at, x, z = moments(LEVELS)[4], normal(4, 2), normal(4, 2, seed=7)
    seen: list[tuple[torch.Tensor, Moment]] = []

    def believe(x: torch.Tensor, at: Moment) -> Guided:
        seen.append((x, at))
        return Guided(torch.zeros_like(x), x / at.noise_level)

    (_, end), _ = drive(Churn(Euler(), amount, noise=1.25), [at], x, believe, lambda: z)
    (state, asked), tau = seen[0], at.noise_level
    assert asked.noise_level == pytest.approx(tau * (1 + gamma), rel=1e-12)
    agree(state, x + 1.25 * math.sqrt((1 + gamma) ** 2 - 1) * tau * z, "state")
    agree(end, state * (at.there.noise_level / asked.noise_level), "end")  # Euler from there


def test_both_ends_of_the_range_are_in_it() -> None:
    steps, drawn = moments(LEVELS), []
    believe = guided_by(CFG(2.0), Exact(plane()), told([0, 1, 1, 0]))
    low, high = steps[6].noise_level, steps[2].noise_level

    def noise() -> torch.Tensor:
        drawn.append(1)
        return normal(4, 2)

    drive(Churn(Heun(), low=low, high=high), steps, 20 * normal(4, 2), believe, noise)
    assert len(drawn) == 5
    states = [
        drive(solver, steps, 20 * normal(4, 2), believe, no_noise)[0][-1]
        for solver in (Churn(Heun(), low=50.0, high=60.0), Heun())
    ]
    assert torch.equal(*states)  # nothing happens outside


def test_the_state_keeps_the_distribution_of_its_level() -> None:
    """x = alpha x0 + sigma eps becomes the same at the raised level, on a process that scales the image."""
    process = VPTable()
    here, there = process.level_at(1.5), process.level_at(1.0)
    variance, found = 0.7, {}

    def believe(x: torch.Tensor, at: Moment) -> Guided:
        found.setdefault("level", at.here)
        found.setdefault("x", x)
        return Guided(x, x)

    start = f64([here.alpha, 0.0, 0.0])  # what comes of the image; of the noise so far; of the fresh noise
    start[1] = here.sigma
    drive(Churn(Euler(), noise=1.0), [Moment(here, there, 3, 20)], start, believe, lambda: f64([0.0, 0.0, 1.0]))
    level, (image, old, fresh) = found["level"], found["x"].tolist()
    assert image == pytest.approx(level.alpha, rel=1e-9)
    assert math.hypot(old, fresh) == pytest.approx(level.sigma, rel=1e-9)
    total = variance * image**2 + old**2 + fresh**2
    assert total == pytest.approx(variance * level.alpha**2 + level.sigma**2, rel=1e-9)


def test_a_level_without_signal_cannot_be_raised() -> None:
    levels = Trailing().levels(VPTable(zero_snr=True), 4)
    believe = guided_by(CFG(2.0), Exact(plane()), told([0, 1, 1, 0]))
    drawn: list[int] = []

    def noise() -> torch.Tensor:
        drawn.append(1)
        return normal(4, 2)

    states, _ = drive(Churn(low=0.0, high=math.inf), moments(levels), normal(4, 2), believe, noise)
    assert torch.isfinite(torch.stack(states)).all()
    assert len(drawn) == 3


@pytest.mark.parametrize("solver", [DPMpp2M(), LMS(), UniPC(), PLMS(), Rectified()], ids=str)
def test_solvers_with_memory_are_refused(solver: Solver) -> None:
    with pytest.raises(BadValue, match="take heun, euler or dpm-2"):
        Churn(solver)


def test_its_values_are_checked() -> None:
    assert Churn(DPM2()).evaluations == 2
    with pytest.raises(BadValue, match="a solver such as Heun"):
        Churn("heun")  # type: ignore[arg-type]
    for wrong in ({"amount": 0.0}, {"low": -1.0}, {"low": 2.0, "high": 2.0}, {"noise": 0.0}):
        with pytest.raises(BadValue, match="churn needs"):
            Churn(**wrong)  # type: ignore[arg-type]
