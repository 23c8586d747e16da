"""Ancestral solvers: how much noise goes, stays and comes, and where their middle lies."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support.drive import drive, guided_by, moments
from support.mixtures import Exact, plane, told
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import BadValue, NotSupported
from guidon.guidance import CFG, Guided, Moment
from guidon.noise import EDM, Cosine, Flow, Level, Process, VPTable
from guidon.noise.grids import LogSNR, Trailing
from guidon.registry import to_text
from guidon.solvers import DDIM, DDPM, DPM2Ancestral, DPMpp2SAncestral, DPMppSDE, Euler, EulerAncestral

PROCESSES = pytest.mark.parametrize("process", [EDM(), Cosine(), Flow(), VPTable()], ids=lambda p: type(p).__name__)
SOLVERS = pytest.mark.parametrize("solver", [EulerAncestral, DPMpp2SAncestral])


@SOLVERS
@PROCESSES
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.8, 1.0])
def test_noise_adds_up(process: Process, solver: type, eta: float) -> None:
    """With a belief in one image, a step keeps some of the noise and adds fresh one, and together they are what the level has."""
    image = 0.7

    def believe(x: Tensor, at: Moment) -> Guided:
        return Guided(torch.full_like(x, image), (x - at.here.alpha * image) / at.here.sigma)

    for at in moments(LogSNR(0.05, 20.0).levels(process, 6))[:-1]:
        eps, new = f64([0.0, 1.0, 0.0]), f64([0.0, 0.0, 1.0])
        x = at.here.alpha * image + at.here.sigma * eps
        rest, kept, fresh = drive(solver(eta), [at], x, believe, lambda n=new: n)[0][-1].tolist()
        assert math.isclose(rest, at.there.alpha * image, rel_tol=1e-12)
        kept, fresh = kept - rest, fresh - rest
        assert math.isclose(kept**2 + fresh**2, at.there.sigma**2, rel_tol=1e-9)
        ratio = at.there.noise_level / at.noise_level
        assert math.isclose(fresh, eta * at.there.sigma * math.sqrt(1 - ratio**2), rel_tol=1e-9, abs_tol=1e-12)


@SOLVERS
@PROCESSES
def test_noise_is_drawn_once_a_step_but_not_in_the_last(process: Process, solver: type) -> None:
    steps = moments(LogSNR(0.05, 20.0).levels(process, 6))
    believe = guided_by(CFG(2.0), Exact(plane()), told([0, 1, 1, 0]))
    for eta, draws in ((1.0, 5), (0.4, 5), (0.0, 0)):
        count = itertools.count()
        drive(solver(eta), steps, normal(4, 2), believe, lambda c=count: normal(4, 2, seed=next(c)))
        assert next(count) == draws


@PROCESSES
def test_ancestral_euler_is_between_euler_and_ddpm(process: Process) -> None:
    believe, x = guided_by(CFG(2.0), Exact(plane()), told([0, 1, 1, 0])), normal(4, 2)
    for at in moments(LogSNR(0.05, 20.0).levels(process, 6)):
        for solver, same in (
            (EulerAncestral(), DDPM()),
            (EulerAncestral(0.0), Euler()),
            (EulerAncestral(0.6), DDIM(0.6)),
        ):
            ends = [drive(s, [at], x, believe, lambda: normal(4, 2, seed=7))[0][-1] for s in (solver, same)]
            agree(ends[0], ends[1], to_text(solver))


@PROCESSES
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_middle_is_halfway_in_log_noise_level(process: Process, eta: float) -> None:
    steps = moments(LogSNR(0.05, 20.0).levels(process, 6))
    believe = guided_by(CFG(2.0), Exact(plane()), told([0, 1, 1, 0]))
    _, asked = drive(DPMpp2SAncestral(eta), steps, normal(4, 2), believe, lambda: normal(4, 2))
    assert [ask.advance for ask in asked] == [True, False] * 5 + [True]
    for first, second in zip(asked[:-1:2], asked[1::2], strict=True):
        ratio = first.at.there.noise_level / first.at.noise_level
        down = first.at.there.noise_level * math.sqrt(1 - eta**2 * (1 - ratio**2))
        here = second.at.here
        assert math.isclose(here.noise_level, math.sqrt(first.at.noise_level * down), rel_tol=1e-9)
        assert math.isclose(here.t, process.time_at(here.noise_level), rel_tol=1e-12)  # what a network is shown
        assert (second.at.began, second.at.there) == (first.at.here, first.at.there)


@pytest.mark.parametrize("r", [0.3, 0.5, 1.0])
def test_wherever_the_second_evaluation_is_a_straight_belief_counts_by_its_middle(r: float) -> None:
    here, there, start = Cosine().level_at(4.0), Cosine().level_at(1.5), f64([0.8])

    def believe(x: Tensor, at: Moment) -> Guided:
        x0 = torch.full_like(x, math.log(at.noise_level))
        return Guided(x0, (x - at.here.alpha * x0) / at.here.sigma)

    states, _ = drive(DPMppSDE(0.0, r), moments([here, there]), start, believe)
    ratio = 1.5 / 4.0
    want = start / here.alpha * ratio + (1 - ratio) * math.log(math.sqrt(4.0 * 1.5))
    agree(states[-1], there.alpha * want, "state", rtol=1e-12)


@pytest.mark.parametrize("solver", [EulerAncestral, DPM2Ancestral, DPMpp2SAncestral, DPMppSDE])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_from_a_level_without_signal_they_are_ancestral_euler(solver: type, eta: float) -> None:
    at = moments(Trailing().levels(VPTable(zero_snr=True), 10))[0]
    assert at.here.alpha == 0
    x, x0, eps, new = (normal(4, 2, seed=seed) for seed in range(4))
    states, asked = drive(solver(eta), [at], x, lambda x, at: Guided(x0, eps), lambda: new)
    want = at.there.alpha * x0 + at.there.sigma * (math.sqrt(1 - eta**2) * eps + eta * new)
    agree(states[-1], want, "state")
    assert len(asked) == 1


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_ddpm_follows_a_drift_by_its_variance(variance: str) -> None:
    """In the last step, without noise, a drift counts by the variance of the step before, or between that and the step's own."""
    here, there, clean = VPTable().level(700.0), VPTable().level(500.0), VPTable().clean
    large = here.sigma**2 - (here.alpha / there.alpha * there.sigma) ** 2
    small = large * (there.sigma / here.sigma) ** 2
    x, x0, eps, drift, fraction = (normal(4, 2, seed=seed) for seed in range(5))

    def between(low: float, high: float) -> Tensor:
        return low ** (1 - fraction) * high**fraction

    first = {"small": small, "large": large, "learned": between(small, large)}
    after_it = {"small": 0.0, "large": small, "learned": between(small, there.sigma**2)}
    alone = {"small": 0.0, "large": here.sigma**2, "learned": here.sigma**2}  # there is no step before
    for levels, moved in (((here, there), first), ((here, there, clean), after_it), ((here, clean), alone)):
        steps = moments(levels)
        plain, pushed = (
            drive(
                DDPM(variance),
                steps,
                x,
                lambda x, at, d=d: Guided(x0, eps, fraction, drift=d if at.index == at.steps - 1 else None),
                lambda: 0 * x,
            )[0][-1]
            for d in (None, drift)
        )
        agree(pushed - plain, moved[variance] * drift, "what the drift adds")


def test_levels_made_by_hand_have_no_middle() -> None:
    at = Moment(Level(2.0, 1.0, 2.0), Level(1.0, 1.0, 1.0))
    with pytest.raises(NotSupported, match="process"):
        drive(DPMpp2SAncestral(0.0), [at], f64([1.0]), lambda x, at: Guided(x, x))


@pytest.mark.parametrize(("solver", "name"), [(EulerAncestral, "euler-ancestral"), (DPMpp2SAncestral, "dpmpp-2s-anc")])
@pytest.mark.parametrize("eta", [-0.1, 1.01, math.nan])
def test_bad_shares(solver: type, name: str, eta: float) -> None:
    with pytest.raises(BadValue, match=f"{name}.*eta in"):
        solver(eta)
