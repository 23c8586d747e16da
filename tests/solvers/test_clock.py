"""Steps in the time of another process: the formula, which clocks make no difference, and which there are not."""

from __future__ import annotations

import math

import pytest
import torch
from support.drive import drive, moments, sample
from support.mixtures import Exact, plane, told
from support.numbers import agree, f64, normal

from guidon.errors import BadValue
from guidon.guidance import CFG, CFGpp, Guided
from guidon.noise import EDM, Cosine, Flow, Level, Process, VPTable
from guidon.noise.grids import LogSNR, Trailing
from guidon.noise.sde import VE, VP
from guidon.solvers import Euler, Heun
from guidon.solvers.clock import slope

LEVELS = LogSNR(0.05, 10.0).levels(EDM(), 6)[:-1]


@pytest.mark.parametrize(
    ("clock", "t", "alpha", "sigma"),
    [
        (EDM(), 2.0, 0.0, 1.0),
        (Flow(), 0.3, -1.0, 1.0),
        (Cosine(), 0.4, -math.pi / 2 * math.sin(0.2 * math.pi), math.pi / 2 * math.cos(0.2 * math.pi)),
        (VE(), 4.0, 0.0, 0.25),
    ],
    ids=str,
)
def test_slopes(clock: Process, t: float, alpha: float, sigma: float) -> None:
    """dx/dt = alpha'(t) x0 + sigma'(t) eps, by derivatives taken by hand."""
    x0, eps = normal(3, 2), normal(3, 2, seed=5)
    agree(slope(Guided(x0, eps), clock, t), alpha * x0 + sigma * eps, "dx/dt", rtol=1e-12)


@pytest.mark.parametrize("process", [EDM(), Cosine(), VP()], ids=str)
def test_an_euler_step_of_the_variance_preserving_sde(process: Process) -> None:
    """x + (t' - t) (alpha' x0 + sigma' eps) at the scale of VP, and back at the scale of the run's own process."""
    clock = VP()
    here, there = process.level_at(1.3), process.level_at(0.8)
    now, later = clock.level_at(1.3), clock.level_at(0.8)
    x0, eps = f64([0.4]), f64([-1.1])
    rate = -(clock.beta_min + clock.beta_d * now.t) / 2  # of log alpha
    moved = x0 * rate * now.alpha + eps * (-rate * now.alpha**2 / now.sigma)
    want = (now.alpha * x0 + now.sigma * eps + (later.t - now.t) * moved) / later.alpha * there.alpha
    (_, end), _ = drive(
        Euler(clock), moments([here, there]), here.alpha * x0 + here.sigma * eps, lambda x, at: Guided(x0, eps)
    )
    agree(end, want, "state", rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 0.8, 1.0])
def test_heun_is_exact_where_noise_is_linear_in_noise_level(alpha: float) -> None:
    """dz/dtau = tau, wherever along the step the second slope is taken; without a process only at its end."""
    levels = [EDM().level(tau) if alpha < 1 else Level(tau, 1.0, tau) for tau in (3.0, 1.5, 1.0)]
    states, asked = drive(
        Heun(alpha), moments(levels), f64([0.2]), lambda x, at: Guided(x - at.noise_level**2, 0 * x + at.noise_level)
    )
    agree(torch.cat(states), f64([0.2, 0.2 + (1.5**2 - 9) / 2, 0.2 + (1 - 9) / 2]), "states", rtol=1e-12)
    agree(f64([ask.at.noise_level for ask in asked]), f64([3, 3 - 1.5 * alpha, 1.5, 1.5 - 0.5 * alpha]), "asked")
    agree(asked[1].x, states[0] - 1.5 * alpha * 3, "where the second slope is taken")


def test_in_the_time_of_flow_euler_is_the_same() -> None:
    """Straight lines of (alpha x0, sigma eps) are straight in flow time too, so only the second slope of Heun differs."""
    x = 10 * normal(4, 2)
    plain, flow = (
        sample(Exact(plane()), LEVELS, solver, CFG(2.0), x, told([0, 1, 1, 0])) for solver in (Euler(), Euler(Flow()))
    )
    agree(flow, plain, "ends", rtol=1e-10)
    plain, flow = (
        sample(Exact(plane()), LEVELS, solver, CFG(2.0), x, told([0, 1, 1, 0]))
        for solver in (Heun(), Heun(clock=Flow()))
    )
    assert (plain - flow).abs().max() > 1e-3


def test_the_noise_level_is_the_time_of_edm() -> None:
    x = 10 * normal(4, 2)
    for solver, same in ((Heun(), Heun(clock=EDM())), (Heun(0.6), Heun(0.6, EDM())), (Euler(), Euler(EDM()))):
        ends = [sample(Exact(plane()), LEVELS, s, CFG(2.0), x, told([0, 1, 1, 0])) for s in (solver, same)]
        agree(ends[1], ends[0], str(same), rtol=1e-10)


@pytest.mark.parametrize("clock", [EDM(), VE(), Flow(), Cosine(), VP()], ids=str)
def test_under_cfgpp_a_step_starts_from_the_guided_clean_image(clock: Process) -> None:
    """The state is of two beliefs there; straight lines of both are the same under flow and without a clock."""
    network, x, labels = Exact(plane()), 3 * normal(4, 2), [0, 1, 1, 0]
    ends = {}
    for weight in (0.0, 0.6):
        for solver in (Euler(), Euler(clock)):
            ends[weight, solver.clock] = sample(network, LEVELS, solver, CFGpp(weight), x, told(labels))
    assert (ends[0.6, clock] - ends[0.0, clock]).abs().max() > 0.1
    if isinstance(clock, Flow | EDM):
        agree(ends[0.6, clock], ends[0.6, None], "ends", rtol=1e-9)


@pytest.mark.parametrize("clock", [EDM(), VE(), VP(beta_d=5.0)], ids=str)
def test_a_clock_without_the_first_level_steps_in_noise_level_there(clock: Process) -> None:
    levels = Trailing().levels(VPTable(zero_snr=True), 6)
    for solver, plain in ((Euler(clock), Euler()), (Heun(clock=clock), Heun())):
        first, want = (
            sample(Exact(plane()), levels[:2], s, CFG(2.0), normal(4, 2), told([0, 1, 1, 0])) for s in (solver, plain)
        )
        agree(first, want, str(solver))


def test_a_flow_can_start_without_signal() -> None:
    levels = [Flow().level(t) for t in (1.0, 0.7, 0.3)]
    end = sample(Exact(plane()), levels, Heun(clock=Flow()), CFG(2.0), normal(4, 2), told([0, 1, 1, 0]))
    assert torch.isfinite(end).all()


def test_what_is_no_clock_is_refused() -> None:
    for make in (lambda: Euler(VPTable()), lambda: Heun(clock=VPTable("cosine"))):
        with pytest.raises(BadValue, match="continuous process"):
            make()
    with pytest.raises(BadValue, match="such as Flow"):
        Euler("flow")  # type: ignore[arg-type]
    for alpha in (0.0, 1.5, -1.0):
        with pytest.raises(BadValue, match="alpha"):
            Heun(alpha)
