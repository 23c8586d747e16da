"""Classifier guidance: with the exact classifier it is classifier-free guidance; the rest by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.numbers import agree, f64, normal
from support.worlds import SHAPE, World
from torch import Tensor

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported
from guidon.guidance import (
    CFG,
    GIVEN,
    NULL,
    Branch,
    ClassifierGuidance,
    Interval,
    LinearWeight,
    Moment,
    Rescale,
)
from guidon.noise import (
    EDM,
    Cosine,
    EDMOutput,
    EpsOutput,
    Flow,
    Level,
    Output,
    Prediction,
    VelocityOutput,
    VOutput,
    X0Output,
)
from guidon.noise.grids import Karras
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.solvers import DDPM, Euler, Heun

LABELS, SEEDS = [0, 3, 1, 4], [5, 6, 7, 8]
HERE = Level(2.0, 0.8, 0.6)
AT = Moment(HERE, Level(1.0, 0.9, 0.4))
JUDGE = Branch("given", network="classifier", gradient=True)


def beliefs(gradient: Tensor, base: Branch = NULL) -> dict[Branch, Prediction]:
    x = normal(*gradient.shape, seed=1)
    return {
        base: Prediction.from_eps(x, normal(*gradient.shape, seed=2), HERE),
        JUDGE: Prediction.from_score(x, gradient, HERE),
    }


@pytest.mark.parametrize("output", [EpsOutput(), X0Output(), VOutput(), VelocityOutput(), EDMOutput()], ids=str)
@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow()], ids=str)
def test_with_the_exact_classifier_it_is_classifier_free_guidance(output: Output, process: Any) -> None:
    world = World(process, output=output)
    for weight in (1.0, 3.5, (0.5, 1.0, 2.0, 0.0)):
        images = world.run(ClassifierGuidance(weight), LABELS, SEEDS)
        agree(images, world.run(CFG(weight), LABELS, SEEDS), f"images of weight {weight}", rtol=1e-8, atol=1e-8)


def test_one_belief_is_that_of_classifier_free_guidance_to_1e_10() -> None:
    world = World(Cosine(), steps=1)
    seen: list[Any] = []
    for rule in (ClassifierGuidance(3.5), CFG(3.5)):
        Engine(world.networks).run([world.trajectory(rule, LABELS, SEEDS, look_on=seen.append)])
    agree(seen[0].guided.x0, seen[1].guided.x0, "x0", rtol=1e-10, atol=1e-10)
    agree(seen[0].guided.eps, seen[1].guided.eps, "eps", rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", [Euler(), Heun(), DDPM()], ids=str)
def test_with_every_solver(solver: Any) -> None:
    world = World(EDM(), solver=solver, steps=8)
    got = world.run(ClassifierGuidance(2.0), LABELS, SEEDS)
    agree(got, world.run(CFG(2.0), LABELS, SEEDS), "images", rtol=1e-8, atol=1e-8)


def test_over_a_conditional_network_it_adds() -> None:
    """Given and classifier together are p(x | c) p(c | x)^w: cfg's weight, and one more."""
    world = World(EDM())
    got = world.run(ClassifierGuidance(2.0, base="given"), LABELS, SEEDS)
    agree(got, world.run(CFG(3.0), LABELS, SEEDS), "images", rtol=1e-8, atol=1e-8)
    chained = world.run(ClassifierGuidance(2.0, base="given") | CFG(1.5), LABELS, SEEDS)
    agree(chained, world.run(CFG(3.5), LABELS, SEEDS), "with cfg", rtol=1e-8, atol=1e-8)


def test_the_formula_of_ddim() -> None:
    gradient = normal(3, 4, seed=7)
    told = beliefs(gradient)
    guided, _ = ClassifierGuidance(2.5).combine(told, AT, None)
    agree(guided.eps, told[NULL].eps - 0.6 * 2.5 * gradient, "eps")
    agree(told[NULL].x, 0.8 * guided.x0 + 0.6 * guided.eps, "what belongs together")
    assert guided.drift is None


