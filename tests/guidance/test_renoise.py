"""CFG++ and Rectified-CFG++: what they tell the solver, and what a run under them is."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from support.drive import drive, guided_by, moments, no_noise, sample, turned
from support.examples import dataclasses_of, plain
from support.mixtures import Exact, field, plane, told
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import BadValue, NotSupported
from guidon.guidance import CFG, GIVEN, NULL, CFGpp, Guided, LinearWeight, Moment, RectifiedCFGpp, Rule
from guidon.guidance.stage import Reshape
from guidon.noise import EDM, Cosine, Flow, Level, Output, Prediction, Process, VPTable
from guidon.noise.grids import Karras, Leading, LogSNR, Trailing
from guidon.sampling import Engine, Trajectory
from guidon.solvers import DDIM, DPMpp2M, DPMpp2SAncestral, Euler, Heun, Rectified, Solver

LABELS = [0, 1, 1, 0]
PROCESSES = pytest.mark.parametrize("process", [EDM(), Flow(), Cosine(), VPTable()], ids=lambda p: type(p).__name__)
OUTPUTS = [None, *(plain(name, member) for name, member in dataclasses_of("output"))]


def equivalent(weight: float, at: Moment) -> float:
    """Return the weight of cfg with which one step of DDIM does what CFG++ does."""
    return weight / (1 - float(at.there.noise_level) / at.noise_level)


@PROCESSES
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("weight", [0.2, 0.6, 1.0, 1.7])
def test_one_step_is_that_of_ddim_with_another_weight(process: Process, output: Output | None, weight: float) -> None:
    network, contexts, x = Exact(plane(), output), told(LABELS), normal(4, 2)
    for at in moments(LogSNR(0.05, 10.0).levels(process, 6)):
        ends = [
            drive(DDIM(), [at], x, guided_by(rule, network, contexts))[0][-1]
            for rule in (CFGpp(weight), CFG(equivalent(weight, at)))
        ]
        agree(ends[0], ends[1], f"step {at.index}", rtol=1e-12, atol=1e-12 * at.here.sigma / at.here.alpha)
        x = ends[0]


def test_a_whole_run_is_that_of_cfg_with_a_schedule() -> None:
    levels, x = Karras(7.0, 0.05, 20.0).levels(EDM(), 12), 20 * normal(4, 2)

    def schedule(at: Moment) -> float:
        return equivalent(0.4, at)

    runs = [sample(Exact(plane()), levels, Euler(), rule, x, told(LABELS)) for rule in (CFGpp(0.4), CFG(schedule))]
    agree(*runs, "images", rtol=1e-11, atol=1e-11)
    assert schedule(moments(levels)[-1]) == 0.4  # the last step's weight is the rule's own


def test_the_weight_means_about_twelve_times_as_much_on_stable_diffusion() -> None:
    levels = Leading(1).levels(VPTable("scaled-linear"), 50)
    weights = [equivalent(0.6, at) for at in moments(levels)]
    assert math.isclose(sum(weights) / 50, 7.2, abs_tol=0.05)
    assert math.isclose(max(weights), 9.5, abs_tol=0.05)


def guided(rule: Rule, network: Exact, x: Tensor, at: Moment) -> Guided:
    return guided_by(rule, network, told(LABELS))(x, at)


def test_only_the_clean_image_is_guided() -> None:
    network, at, x = Exact(field()), Moment(EDM().level(1.2), EDM().level(0.7)), 2 * normal(4, 2, 3, 3)
    given, null = (network(x, at.here, context) for context in told(LABELS).values())
    weights = [0.6, 0.0, 1.0, -0.3]
    for rule, column in ((CFGpp(0.6), 0.6), (CFGpp(weights), f64(weights).reshape(4, 1, 1, 1)), (CFGpp(1.0), 1.0)):
        got = guided(rule, network, x, at)
        mixed = null.x0 + column * (given.x0 - null.x0)
        agree(got.x0, mixed, "x0")
        assert torch.equal(got.eps, null.eps)
        assert torch.equal(got.noise_x0, null.x0)
    assert CFGpp(0.0).branches(at, None) == CFGpp([0.0, 0.0]).branches(at, None) == (NULL,)
    assert CFGpp(1.0).branches(at, None) == (GIVEN, NULL)
    assert CFGpp(LinearWeight(0, 1)).branches(Moment(at.here, at.there, 0, 5), None) == (NULL,)
    got, want = guided(CFGpp(0.0), network, x, at), Guided.plain(null)
    assert torch.equal(got.x0, want.x0)
    assert torch.equal(got.eps, want.eps)


@dataclass(frozen=True)
class Shrink(Reshape):
    """Halves the clean image."""

    def reshape(self, guided: Prediction, given: Prediction, at: Moment, state: object) -> tuple[Prediction, object]:
        return guided.moved("x0", -guided.x0 / 2), state


def test_stages_act_before_the_noise_is_taken_from_the_null_branch() -> None:
    network, at, x = Exact(plane()), Moment(EDM().level(1.2), EDM().level(0.7)), normal(4, 2)
    got, alone = guided(CFGpp(0.6) | Shrink(), network, x, at), guided(CFGpp(0.6), network, x, at)
    agree(got.x0, alone.x0 / 2, "x0")
    assert torch.equal(got.eps, alone.eps)
    assert torch.equal(got.noise_x0, alone.noise_x0)
    both = guided(CFGpp(0.6) | CFG(2.0), network, x, at)
    given, null = (network(x, at.here, context) for context in told(LABELS).values())
    agree(both.x0, null.x0 + 1.6 * (given.x0 - null.x0), "x0")
    assert torch.equal(both.eps, null.eps)
    for rule in (CFGpp(0.6), RectifiedCFGpp(3.0)):
        with pytest.raises(BadValue, match="stand first"):
            _ = CFG(2.0) | rule


def test_inversion_and_sampling_undo_each_other() -> None:
    """For beliefs about the noise that do not depend on where one is, exactly: what is guided goes out the way it came in."""

    class Constant(Exact):
        def __call__(self, x: Tensor, level: Level, context: object) -> Prediction:
            eps = torch.full_like(x, 0.3) + 0.5 * (context.vector[:, :1] == -1)  # type: ignore[attr-defined]
            return Prediction.from_eps(x, eps, level)

    up = LogSNR(0.05, 10.0).levels(Cosine(), 7)[:-1][::-1]
    x, network = normal(4, 2), Constant(plane())
    believe = guided_by(CFGpp(0.7), network, told(LABELS))
    noise = drive(Euler(), moments(up), x, lambda x, at: turned(believe(x, at), x, at), no_noise)[0][-1]
    back = drive(Euler(), moments(up[::-1]), noise, guided_by(CFGpp(0.7), network, told(LABELS)), no_noise)[0][-1]
    agree(back, x, "images")
    other = drive(Euler(), moments(up[::-1]), noise, guided_by(CFG(0.7), network, told(LABELS)), no_noise)[0][-1]
    assert (other - x).abs().max() > 0.01


@pytest.mark.parametrize("solver", [DPMpp2M(), DPMpp2SAncestral(0.0)], ids=str)
def test_second_order_solvers_agree_with_a_loop_by_hand(solver: Solver) -> None:
    """In noise level, D_w the guided clean image and D_u the null one: the formulas of the paper's appendix."""
    network, weight, levels = Exact(plane()), 0.6, LogSNR(0.05, 10.0).levels(EDM(), 8)
    x = start = 10 * normal(4, 2)

    def ask(x: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        given, null = (network(x, EDM().level(tau), context).x0 for context in told(LABELS).values())
        return null + weight * (given - null), null

    before = None
    for at in moments(levels):
        tau, after = at.noise_level, float(at.there.noise_level)
        d, d_null = ask(x, tau)
        if after == 0:
            x = d
        elif isinstance(solver, DPMpp2M):
            h, shrink = math.log(tau / after), after / tau
            extra = 0 if before is None else (1 - shrink) * (d_null - before[0]) * h / (2 * before[1])
            x, before = d - shrink * d_null + shrink * x + extra, (d_null, h)
        else:
            middle = math.sqrt(tau * after)
            d, d_null = ask(d_null + (x - d_null) * middle / tau, middle)
            x = d - after / tau * d_null + after / tau * x
    agree(sample(network, levels, solver, CFGpp(weight), start, told(LABELS)), x, "images")


def test_other_solvers_are_refused_before_the_first_step() -> None:
    levels = LogSNR(0.05, 10.0).levels(EDM(), 4)
    for rule, solver in ((CFGpp(0.6), Heun()), (CFGpp(0.6), Rectified()), (RectifiedCFGpp(3.0), Euler())):
        for made in (rule, rule | Shrink()):
            with pytest.raises(NotSupported, match=f"works with the solver {rule.only_with[0]}"):
                Trajectory(normal(4, 2), levels, solver, made, told(LABELS), no_noise)


# Rectified-CFG++


def by_hand(network: Exact, x: Tensor, times: list[float], strength: float, power: float) -> Tensor:
    """The paper's loop: t from 1 (noise) to 0, v = eps - x0."""

    def velocity(x: Tensor, t: float, name: str) -> Tensor:
        told_x0 = network(x, Level(t, 1 - t, t), told(LABELS)[name])
        return told_x0.eps - told_x0.x0

    for t, after in itertools.pairwise(times):
        dt = after - t
        start = velocity(x, t, "given")
        middle, half = x + dt / 2 * start, t + dt / 2
        bend = velocity(middle, half, "given") - velocity(middle, half, "null")
        x = x + dt * (start + strength * (1 - t) ** power * bend)
    return x


@pytest.mark.parametrize(("weight", "power"), [(3.0, 0.0), (5.5, 1.0), (2.0, 0.5), (0.0, 0.0)])
def test_rectified_is_the_loop_of_the_paper(weight: float, power: float) -> None:
    levels, network = Trailing().levels(Flow(), 9), Exact(plane())
    x = normal(4, 2)
    got = sample(network, levels, Rectified(), RectifiedCFGpp(weight, power), x, told(LABELS))
    agree(got, by_hand(network, x, [level.t for level in levels], weight - 1, power), "images")


def test_rectified_images_have_their_own_weights() -> None:
    levels, weights, x = Trailing().levels(Flow(), 5), [1.0, 3.0, 5.5, 2.0], normal(4, 2)
    got = sample(Exact(plane()), levels, Rectified(), RectifiedCFGpp(weights, 0.5), x, told(LABELS))
    for i, weight in enumerate(weights):
        want = sample(Exact(plane()), levels, Rectified(), RectifiedCFGpp(weight, 0.5), x, told(LABELS))
        agree(got[i], want[i], f"image {i}")


def test_rectified_evaluations() -> None:
    for rule, evaluations in ((RectifiedCFGpp(3.0), 18), (RectifiedCFGpp(1.0), 12), (RectifiedCFGpp(3.0, 1.0), 17)):
        run = Trajectory(normal(4, 2), Trailing().levels(Flow(), 6), Rectified(), rule, told(LABELS), no_noise)
        Engine({"main": Exact(plane())}).run([run])
        assert (
            run.nfe == evaluations
        )  # at the noisiest level (1 - t) is 0, and the first step of the last rule has no guidance


def test_rectified_power_is_no_number_below_zero() -> None:
    with pytest.raises(BadValue, match="power >= 0"):
        RectifiedCFGpp(3.0, -1.0)


def test_the_weight_of_a_step_falls_with_the_part_of_noise_it_begins_with() -> None:
    """At noise level 3 noise is three quarters, and at 1 a half."""
    noisy, clearer = EDM().level(3.0), EDM().level(1.0)
    for rule, first, later in (
        (RectifiedCFGpp(5.0), 5.0, 5.0),
        (RectifiedCFGpp(5.0, power=1.0), 2.0, 3.0),
        (RectifiedCFGpp(5.0, power=2.0), 1.25, 2.0),
        (RectifiedCFGpp((5.0, 1.0, 0.0), power=1.0), (2.0, 1.0, 0.75), (3.0, 1.0, 0.5)),
    ):
        assert rule.weight_at(Moment(noisy, clearer)) == first
        assert rule.weight_at(Moment(clearer, EDM().clean)) == later
        assert rule.weight_at(Moment(clearer, clearer, began=noisy)) == first, "halfway of a step"
