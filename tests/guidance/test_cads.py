"""Condition annealing: when, which branches, with what noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.mixtures import told
from support.numbers import agree, normal
from support.worlds import World
from torch import Tensor

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported
from guidon.guidance import (
    CADS,
    CFG,
    GIVEN,
    NULL,
    PAG,
    Autoguidance,
    Branch,
    ClassifierGuidance,
    Internal,
    Moment,
    Negative,
)
from guidon.guidance.conditions import NEGATIVE
from guidon.noise import EDM, Cosine, Flow, Level, Prediction, VPTable
from guidon.noise.level import ddpm_time
from guidon.perturbation import Corruption
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.solvers import Euler, Heun
from guidon.tasks.generate import generate

LABELS, SEEDS = [0, 3, 1, 4], [5, 6, 7, 8]


def at(noise_level: float) -> Moment:
    return Moment(EDM().level(noise_level), EDM().clean)


def level_of(t: float) -> float:
    """Return the noise level of DDPM's process at a time: its variance grows from 0.1 to 20."""
    return math.sqrt(math.expm1(0.1 * t + 9.95 * t**2))


def test_the_papers_time_is_that_of_ddpm() -> None:
    for t in (1e-3, 0.2, 0.6, 0.9, 1.0):
        assert math.isclose(ddpm_time(level_of(t)), t, rel_tol=1e-9)
    assert (ddpm_time(0.0), ddpm_time(1e9), ddpm_time(math.inf)) == (0.0, 1.0, 1.0)
    table = VPTable()  # a thousand steps of the same process
    for t in (100.0, 400.0, 800.0):
        assert abs(ddpm_time(table.level(t).noise_level) - t / 1000) < 5e-3  # type: ignore[arg-type]


def test_the_condition_comes_back_in_a_straight_line() -> None:
    stage = CADS(0.6, 0.9)
    times = {0.95: 0.0, 0.9: 0.0, 0.825: 0.25, 0.75: 0.5, 0.6: 1.0, 0.3: 1.0}
    for t, keep in times.items():
        assert math.isclose(stage.keep(at(level_of(t))), keep, abs_tol=1e-9)


@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow(), VPTable()], ids=str)
def test_the_same_noise_level_keeps_as_much_in_every_process(process: Any) -> None:
    for noise_level in (0.5, 8.0, 20.0):
        there = Moment(process.level_at(noise_level), process.clean)
        assert math.isclose(CADS().keep(there), CADS().keep(at(noise_level)), abs_tol=1e-3)


def test_every_branch_that_is_told_the_given_condition_is_told_the_blurred_one() -> None:
    rule = CFG(3.0) | PAG(2.0) | Autoguidance(2.0) | Internal(2.0) | CADS(scale=0.2, mixing=0.7)
    noisy, half, late = at(level_of(0.95)), at(level_of(0.75)), at(level_of(0.5))
    for moment, keep in ((noisy, 0.0), (half, 0.5)):
        for branch in rule.branches(moment, rule.init()):
            if branch.condition == "given":
                assert branch.corruption is not None
                assert math.isclose(branch.corruption.keep, keep, abs_tol=1e-9)
                assert (branch.corruption.scale, branch.corruption.mixing) == (0.2, 0.7)
            else:
                assert branch == NULL
    assert all(branch.corruption is None for branch in rule.branches(late, rule.init()))
    assert (Negative(3.0) | CADS()).branches(noisy, (None, None)) == (
        Branch("given", corruption=Corruption(0.0, 0.1)),
        NEGATIVE,
    )
    classifier = ClassifierGuidance(2.0, base="given") | CADS()
    branches = classifier.branches(noisy, classifier.init())
    assert [branch.corruption is not None for branch in branches] == [True, False]


def test_the_answers_come_back_under_the_names_that_are_wanted() -> None:
    world, seen = World(EDM()), []
    rule = CFG(3.0) | CADS(0.1, 0.2, scale=0.5)
    trajectory = world.trajectory(rule, LABELS, SEEDS, look_on=seen.append)
    Engine(world.networks).run([trajectory])
    first = seen[0]
    blurred = next(branch for branch in first.predictions if branch.corruption is not None)
    given, null = first.predictions[blurred].x0, first.predictions[NULL].x0
    agree(first.guided.x0, null + 3 * (given - null), "guided")
    assert all(int(event.asked.max()) == 2 for event in seen)
    assert GIVEN in seen[-1].predictions