def test_the_mean_of_ddpm_moves_by_its_variance_times_the_gradient() -> None:
    rule = ClassifierGuidance(2.5, form="mean")
    process = Cosine()
    levels = [process.level_at(s) for s in (2.0, 1.0)]
    x, n, gradient = normal(2, 3, seed=1), normal(2, 3, seed=2), normal(2, 3, seed=3)

    def classifier_and_base(pull: float) -> Tensor:
        def network(x: Tensor, level: Level, context: Context) -> Prediction:
            return Prediction.from_x0(x, 0.5 * x, level)

        class Judge:
            def log_prob(self, x: Tensor, level: Level, context: Context) -> Tensor:
                return (x * gradient).flatten(1).sum(1)

        contexts = {"given": Context(), "null": Context()}
        run = Trajectory(x, levels, DDPM(), ClassifierGuidance(pull, form="mean"), contexts, lambda: n)
        return Engine({"main": network, "classifier": Judge()}).run([run])[0]  # type: ignore[dict-item]

    here, there = levels
    ratio = here.alpha / there.alpha
    forward = here.sigma**2 - ratio**2 * there.sigma**2
    variance = forward * there.sigma**2 / here.sigma**2
    mean = there.alpha * forward / here.sigma**2 * 0.5 * x + ratio * there.sigma**2 / here.sigma**2 * x
    agree(classifier_and_base(2.5), mean + 2.5 * variance * gradient + variance**0.5 * n, "state")
    agree(classifier_and_base(0.0), mean + variance**0.5 * n, "state without")
    assert rule.only_with == ("ddpm",)


def test_the_two_forms_agree_as_steps_get_small() -> None:
    """The mean form takes the gradient for constant over a step; its first order is that of the eps form."""
    gaps = []
    for steps in (20, 80):
        worlds = [World(EDM(), solver=DDPM(), steps=steps) for _ in range(2)]
        forms = [
            world.run(ClassifierGuidance(1.0, form=form), LABELS, SEEDS)
            for world, form in zip(worlds, ("eps", "mean"), strict=True)
        ]
        gaps.append((forms[0] - forms[1]).square().mean().sqrt().item())
    assert gaps[1] < gaps[0] / 2, gaps


def test_the_mean_form_is_refused_with_other_solvers() -> None:
    levels = Karras().levels(EDM(), 3)
    with pytest.raises(NotSupported, match="ddpm"):
        Trajectory(normal(1, 2), levels, Euler(), ClassifierGuidance(1.0, form="mean"), {}, lambda: normal(1, 2))


def test_a_chain_keeps_the_drift() -> None:
    told = beliefs(normal(3, 4, seed=7))
    rule = ClassifierGuidance(2.5, form="mean") | Rescale(0.5)
    guided, _ = rule.combine(told, AT, rule.init())
    assert guided.drift is not None
    agree(guided.drift, 2.5 * normal(3, 4, seed=7), "drift")
    assert rule.only_with == ("ddpm",)


def test_normalised_and_clipped_by_hand() -> None:
    gradient = f64([[3.0, 4.0], [0.0, 0.0], [0.03, 0.04]])  # type: ignore[list-item]
    told = beliefs(gradient)
    noise = told[NULL].eps

    guided, _ = ClassifierGuidance(0.2, normalise=True).combine(told, AT, None)
    unit = f64([[0.6, 0.8], [0.0, 0.0], [0.6, 0.8]])  # type: ignore[list-item]
    agree(guided.eps, noise - 0.2 * noise.norm(dim=1, keepdim=True) * unit, "normalised")

    guided, _ = ClassifierGuidance(2.0, clip=0.1).combine(told, AT, None)
    clipped = torch.stack([gradient[0] * 0.1 / (25 / 2) ** 0.5, gradient[1], gradient[2]])  # rms 0.035 stays
    agree(guided.eps, noise - 0.6 * 2 * clipped, "clipped")
    for settings in ({"normalise": True}, {"clip": 0.5}):
        whole, _ = ClassifierGuidance(1.0, **settings).combine(told, AT, None)  # type: ignore[arg-type]
        alone = {b: p.take(slice(0, 1)) for b, p in told.items()}
        first, _ = ClassifierGuidance(1.0, **settings).combine(alone, AT, None)  # type: ignore[arg-type]
        agree(whole.eps[:1], first.eps, "an image alone")


def test_a_mean_that_moves_leaves_the_belief() -> None:
    told = beliefs(normal(3, 4, seed=7))
    guided, _ = ClassifierGuidance(2.5, form="mean").combine(told, AT, None)
    agree(guided.x0, told[NULL].x0, "x0")
    agree(guided.eps, told[NULL].eps, "eps")


