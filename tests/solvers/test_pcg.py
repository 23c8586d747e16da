"""Langevin steps, and predictor-corrector guidance: the drift identity, stationary variances, counts."""

from __future__ import annotations

import math

import pytest
import torch
from support.mixtures import Exact, Pair, plane, told
from support.numbers import agree, normal
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG, Branch
from guidon.guidance.rule import GIVEN, NULL, Moment
from guidon.lab.affine import propagate
from guidon.lab.endpoints import COUNTEREXAMPLE, counterexample, powered
from guidon.noise import EDM, Cosine, Flow, Level, Process, VPTable
from guidon.noise.grids import LogSNR
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.sampling.trajectory import Event
from guidon.solvers import DDPM, PCG, Langevin, Solver

PROCESSES = [EDM(), Cosine(), Flow(), VPTable()]
LABELS = [0, 1, 1, 0, 1]


def run(
    solver: Solver, weight: float, levels: list[Level], x: Tensor, draws: list[Tensor]
) -> tuple[Tensor, list[Event], int]:
    """Run from a state with recorded noise, and return the end, what was told, and the evaluations of an image."""
    events: list[Event] = []
    trajectory = Trajectory(x, levels, solver, CFG(weight), told(LABELS), RecordedNoise(draws), look_on=events.append)
    (end,) = Engine({"main": Exact(plane())}).run([trajectory])
    return end, events, int(trajectory.nfe)