def test_the_network_is_told_the_formula_and_the_null_as_it_was() -> None:
    world = World(EDM())
    trajectory = world.trajectory(CFG(3.0) | CADS(0.1, 0.2, scale=0.5, mixing=0.0), LABELS, SEEDS)
    given, null = trajectory.queries
    noise = PerImageNoise([seed + 1000 for seed in SEEDS], (3,), dtype=torch.float64).of_shape((3,))
    agree(given.context.vector, 0.5 * noise, "blurred condition")  # type: ignore[arg-type]
    assert null.context.vector is not None
    assert bool((null.context.vector[:, 0] == -1).all())


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=str)
def test_images_are_their_own(solver: Any) -> None:
    world, rule = World(EDM(), solver=solver), CFG(3.0) | CADS(0.1, 0.3, scale=2.0, mixing=0.0)
    images = world.run(rule, LABELS, SEEDS)
    assert not torch.allclose(images, world.run(CFG(3.0), LABELS, SEEDS))
    for i in range(4):
        agree(images[i : i + 1], world.run(rule, LABELS[i : i + 1], SEEDS[i : i + 1]), f"image {i}")
    agree(world.run(rule, LABELS, SEEDS, batching="sequential"), images, "one by one")


def test_its_noise_is_not_that_of_the_images() -> None:
    """Where nothing is blurred an image is as without the stage, and blurring leaves the start and the solver's noise alone."""
    levels = [EDM().level(t) for t in (4.0, 2.0, 1.0, 0.0)]
    options: dict[str, Any] = {
        "process": EDM(),
        "levels": levels,
        "solver": Euler(),
        "seeds": [1, 2],
        "shape": (2,),
    }

    def network(x: Tensor, level: Level, context: Context) -> Prediction:
        assert context.vector is not None
        return Prediction.from_x0(x, x / 3 + context.vector.float(), level)

    def run(rule: Any) -> Any:
        return generate({"main": network}, told([0.0, 1.0]), rule=rule, **options)

    plain = run(CFG(2.0)).x
    assert torch.equal(run(CFG(2.0) | CADS(1.0, 1.1)).x, plain)
    assert not torch.equal(run(CFG(2.0) | CADS(0.0, 0.1, scale=9.0)).x, plain)
    assert run(CFG(2.0) | CADS(0.0, 0.1)).nfe == 6


def test_its_noise_is_new_at_each_evaluation_and_not_the_images_start() -> None:
    told_, started = [], []

    def network(x: Tensor, level: Level, context: Context) -> Prediction:
        told_.append(context.vector)
        started.append(x / level.sigma)
        return Prediction.from_x0(x, x / 3, level)

    generate(
        {"main": network},
        {"given": Context(vector=torch.zeros(2, 3))},
        process=EDM(),
        levels=[EDM().level(t) for t in (60.0, 50.0, 0.0)],
        solver=Euler(),
        rule=CFG(1.0) | CADS(0.0, 0.1, scale=1.0, mixing=0.0),
        seeds=[1, 2],
        shape=(3,),
    )
    draws = [*told_, started[0]]
    assert all(not torch.allclose(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_a_run_without_noise_for_conditions_is_refused() -> None:
    levels = [EDM().level(t) for t in (40.0, 2.0)]
    with pytest.raises(NotSupported, match="row_noise"):
        Trajectory(normal(2, 2), levels, Euler(), CFG(2.0) | CADS(), told([0, 1]), lambda: normal(2, 2))


@pytest.mark.parametrize("bad", [(0.9, 0.6), (-0.1, 0.5), (0.5, 0.5), (0.6, 0.9, -1.0), (0.6, 0.9, 0.1, 1.1)])
def test_bad_settings(bad: tuple[float, ...]) -> None:
    with pytest.raises(BadValue, match="cads needs"):
        CADS(*bad)