@pytest.mark.parametrize("size", [1.0, 1e-200, 1e-300, 1e200, 1e300])
def test_a_direction_is_one_at_every_size(size: float) -> None:
    """Also where squares vanish or overflow, and where parts of an image are zero or much smaller than others."""
    units = f64([[[0.6, 0.0], [0.8, 0.0]], [[1.0, 0.0], [1e-3, 0.0]]])  # type: ignore[list-item]
    told = beliefs(size * units)
    noise = told[NULL].eps
    guided, _ = ClassifierGuidance(0.2, normalise=True).combine(told, AT, None)
    lengths = noise.square().sum((1, 2), keepdim=True).sqrt()
    unit = units / f64([1.0, (1 + 1e-6) ** 0.5])[:, None, None]
    agree(guided.eps, noise - 0.2 * lengths * unit, "normalised")


def test_weight_0_asks_no_classifier() -> None:
    assert ClassifierGuidance(0.0).branches(AT, None) == (NULL,)
    assert ClassifierGuidance((0.0, 0.0), base="given").branches(AT, None) == (GIVEN,)
    assert ClassifierGuidance(2.0).branches(AT, None) == (NULL, JUDGE)
    world = World(EDM())
    rule = ClassifierGuidance(LinearWeight(0.0, 2.0), when=Interval(0.1, 9.0))
    _, events, _ = world.watched(rule, LABELS, SEEDS)
    assert [len(event.predictions) for event in events] == [1, 2, 2, 2, 2, 1]
    assert torch.equal(world.run(ClassifierGuidance(0.0), LABELS, SEEDS), world.run(CFG(0.0), LABELS, SEEDS))


def test_the_classifier_may_be_told_another_condition() -> None:
    world = World(EDM())
    got = world.run(ClassifierGuidance(1.0, condition="also"), LABELS, SEEDS)
    other = [(label + 2) % 5 for label in LABELS]
    agree(got, world.run(CFG(1.0), other, SEEDS), "images", rtol=1e-8, atol=1e-8)


def test_a_missing_classifier_is_refused_before_the_first_step() -> None:
    world = World(EDM())
    trajectory = world.trajectory(ClassifierGuidance(1.0), LABELS, SEEDS)
    del world.networks["classifier"]
    with pytest.raises(NotSupported, match="classifier"):
        Engine(world.networks).join(trajectory)
    world.networks["classifier"] = world.main  # type: ignore[assignment]
    with pytest.raises(NotSupported, match="log_prob"):
        Engine(world.networks).join(trajectory)
    assert world.main.forwards == 0


def test_images_are_their_own() -> None:
    for settings in ({}, {"normalise": True}, {"clip": 0.3}, {"form": "mean"}):
        world, rule = World(EDM(), solver=DDPM()), ClassifierGuidance(0.7, **settings)  # type: ignore[arg-type]
        images = world.run(rule, LABELS, SEEDS)
        assert images.shape == (4, *SHAPE)
        for i in range(4):
            agree(images[i : i + 1], world.run(rule, LABELS[i : i + 1], SEEDS[i : i + 1]), f"image {i}")
        agree(world.run(rule, LABELS, SEEDS, max_batch=3), images, "in chunks")


def test_it_starts_where_there_is_signal() -> None:
    """Pure noise has no class: there the base is left alone, and the classifier is not asked."""
    world, events = World(Flow()), []
    levels = [Flow().level(t) for t in (1.0, 0.5, 0.0)]
    noise = PerImageNoise(SEEDS, SHAPE, dtype=torch.float64)
    contexts = {"given": Context(vector=f64([[0.0]] * 4)), "null": Context(vector=f64([[-1.0]] * 4))}  # type: ignore[list-item]
    rule = ClassifierGuidance(1.0)
    Engine(world.networks).run([Trajectory(noise(), levels, Euler(), rule, contexts, noise, look_on=events.append)])
    assert [set(event.predictions) for event in events] == [{NULL}, {NULL, rule.judge}]


@pytest.mark.parametrize("bad", [{"form": "score"}, {"base": "negative"}, {"clip": 0.0}, {"weight": "much"}])
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(BadValue, match=r"classifier|weight"):
        ClassifierGuidance(**{"weight": 1.0, **bad})