def score(weight: float, x: Tensor, level: Level) -> Tensor:
    """Return the guided score from real predictions of both branches."""
    at, network, contexts = Moment(level, level), Exact(plane()), told(LABELS)
    predictions = {branch: network(x, level, contexts[branch.condition]) for branch in (GIVEN, NULL)}
    wanted: tuple[Branch, ...] = CFG(weight).branches(at, None)
    guided, _ = CFG(weight).combine({branch: predictions[branch] for branch in wanted}, at, None)
    return -guided.eps / level.sigma


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0, 3.0, 7.5])
def test_the_drift_of_ddpm_is_half_the_condition_and_half_the_sharpening(process: Process, weight: float) -> None:
    for noise_level in (0.1, 1.0, 8.0):
        level = process.level_at(noise_level)
        x = math.hypot(level.alpha, level.sigma) * normal(5, 2)
        halves = score(1.0, x, level) / 2 + score(2 * weight - 1, x, level) / 2
        agree(halves, score(weight, x, level), f"drift at {noise_level}", rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_small_step_moves_as_ddpm_does(process: Process) -> None:
    """Without noise the two steps differ by the square of the step, for 2 w - 1, and by the step itself for another exponent."""

    def difference(small: float, exponent: float) -> float:
        levels = [process.level_at(1.0), process.level_at(1.0 - small)]
        x, still = normal(5, 2), [torch.zeros(5, 2, dtype=torch.float64)]
        ends = [run(solver, weight, levels, x, still)[0] for solver, weight in ((PCG(), exponent), (DDPM(), 3.0))]
        return float((ends[0] - ends[1]).norm())

    assert 3.6 < difference(0.01, 5.0) / difference(0.005, 5.0) < 4.4
    assert 1.8 < difference(0.01, 5.5) / difference(0.005, 5.5) < 2.2


@pytest.mark.parametrize("weight", [1.5, 3.0, 5.0])
def test_pcg_of_2w_minus_1_ends_where_ddpm_of_w_does(weight: float) -> None:
    """The reference sheet, section 5: both tend to the same variance, .3875 at w = 3, with an error of 1 / N."""

    def end(solver: Solver, weight: float, steps: int) -> float:
        levels = LogSNR(sigma_min=1e-3, sigma_max=300.0).levels(EDM(), steps)
        return float(propagate(solver, CFG(weight), levels, COUNTEREXAMPLE, 0.0, 300.0**2)[1])

    closed = counterexample(weight)[1]
    if weight == 3:
        assert closed == pytest.approx(0.3875)
    for solver, given in ((PCG(), 2 * weight - 1), (DDPM(), weight)):
        coarse, fine = (end(solver, given, steps) - closed for steps in (64, 128))
        assert 0.4 < fine / coarse < 0.7
        assert abs(2 * fine - coarse) < 0.02 * closed


def stationary(variance: float, size: float, noise: float) -> float:
    """Return the variance that Langevin steps of h = size * noise approach, where the target has a variance."""
    return variance / (1 - size * noise / (4 * variance))


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize(("std", "noise_level", "size"), [(0.7, 1.0, 0.5), (0.3, 2.0, 1.0), (0.5, 1.0, 2.0)])
def test_langevin_approaches_a_variance_that_its_size_inflates(
    process: Process, std: float, noise_level: float, size: float
) -> None:
    levels = [process.level_at(3.0), process.level_at(noise_level)]
    alpha, sigma = levels[1].alpha, levels[1].sigma
    pair = Pair(0.4, std, 0.0, 1.0)
    mean, variance = propagate(Langevin(150, size), CFG(1.0), levels, pair, 5.0, 9.0)
    assert mean.item() == pytest.approx(0.4 * alpha)
    assert variance.item() == pytest.approx(stationary((alpha * std) ** 2 + sigma**2, size, sigma**2))
    few, _ = propagate(Langevin(1, size), CFG(1.0), levels, pair, 5.0, 9.0)
    assert abs(few.item() - 0.4 * alpha) > 1e-3


def test_corrections_approach_the_sharpened_density_of_their_level() -> None:
    tau, above, weight = 0.8, 1.0, 3.0
    levels = [EDM().level_at(above), EDM().level_at(tau)]
    pair = Pair(0.4, 0.5, -0.3, 1.0)
    noisy = Pair(0.4, math.hypot(0.5, tau), -0.3, math.hypot(1.0, tau))
    target = powered(noisy, weight)
    for solver, size in ((PCG(300), 1 - (tau / above) ** 2), (Langevin(300, 0.2), 0.2)):
        mean, variance = propagate(solver, CFG(weight), levels, pair, 5.0, 9.0)
        assert mean.item() == pytest.approx(target.mean)
        assert variance.item() == pytest.approx(stationary(target.variance, size, tau**2))


def test_pcg_at_weight_one_is_ddim_and_a_langevin_step_of_the_class() -> None:
    levels, x, z = [Cosine().level_at(2.0), Cosine().level_at(1.2)], normal(5, 2), normal(5, 2, seed=1)
    end, events, evaluations = run(PCG(), 1.0, levels, x, [z])
    here, there = levels
    clean, noise = plane().believe(x, here.alpha, here.sigma, torch.tensor(LABELS))
    ahead = there.alpha * clean + there.sigma * noise
    h = there.sigma**2 * (1 - (1.2 / 2.0) ** 2)
    want = ahead + h / 2 * plane().score(ahead, there.alpha, there.sigma, torch.tensor(LABELS)) + math.sqrt(h) * z
    agree(end, want, "the state")
    assert evaluations == 2
    assert all(set(event.predictions) == {GIVEN} for event in events)


@pytest.mark.parametrize("corrections", [1, 3])
def test_pcg_asks_the_given_branch_and_then_the_rule(corrections: int) -> None:
    levels = list(LogSNR(sigma_min=0.1, sigma_max=10.0).levels(EDM(), 4))
    noise = RecordedNoise([normal(5, 2, seed=i) for i in range(3 * corrections)])  # none in the step to the clean image
    events: list[Event] = []
    trajectory = Trajectory(
        10 * normal(5, 2), levels, PCG(corrections), CFG(3.0), told(LABELS), noise, look_on=events.append
    )
    Engine({"main": Exact(plane())}).run([trajectory])
    assert [len(event.predictions) for event in events] == [1, *[2] * corrections] * 3 + [1]
    assert trajectory.nfe == 3 * (1 + 2 * corrections) + 1
    assert len(events) == 3 * PCG(corrections).evaluations + 1
    with pytest.raises(BadValue, match="more noise"):
        noise()
    places = [event.at.noise_level for event in events]
    taus = [level.noise_level for level in levels]
    assert places == pytest.approx(
        [tau for i in range(3) for tau in (taus[i], *[taus[i + 1]] * corrections)] + [taus[3]]
    )


def test_langevin_stays_at_each_level_and_ends_with_what_is_believed() -> None:
    levels = list(LogSNR(sigma_min=0.1, sigma_max=10.0).levels(EDM(), 4))
    draws = [normal(5, 2, seed=i) for i in range(3 * 4)]
    end, events, evaluations = run(Langevin(corrections=4), 3.0, levels, 10 * normal(5, 2), draws)
    assert evaluations == 2 * (3 * Langevin(corrections=4).evaluations + 1) == 2 * (3 * 4 + 1)
    assert torch.equal(end, events[-1].guided.x0)
    taus = [level.noise_level for level in levels]
    assert [event.at.noise_level for event in events] == pytest.approx(
        [t for t in taus[1:4] for _ in range(4)] + [taus[3]]
    )


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_langevin_step_keeps_the_clean_scale(process: Process) -> None:
    """x / alpha stays where the level changes; a start without signal is noise, and becomes that of the new level."""
    for noise_level in (2.0, math.inf):
        if math.isinf(noise_level) and not isinstance(process, Flow):
            continue
        here, there = process.level_at(noise_level), process.level_at(1.2)
        x, z = normal(5, 2), normal(5, 2, seed=1)
        end, _, _ = run(Langevin(1, 0.3), 1.0, [here, there], x, [z])
        moved = x * (there.sigma / here.sigma if math.isinf(noise_level) else there.alpha / here.alpha)
        h = 0.3 * there.sigma**2
        score_there = plane().score(moved, there.alpha, there.sigma, torch.tensor(LABELS))
        agree(end, moved + h / 2 * score_there + math.sqrt(h) * z, f"the state from {noise_level}")


def test_only_the_last_correction_advances_the_rule() -> None:
    at = Moment(EDM().level_at(2.0), EDM().level_at(1.0))
    for solver, asked in ((PCG(3), [True, False, False, True]), (Langevin(3), [False, False, True])):
        step = solver.step(normal(5, 2), at, None, lambda: torch.zeros(5, 2, dtype=torch.float64))
        ask, advances = next(step), []
        guided, _ = CFG(1.0).combine({GIVEN: Exact(plane())(normal(5, 2), at.here, told(LABELS)["given"])}, at, None)
        while True:
            advances.append(ask.advance)
            try:
                ask = step.send(guided)
            except StopIteration:
                break
        assert advances == asked


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(BadValue, match="without any it is ddim"):
        PCG(0)
    for corrections, size in ((0, 0.2), (1, 0.0), (1, 2.1)):
        with pytest.raises(BadValue, match="langevin needs"):
            Langevin(corrections, size)
