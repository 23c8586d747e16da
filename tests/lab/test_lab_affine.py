"""Moments followed exactly through finitely many steps: by hand, by Monte Carlo, and the sheet's numbers."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch
from support.mixtures import Exact, told
from support.numbers import agree, f64

from guidon.errors import NotSupported
from guidon.guidance import CFG, Interval, Threshold
from guidon.lab import Gaussian, Gaussians, Pair, propagate
from guidon.lab.endpoints import ode, sde
from guidon.noise import EDM, Cosine, Flow, Level, VPTable
from guidon.noise.grids import Karras, Leading, LogSNR
from guidon.sampling import Engine, Trajectory
from guidon.solvers import DDIM, DDPM, DPMpp2M, DPMpp2SAncestral, Euler, EulerAncestral, Heun, Solver

PAIR = Pair(1.0, 0.5, 0.0, 1.0)
SOLVERS = [Euler(), Heun(), DDIM(0.5), DDPM(), DDPM("large"), DPMpp2M(), DPMpp2SAncestral(), EulerAncestral()]


def along(times: np.ndarray) -> list[Level]:
    return [VPTable().level(float(t)) for t in times]


def test_ddim_of_a_unit_gaussian() -> None:
    """Sheet, section 11: 50 levels to the clean image give variance .927, 1000 give .996; each step is a rotation."""
    for count, printed in ((50, "0.927"), (1000, "0.996")):
        levels = along(np.round(np.linspace(999, -1, count)))
        mean, variance = propagate(DDIM(), CFG(1.0), levels, Pair(0.0, 1.0, 0.0, 1.0), 0.0, 1.0)
        assert f"{variance.item():.3f}" == printed and mean.item() == 0
        turns = [math.atan(a.noise_level) - math.atan(b.noise_level) for a, b in itertools.pairwise(levels)]
        assert math.isclose(variance.item(), math.prod(math.cos(turn) ** 2 for turn in turns), rel_tol=1e-10)


def test_a_step_by_hand() -> None:
    levels, w = [Cosine().level_at(tau) for tau in (2.0, 0.7)], 2.5
    (here, there), eta = levels, 0.6
    mean, variance = propagate(DDIM(eta), CFG(w), levels, PAIR, 0.3, 1.4)
    given, null = (here.alpha**2 * s**2 + here.sigma**2 for s in (PAIR.std, PAIR.std_all))
    eps = here.sigma * np.array([w / given + (1 - w) / null, -w * here.alpha * PAIR.mean / given])  # slope and shift
    fresh = eta * 0.7 / 2.0 * math.sqrt(2.0**2 - 0.7**2) * there.alpha
    kept = math.sqrt(there.sigma**2 - fresh**2)
    step = there.alpha * (np.array([1.0, 0.0]) - here.sigma * eps) / here.alpha + kept * eps
    agree(mean, f64([step[0] * 0.3 + step[1]]), "mean")
    agree(variance, f64([step[0] ** 2 * 1.4 + fresh**2]), "variance")


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow()], ids=str)
def test_monte_carlo(solver: Solver, process: EDM | Cosine | Flow) -> None:
    n, levels = 20000, LogSNR(0.1, 5.0).levels(process, 5)
    start = torch.Generator().manual_seed(1)

    def noise() -> torch.Tensor:
        return torch.randn(n, 1, generator=start, dtype=torch.float64)

    trajectory = Trajectory(0.4 + 2 * noise(), levels, solver, CFG(2.0), told([0] * n), noise)
    ends = Engine({"main": Exact(PAIR)}).run([trajectory])[0]
    mean, variance = propagate(solver, CFG(2.0), levels, PAIR, 0.4, 4.0)
    assert abs(ends.mean() - mean) < 4 * (variance / n).sqrt()
    assert abs(ends.var() / variance - 1) < 4 * math.sqrt(2 / n)


def test_a_thousand_steps_end_near_the_closed_forms_in_seconds() -> None:
    levels, began = Karras(7.0, 1e-3, 300.0).levels(EDM(), 1000), time.process_time()
    for solver, end, error in ((DPMpp2M(), ode(PAIR, 3.0, 300.0), 2e-4), (DDPM(), sde(PAIR, 3.0), 5e-3)):
        mean, variance = propagate(solver, CFG(3.0), levels, PAIR, 0.0, 1 + 300.0**2)
        assert abs(mean.item() - end.mean) < error
        assert abs(math.sqrt(variance.item()) - end.std) < error
    assert time.process_time() - began < 10


def test_axis_by_axis_with_an_interval() -> None:
    members = {label: Gaussian.of(f64([[m, 0.0]]), f64([[s, 1.0]])) for label, m, s in ((0, 1.0, 0.25), (-1, 0.0, 1.0))}
    rule, levels = CFG(3.0, when=Interval(0.3, 4.0)), Leading().levels(VPTable(), 20)
    mean, variance = propagate(DDPM(), rule, levels, Gaussians(members), torch.zeros(1, 2), torch.ones(1, 2))
    for axis, pair in enumerate((PAIR, Pair(0.0, 1.0, 0.0, 1.0))):
        alone = propagate(DDPM(), rule, levels, pair, 0.0, 1.0)
        agree(mean[0, axis], alone[0][0], "mean")
        agree(variance[0, axis], alone[1][0], "variance")


def test_refusals() -> None:
    levels = Leading().levels(VPTable(), 5)
    for pair in (PAIR, Pair(0.0, 0.5, 0.0, 1.0)):  # also where clipping is odd in x
        with pytest.raises(NotSupported, match="not affine"):
            propagate(DDIM(), CFG(3.0) | Threshold(), levels, pair, 0.0, 1.0)
    full = Gaussian.of(f64([0.0, 0.0]), torch.eye(2))
    with pytest.raises(NotSupported, match="number by number"):
        propagate(DDIM(), CFG(1.0), levels, Gaussians({0: full, -1: full}), 0.0, 1.0)
