"""Feedback guidance: the tracked ratio is the true one where the networks are exact, and its arithmetic by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.drive import drive, moments
from support.mixtures import Mixture, plane, told
from support.numbers import agree, f64, normal
from support.worlds import World
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG, FBG, GIVEN, NULL, Moment
from guidon.guidance.feedback import temperature_from_t1
from guidon.noise import EDM, Cosine, Flow, Level, Prediction
from guidon.noise.grids import LogSNR
from guidon.registry import parse, to_text
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.solvers import DDPM, Euler, Heun

LABELS, SEEDS = [0, 3, 1, 4], [5, 6, 7, 8]
SHARE = 0.8


def log_density(mixture: Mixture, x: Tensor, level: Level) -> Tensor:
    """Return log p(x) of noisy states (B, D) of a mixture with full covariances."""
    assert mixture.axes is not None
    cov = mixture.axes @ torch.diag_embed(mixture.variances) @ mixture.axes.mT
    noisy = level.alpha**2 * cov + level.sigma**2 * torch.eye(x.shape[1], dtype=torch.float64)
    parts = torch.distributions.MultivariateNormal(level.alpha * mixture.means, noisy)
    return (mixture.log_weights + parts.log_prob(x[:, None])).logsumexp(1)


def impure(label: int) -> Mixture:
    """Return SHARE of a class of the plane and the rest of everything, as a network may have learned it."""
    mixture = plane()
    mine = mixture.log_weights.exp() * (mixture.component_class == label)
    weights = SHARE * mine / mine.sum() + (1 - SHARE) * mixture.log_weights.exp()
    mixture.log_weights = weights.log()
    return mixture


def believed(mixture: Mixture, x: Tensor, level: Level) -> Prediction:
    nobody = torch.full((x.shape[0],), -1)
    return Prediction(x, level, *mixture.believe(x, level.alpha, level.sigma, nobody))


def tracked(steps: int) -> tuple[Tensor, Tensor]:
    """Return log R and log p_net(x | c) - log p(x) at every step of guided ancestral sampling, (steps, B)."""
    rule, everything, learned = FBG(SHARE, t0=None, temperature=1.0, most=1e6), plane(), impure(0)
    levels = LogSNR(0.02, 1000.0).levels(EDM(), steps)
    noise = PerImageNoise(range(32), (2,), dtype=torch.float64)
    x, state, ratios, truths = levels[0].sigma * noise(), rule.init(), [], []
    for moment in moments(levels):
        beliefs = {GIVEN: believed(learned, x, moment.here), NULL: believed(everything, x, moment.here)}
        guided, state = rule.combine(beliefs, moment, state)
        assert state is not None
        ratios.append(state.log_ratio)
        truths.append(log_density(learned, x, moment.here) - log_density(everything, x, moment.here))
        x = drive(DDPM(), [moment], x, lambda x, at, guided=guided: guided, noise)[0][-1]  # type: ignore[misc]
    return torch.stack(ratios), torch.stack(truths)


def test_one_step_by_hand() -> None:
    """From noise level 2 to 1 the next state has variance 3/4 and keeps 1/4 of the old one."""
    rule = FBG(0.9, t0=0.5, temperature=0.5, most=10.0)
    levels = [EDM().level(t) for t in (2.0, 1.0, 0.5)]
    x = f64([[1.0], [1.0]])  # type: ignore[list-item]
    beliefs = {GIVEN: Prediction.from_x0(x, x + 1, levels[0]), NULL: Prediction.from_x0(x, x - 1, levels[0])}
    guided, state = rule.combine(beliefs, Moment(levels[0], levels[1], 0, 10), rule.init())
    agree(guided.x0, 0 * x + 2 / 0.9, "weight 1 / share at first")
    assert state is not None
    agree(state.given, 0 * x + 1.75, "mean under the condition")
    agree(state.null, 0 * x + 0.25, "mean under none")

    x = f64([[1.5], [0.0]])  # type: ignore[list-item]
    beliefs = {GIVEN: Prediction.from_x0(x, 0 * x + 1, levels[1]), NULL: Prediction.from_x0(x, 0 * x, levels[1])}
    guided, state = rule.combine(beliefs, Moment(levels[1], levels[2], 1, 10), state)
    bias = math.log(0.1 * 3 / 2) / 5
    nearer = [-0.5 / 1.5 * (0.25**2 - 1.25**2) + bias, -0.5 / 1.5 * (1.75**2 - 0.25**2) + bias]
    assert state is not None
    least = math.log(0.1 * 10 / 9)
    agree(state.log_ratio, f64(nearer).clamp_min(least), "log R")
    ratio = state.log_ratio.exp()[:, None]
    agree(guided.x0, ratio / (ratio - 0.1), "weight")
    assert 1 < guided.x0[0] < guided.x0[1] <= 10


def test_noise_that_a_solver_added_widens_what_was_expected() -> None:
    """The step led to noise level 1, and the next evaluation is at 1.5: the variance 3/4 grows by 5/4."""
    rule = FBG(0.9, t0=None, temperature=1.0)
    levels = [EDM().level(t) for t in (2.0, 1.0, 1.5, 0.5)]
    x = f64([[1.0]])  # type: ignore[list-item]
    beliefs = {GIVEN: Prediction.from_x0(x, x + 1, levels[0]), NULL: Prediction.from_x0(x, x - 1, levels[0])}
    _, state = rule.pull(beliefs, Moment(levels[0], levels[1], 0, 2), rule.init())
    _, state = rule.pull(beliefs, Moment(levels[2], levels[3], 1, 2), state)
    assert state is not None
    agree(state.log_ratio, f64([(0.75**2 - 0.75**2) / 4]), "as far from both")
    x = f64([[1.25]])  # type: ignore[list-item]
    again = {branch: Prediction.from_x0(x, p.x0, levels[2]) for branch, p in beliefs.items()}
    _, state = rule.pull(beliefs, Moment(levels[0], levels[1], 0, 2), rule.init())
    _, state = rule.pull(again, Moment(levels[2], levels[3], 1, 2), state)
    assert state is not None
    agree(state.log_ratio, f64([(1.0**2 - 0.5**2) / 4]), "log R")


def test_noise_is_counted_from_where_the_step_led() -> None:
    """From noise level 4 to 2 the next state has variance 3 and keeps 1/4; the next evaluation at 2.5 adds 9/4."""
    rule = FBG(0.9, t0=None, temperature=1.0)
    levels = [EDM().level(t) for t in (4.0, 2.0, 2.5, 0.5)]
    x, y = f64([[1.0]]), f64([[1.25]])  # type: ignore[list-item]
    first = {GIVEN: Prediction.from_x0(x, x + 1, levels[0]), NULL: Prediction.from_x0(x, x - 1, levels[0])}
    second = {branch: Prediction.from_x0(y, p.x0, levels[2]) for branch, p in first.items()}
    _, state = rule.pull(first, Moment(levels[0], levels[1], 0, 2), rule.init())  # to 1.75 or 0.25
    _, state = rule.pull(second, Moment(levels[2], levels[3], 1, 2), state)
    assert state is not None
    agree(state.log_ratio, f64([(1.0**2 - 0.5**2) / (2 * 5.25)]), "log R")


def test_a_second_evaluation_has_the_weight_of_the_step_before_and_no_memory() -> None:
    rule = FBG(0.9, t0=None, temperature=1.0)
    levels = [EDM().level(t) for t in (2.0, 1.0, 0.5)]
    x = f64([[1.0]])  # type: ignore[list-item]
    beliefs = {GIVEN: Prediction.from_x0(x, x + 1, levels[0]), NULL: Prediction.from_x0(x, x - 1, levels[0])}
    _, before = rule.pull(beliefs, Moment(levels[0], levels[1], 0, 2), rule.init())
    x = f64([[7.0]])  # type: ignore[list-item]
    trial = {branch: Prediction.from_x0(x, p.x0, levels[2]) for branch, p in beliefs.items()}
    pull, after = rule.pull(trial, Moment(levels[2], levels[2], 1, 2, began=levels[1]), before)
    assert pull is not None
    assert after is before
    agree(pull.weight, f64([1 / 0.9]), "weight")  # type: ignore[arg-type]


def test_without_evidence_the_weight_is_3_at_t0() -> None:
    rule = FBG(0.9, t0=0.25, temperature=1.0, most=50.0)
    state, x = rule.init(), normal(1, 4)
    for i in range(10):
        level, after = EDM().level(10.0 - i), EDM().level(9.0 - i)
        same = Prediction.from_x0(x, x, level)
        pull, state = rule.pull({GIVEN: same, NULL: same}, Moment(level, after, i, 8), state)
        assert pull is not None
        assert float(pull.weight) > 1  # type: ignore[arg-type]
        if i == 6:
            assert math.isclose(float(pull.weight), 3.0)  # type: ignore[arg-type]
    assert math.isclose(float(pull.weight), 50.0) or float(pull.weight) < 50.0  # type: ignore[arg-type, union-attr]


def test_the_weight_keeps_to_its_bounds() -> None:
    rule = FBG(0.9, t0=None, temperature=1e6, most=6.0)
    levels = [EDM().level(t) for t in (2.0, 1.0, 0.5)]
    x = f64([[1.0], [1.0]])  # type: ignore[list-item]
    first = {GIVEN: Prediction.from_x0(x, x + 1, levels[0]), NULL: Prediction.from_x0(x, x - 1, levels[0])}
    _, state = rule.pull(first, Moment(levels[0], levels[1], 0, 2), rule.init())
    y = f64([[9.0], [-9.0]])  # type: ignore[list-item]
    second = {b: Prediction.from_x0(y, p.x0, levels[1]) for b, p in first.items()}
    pull, _ = rule.pull(second, Moment(levels[1], levels[2], 1, 2), state)
    assert pull is not None
    agree(pull.weight, f64([math.exp(3) / (math.exp(3) - 0.1), 6.0]), "weights")  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", [Euler(), Heun(), DDPM()], ids=str)
def test_costs_two_and_images_are_their_own(solver: Any) -> None:
    world, rule = World(EDM(), solver=solver, steps=8), FBG(temperature=1.0)
    images, events, _ = world.watched(rule, LABELS, SEEDS)
    assert all(event.asked.tolist() == [2] * 4 for event in events)
    for i in range(4):
        agree(images[i : i + 1], world.run(rule, LABELS[i : i + 1], SEEDS[i : i + 1]), f"image {i}")
    agree(world.run(rule, LABELS, SEEDS, batching="sequential"), images, "one by one")
    assert not torch.allclose(images, world.run(CFG(1 / 0.95), LABELS, SEEDS))


def test_the_same_path_in_every_process() -> None:
    """The path in z = x / alpha is the same for all processes, and so are the weights along it."""

    def run(process: Any) -> Tensor:
        levels = LogSNR(0.05, 20.0).levels(process, 12)
        x = levels[0].alpha * 20 * normal(3, 2, seed=4)
        network = {"main": lambda x, level, c: believed_with(x, level, c.vector)}
        trajectory = Trajectory(x, levels, Euler(), FBG(temperature=1.0), told([0, 0, 0]), lambda: x)
        return Engine(network).run([trajectory])[0]

    def believed_with(x: Tensor, level: Level, vector: Tensor) -> Prediction:
        rows = [impure(0) if v >= 0 else plane() for v in vector[:, 0].tolist()]
        parts = [believed(m, x[i : i + 1], level) for i, m in enumerate(rows)]
        return Prediction(x, level, torch.cat([p.x0 for p in parts]), torch.cat([p.eps for p in parts]))

    images = run(EDM())
    for process in (Cosine(), Flow()):
        agree(run(process), images, str(process), rtol=1e-6, atol=1e-8)


def test_beside_a_constant_weight_it_adds() -> None:
    """The hybrid of the paper: the weights add, less one."""
    world = World(EDM(), steps=1)
    got = world.run(CFG(2.5) | FBG(0.8), LABELS, SEEDS)
    agree(got, world.run(CFG(2.5 + 1 / 0.8 - 1), LABELS, SEEDS), "images")


def test_a_pure_network_is_left_alone() -> None:
    world = World(EDM())
    x, events, _ = world.watched(FBG(1.0), LABELS, SEEDS)
    assert torch.equal(x, world.run(CFG(1.0), LABELS, SEEDS))
    assert all(tuple(event.predictions) == (GIVEN,) for event in events)


def test_the_temperature_of_a_time() -> None:
    """The variances of the steps are 3, 3/4 and, to the clean image, 0."""
    levels = [EDM().level(t) for t in (4.0, 2.0, 1.0, 0.0)]
    bias = math.log(0.1 * 3 / 2) / (0.5 * 3)
    for t1, variance in ((2 / 3, 3.0), (0.5, 1.875), (1 / 3, 0.75), (1 / 6, 0.375), (1.0, 3.0)):
        assert math.isclose(temperature_from_t1(levels, t1, 0.9, 0.5), -2 * variance * bias / 10)
    assert math.isclose(temperature_from_t1(levels, 0.5, 0.9, 0.5, distance=5.0), -2 * 1.875 * bias / 5)
    with pytest.raises(BadValue, match="t1"):
        temperature_from_t1(levels, 0.0, 0.9, 0.5)


@pytest.mark.parametrize(
    "bad",
    [{"share": 0.0}, {"share": 1.1}, {"share": 0.3}, {"t0": 1.0}, {"t0": -0.1}, {"temperature": 0.0}, {"most": 1.0}],
)
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(BadValue, match="fbg needs"):
        FBG(**bad)


def test_text_form() -> None:
    assert FBG(0.3, t0=None).share == 0.3
    assert parse("rule", to_text(FBG(0.9, t0=None, most=4.0))) == FBG(0.9, None, most=4.0)


def test_the_tracked_ratio_is_the_true_one_on_an_exact_mixture() -> None:
    """The truth wanders between -1 and 0.6; the error falls with the square root of the steps, as noise does that is summed."""
    errors = {}
    for steps in (100, 400):
        ratios, truths = tracked(steps)
        errors[steps] = (ratios - truths).abs().mean().item()
        assert truths.min() < -0.7
        assert truths[-1].max() > 0.5
    assert errors[400] < 0.04
    assert errors[400] < 0.7 * errors[100], errors
