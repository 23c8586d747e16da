"""Law 4: solvers reach the exact endpoint at their order, and Gaussians end where the closed forms say."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from support.drive import drive, guided_by, moments, sample
from support.examples import solvers
from support.mixtures import Exact, Pair, plane, told
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.guidance import CFG, Guided, Moment
from guidon.noise import EDM, Cosine, Flow, Level, Process, VPTable
from guidon.noise.grids import Karras, LogSNR
from guidon.solvers import DDIM, DDPM, Euler, Heun, Solver

DETERMINISTIC = [solver for solver in solvers() if not solver.stochastic]
STOCHASTIC = [solver for solver in solvers() if solver.stochastic and solver.order > 0]
POINTS, LABELS = 16, [0, 1] * 8
NOISIEST, LEAST = 20.0, 0.02


def between(process: Process, steps: int) -> list[Level]:
    """Return levels from noise level 20 to 0.02 whose steps are short at both ends.

    There multistep solvers are of lower orders, for want of a past or to end well; what is measured is the order between.
    """
    ramp = np.linspace(0, 1, steps + 1)
    return [process.level_at(NOISIEST * (LEAST / NOISIEST) ** share) for share in ramp**2 * (3 - 2 * ramp)]


def run(process: Process, solver: Solver, weight: float, steps: int) -> Tensor:
    levels = between(process, steps)
    x = levels[0].alpha * NOISIEST * normal(POINTS, 2)
    return sample(Exact(plane()), levels, solver, CFG(weight), x, told(LABELS)) / levels[-1].alpha


@functools.cache
def endpoint(weight: float) -> Tensor:
    """Return the exact endpoint x / alpha, the same for every process: dz/dtau = eps by a method of order 8."""
    believe = guided_by(CFG(weight), Exact(plane()), told(LABELS))

    def slope(tau: float, z: NDArray[np.float64]) -> NDArray[np.float64]:
        level = EDM().level(tau)
        return believe(torch.from_numpy(z).reshape(POINTS, 2), Moment(level, level)).eps.flatten().numpy()

    start = NOISIEST * normal(POINTS, 2).flatten().numpy()
    found = solve_ivp(slope, (NOISIEST, LEAST), start, method="DOP853", rtol=1e-11, atol=1e-12)
    return torch.from_numpy(found.y[:, -1]).reshape(POINTS, 2)


@pytest.mark.parametrize(("process", "weight"), [(EDM(), 3.0), (Cosine(), 1.0)], ids=["edm-3", "cosine-1"])
@pytest.mark.parametrize("solver", DETERMINISTIC, ids=str)
def test_order(process: Process, solver: Solver, weight: float) -> None:
    ladder = (
        (192, 384) if solver.order < 3 else (384, 768)
    )  # multiples of 6: blocks of two and three steps come out even
    away = [(run(process, solver, weight, n) - endpoint(weight)).norm(dim=1) for n in ladder]
    coarse, fine = (errors.log().mean().exp().item() for errors in away)  # as robust as the median, and smoother
    assert abs(math.log2(coarse / fine) - solver.order) < 0.15, (coarse, fine)
    assert fine < (0.02, 1e-3, 1e-5, 1e-6)[solver.order - 1], (coarse, fine)


# Closed forms: p(x|c) = N(mean, std^2), p(x) = N(mean_all, std_all^2), guided by the ODE. Means and deviations of the
# endpoint are read off three runs, for the map from start to end is affine.


def affine(steps: int, weight: float, pair: Pair, top: float, bottom: float = 1e-4) -> tuple[float, float]:
    """Return mean and standard deviation of the endpoint of the guided ODE from N(0, 1 + top^2) at noise level top."""
    levels = [*Karras(7.0, bottom, top).levels(EDM(), steps)]
    start = f64([[0.0], [math.hypot(1, top)]])
    ends = sample(Exact(pair), levels, Heun(), CFG(weight), start, told([0, 0]))
    return ends[0].item(), (ends[1] - ends[0]).item()


def closed(weight: float, mean: float, std: float, mean_all: float, std_all: float, top: float) -> tuple[float, float]:
    """Return the same in closed form, with the integral by quadrature in log(c + u)."""

    def phi(tau: float) -> float:
        return (std**2 + tau**2) ** (weight / 2) * (std_all**2 + tau**2) ** ((1 - weight) / 2)

    ratio, low = phi(0.0) / phi(top), std**2 / 10
    y = np.linspace(math.log(low), math.log(low + top**2), 400001)
    u = np.exp(y) - low
    integrand = (std_all**2 + u) ** (-(3 - weight) / 2) * (std**2 + u) ** (-weight / 2) * (u + low)
    integral = float(np.sum((integrand[1:] + integrand[:-1]) / 2 * np.diff(y)))
    shift = 0.5 * (weight - 1) * (mean - mean_all) * phi(0.0) * integral
    return mean - mean * ratio + shift, ratio * math.hypot(1, top)


@pytest.mark.parametrize("weight", [1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("gaussians", [(1.0, 0.5, 0.0, 1.0), (0.7, 0.3, -0.2, 0.9), (1.0, 0.6, 0.0, 0.6)])
def test_guided_gaussians_end_at_the_closed_form(weight: float, gaussians: tuple[float, ...]) -> None:
    coarse, fine = (affine(n, weight, Pair(*gaussians), 100.0) for n in (300, 600))
    stated = closed(weight, *gaussians, 100.0)
    for c, f, want in zip(coarse, fine, stated, strict=True):
        assert math.isclose(f + (f - c) / 3, want, rel_tol=2e-4, abs_tol=2e-5), (coarse, fine, stated)


def test_guided_gaussians_from_infinite_noise() -> None:
    """The limits of the sheet, section 7: w = 3, w = 2, and equal spreads."""
    mean, std, mean_all, std_all = 1.0, 0.5, 0.0, 1.0
    r, gap = std / std_all, mean - mean_all
    for weight, limit in (
        (3.0, mean + 2 * r**2 * gap),
        (2.0, mean + gap * r**2 / math.sqrt(1 - r**2) * math.acosh(1 / r)),
    ):
        got_mean, got_std = closed(weight, mean, std, mean_all, std_all, 1e5)
        assert math.isclose(got_mean, limit, rel_tol=1e-4)
        assert math.isclose(got_std, std_all * r**weight, rel_tol=1e-4)
    got_mean, got_std = affine(600, 3.0, Pair(mean, std, mean_all, std_all), 100.0)
    assert math.isclose(got_mean, 1.49625, abs_tol=2e-4)
    assert math.isclose(got_std, 0.12501, abs_tol=2e-4)
    got_mean, got_std = affine(600, 2.5, Pair(1.0, 0.7, 0.2, 0.7), 100.0)
    assert math.isclose(got_mean, 1.0 + 1.5 * 0.8, rel_tol=0.02)
    assert math.isclose(got_std, 0.7, rel_tol=2e-3)


@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow(), VPTable(), VPTable("cosine")], ids=str)
def test_ddim_with_all_noise_fresh_is_ddpm(process: Process) -> None:
    levels, x = LogSNR(0.02, 20.0).levels(process, 9), normal(4, 2)
    believe = guided_by(CFG(2.5), Exact(plane()), told([0, 1, 1, 0]))
    for at in moments(levels):
        ddim, ddpm = (drive(s, [at], x, believe, lambda: normal(4, 2, seed=9))[0][-1] for s in (DDIM(1.0), DDPM()))
        agree(ddim, ddpm, f"step {at.index}")
        x = ddpm


@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow(), VPTable()], ids=str)
def test_ddim_without_noise_is_euler(process: Process) -> None:
    levels, x = LogSNR(0.02, 20.0).levels(process, 9), normal(4, 2)
    ends = [sample(Exact(plane()), levels, solver, CFG(2.5), x, told([0, 1, 1, 0])) for solver in (DDIM(), Euler())]
    assert torch.equal(*ends)


@pytest.mark.parametrize("solver", STOCHASTIC, ids=str)
@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow()], ids=lambda p: type(p).__name__)
def test_stochastic_solvers_converge_in_distribution(process: Process, solver: Solver) -> None:
    """Mean and variance of a Gaussian, propagated exactly through the affine steps, reach those of the data."""
    target, std = -0.4, 0.6
    errors = []
    for steps in (200, 400):
        levels = LogSNR(0.01, 100.0).levels(process, steps + 1)[:-1]
        mean, deviation = spread(solver, levels, target, std)
        want = target * levels[-1].alpha, math.hypot(std * levels[-1].alpha, levels[-1].sigma)
        errors.append((abs(mean - want[0]), abs(deviation - want[1])))
    for coarse, fine in zip(*errors, strict=True):
        assert fine < 0.02
        assert fine < 0.6 * coarse + 1e-9, errors


def spread(solver: Solver, levels: Sequence[Level], target: float, std: float) -> tuple[float, float]:
    """Return mean and standard deviation of the end of a run with an exact denoiser of N(target, std^2).

    The end is affine in the start and in every draw of noise: one row runs from the mean without noise, and each other with one
    standard deviation of one of them.
    """

    def believe(x: Tensor, at: Moment) -> Guided:
        alpha, sigma = at.here.alpha, at.here.sigma
        pull = (x - alpha * target) / (alpha**2 * std**2 + sigma**2)
        return Guided(target + alpha * std**2 * pull, sigma * pull, torch.full_like(x, 0.5))

    drawn = itertools.count()
    drive(solver, moments(levels), f64([0.0]), believe, lambda: f64([float(next(drawn))]))
    rows = 2 + next(drawn)
    start = torch.full((rows,), target * levels[0].alpha, dtype=torch.float64)
    start[1] += math.hypot(std * levels[0].alpha, levels[0].sigma)
    units = iter(torch.eye(rows, dtype=torch.float64)[2:])
    end = drive(solver, moments(levels), start, believe, lambda: next(units))[0][-1]
    return end[0].item(), (end[1:] - end[0]).norm().item()
