"""Adaptive guidance: image by image, the other branch is asked until it agrees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.numbers import agree, f64
from support.worlds import World

from guidon.errors import BadValue
from guidon.guidance import CADS, CFG, GIVEN, NULL, PAG, Adaptive, Autoguidance, Interval, LinearWeight, Moment, Rule
from guidon.guidance.chain import Chain
from guidon.noise import EDM, Level, Prediction
from guidon.registry import parse, to_text
from guidon.solvers import Heun

LABELS, SEEDS = [0, 3, 1, 4], [5, 6, 7, 8]
HERE, THERE = Level(2.0, 1.0, 2.0), Level(1.0, 1.0, 1.0)


def told(given: list[float], null: list[list[float]]) -> dict[Any, Prediction]:
    """Return beliefs of images of two numbers: all have the same given noise, each its own null one."""
    x, away = torch.zeros(len(null), 2, dtype=torch.float64), f64(null)  # type: ignore[arg-type]
    here = f64(given).expand_as(x)
    return {GIVEN: Prediction.from_eps(x, here, HERE), NULL: Prediction.from_eps(x, away, HERE)}


def at(index: int) -> Moment:
    return Moment(HERE, THERE, index, 4)


def asked(rule: Rule, labels: list[int] = LABELS, seeds: list[int] = SEEDS, **world: Any) -> list[list[int]]:
    """Return the evaluations of each image at each evaluation of a run."""
    _, events, _ = World(EDM(), **{"steps": 8, **world}).watched(rule, labels, seeds)
    return [event.asked.tolist() for event in events]


def test_the_step_that_finds_agreement_is_guided_and_the_next_asks_no_more() -> None:
    rule = CFG(3.0) | Adaptive(0.8)
    null = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]  # cosines with (1, 0): 1, 0 and 0.6
    guided, state = rule.combine(told([1, 0], null), at(0), rule.init())
    agree(guided.eps, f64([[1, 0], [3, -2], [1.8, -1.6]]), "eps of the first step")  # type: ignore[list-item]
    assert rule.branches(at(1), state) == (GIVEN, NULL)
    assert (rule.rows(GIVEN, at(1), state), rule.rows(NULL, at(1), state)) == (None, (1, 2))

    nan = float("nan")
    guided, state = rule.combine(told([1, 0], [[nan, nan], [0.8, 0.6], [0.8, 0.6]]), at(1), state)
    agree(guided.eps, f64([[1, 0], [1.4, -1.2], [1.4, -1.2]]), "eps of the second")  # type: ignore[list-item]
    assert rule.branches(at(2), state) == (GIVEN,)  # a cosine at the threshold has passed it
    guided, after = rule.combine({GIVEN: told([1, 0], null)[GIVEN]}, at(2), state)
    agree(guided.eps, f64([[1, 0]] * 3), "eps given alone")  # type: ignore[list-item]
    assert after == state


def test_the_angle_is_taken_in_the_space_that_is_said() -> None:
    beliefs = told([1, 0], [[0.0, 1.0]])
    x0 = {b: Prediction(p.x + 9, HERE, p.x0 + 9, p.eps) for b, p in beliefs.items()}
    for space, passes in (("eps", False), ("x0", True)):
        rule = CFG(3.0) | Adaptive(0.8, space=space)
        assert (rule.branches(at(1), rule.combine(x0, at(0), rule.init())[1]) == (GIVEN,)) == passes


@pytest.mark.parametrize("solver", [None, Heun()], ids=str)
def test_counts_and_images_are_each_images_own(solver: Any) -> None:
    world = {"solver": solver} if solver else {}
    rule = CFG((2.0, 7.0, 0.5, 3.0)) | Adaptive(0.997)
    together = asked(rule, **world)
    per_image = torch.tensor(together).sum(0).tolist()
    assert len(set(per_image)) > 1, "the images pass the threshold at different steps"
    evaluations = len(together)
    assert all(evaluations < count <= 2 * evaluations for count in per_image)
    images = World(EDM(), steps=8, **world).run(rule, LABELS, SEEDS)
    for i, weight in enumerate((2.0, 7.0, 0.5, 3.0)):
        alone = CFG(weight) | Adaptive(0.997)
        assert sum(row[0] for row in asked(alone, LABELS[i : i + 1], SEEDS[i : i + 1], **world)) == per_image[i]
        image = World(EDM(), steps=8, **world).run(alone, LABELS[i : i + 1], SEEDS[i : i + 1])
        agree(images[i : i + 1], image, f"image {i}")
    for options in ({"batching": "sequential"}, {"max_batch": 3}):
        agree(World(EDM(), steps=8, **world).run(rule, LABELS, SEEDS, **options), images, str(options))


def test_once_an_image_is_given_alone_it_stays_so() -> None:
    """The whole run by hand: guided up to the step that found agreement, plain after."""
    world = World(EDM(), steps=8)
    rule = CFG(4.0) | Adaptive(0.997)
    _, events, _ = world.watched(rule, [3], [6])
    asked_until = sum(NULL in event.predictions for event in events)
    assert 1 < asked_until < 8
    by_steps = CFG(_until(asked_until, 4.0))
    agree(world.run(rule, [3], [6]), world.run(by_steps, [3], [6]), "images")


def _until(steps: int, weight: float) -> Any:
    return lambda moment: weight if moment.index < steps else 1.0


def test_never_and_at_once() -> None:
    world = World(EDM())
    agree(world.run(CFG(4.0) | Adaptive(1.0), LABELS, SEEDS), world.run(CFG(4.0), LABELS, SEEDS), "images")
    assert asked(CFG(4.0) | Adaptive(-1.0), steps=6) == [[2] * 4] + [[1] * 4] * 5


def test_every_other_branch_on_its_own() -> None:
    both = CFG(3.0) | PAG(2.0) | Autoguidance(2.0) | Adaptive(0.9995)
    _, events, _ = World(EDM(), steps=8).watched(both, LABELS, SEEDS)
    names = [{str(branch) for branch in event.predictions} for event in events]
    assert names[0] == {"given", "null", "given attention-identity", "weak given"}
    assert names[-1] == {"given"}
    assert len({frozenset(n) for n in names}) > 2, "they agree at different steps"


def test_with_cads_the_blurred_given_branch_is_still_asked_for_all() -> None:
    for rule in (
        CFG(3.0) | Adaptive(0.9993, space="eps") | CADS(0.1, 0.3),
        CFG(3.0) | CADS(0.1, 0.3) | Adaptive(0.9993, space="eps"),
    ):
        counts = asked(rule)
        assert counts[0] == [2] * 4
        assert counts[-1] == [1] * 4
        assert len(set(torch.tensor(counts).sum(0).tolist())) > 1


def test_steps_that_ask_the_given_branch_alone_change_nothing() -> None:
    rule = CFG(3.0, when=Interval(0.3, 3.0)) | Adaptive(0.0)
    given = {GIVEN: told([1, 0], [[1, 0]])[GIVEN]}
    outside = Moment(EDM().level(5.0), THERE, 0, 4)
    assert rule.combine(given, outside, rule.init())[1] == rule.init()
    assert asked(rule | Adaptive(0.0), steps=8)[0] == [1] * 4


def test_weight_0_is_not_invented() -> None:
    """An image of weight 0 is the other branch: alone it is asked as ever, and where it would be invented it is refused."""
    done = CFG(LinearWeight(2.0, 0.0)) | Adaptive(-1.0)
    counts = asked(done, steps=4)
    assert counts == [[2] * 4, [1] * 4, [1] * 4, [1] * 4]
    _, events, _ = World(EDM(), steps=4).watched(done, LABELS, SEEDS)
    assert tuple(events[-1].predictions) == (NULL,)
    for rule in (CFG((0.0, 3.0)) | Adaptive(), CFG(0.0) | PAG(2.0) | Adaptive()):
        with pytest.raises(BadValue, match="weight 0"):
            World(EDM()).run(rule, LABELS[:2], SEEDS[:2])


def test_settings() -> None:
    for bad in (-1.1, 1.1, float("nan")):
        with pytest.raises(BadValue, match="cosine"):
            Adaptive(bad)
    with pytest.raises(BadValue, match="space"):
        Adaptive(space="pixels")
    rule = parse("rule", "cfg(3) | adaptive(0.98, space='x0')")
    assert isinstance(rule, Chain)
    assert to_text(rule) == "cfg(3) | adaptive(0.98)"
