"""Reusing the last difference: counts, and the images by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.numbers import agree, normal
from support.worlds import World

from guidon.errors import BadValue
from guidon.guidance import (
    CFG,
    GIVEN,
    NULL,
    PAG,
    TSG,
    Autoguidance,
    ClassifierGuidance,
    Internal,
    Interval,
    Moment,
    Negative,
    Reuse,
    Rule,
)
from guidon.noise import EDM, Flow, Level, Prediction
from guidon.solvers import Heun

LABELS, SEEDS = [0, 3, 1, 4], [5, 6, 7, 8]
LEVELS = [Level(float(t), 0.6, float(t)) for t in (4, 3, 2, 1)]


def counts(rule: Rule, **world: Any) -> list[int]:
    """Return the evaluations of every image at each evaluation of a run, the same for all."""
    _, events, _ = World(EDM(), **{"steps": 7, **world}).watched(rule, LABELS, SEEDS)
    assert all(len(set(event.asked.tolist())) == 1 for event in events)
    return [int(event.asked[0]) for event in events]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (CFG(3.0) | Reuse(2), [2, 1, 2, 1, 2, 1, 2]),
        (CFG(3.0) | Reuse(3), [2, 1, 1, 2, 1, 1, 2]),
        (Negative(3.0) | Reuse(2), [2, 1, 2, 1, 2, 1, 2]),
        (Autoguidance(2.0) | Reuse(2), [2, 1, 2, 1, 2, 1, 2]),
        (TSG(2.0) | Reuse(2), [2, 1, 2, 1, 2, 1, 2]),
        (CFG(3.0) | PAG(2.0) | Reuse(4), [3, 1, 1, 1, 3, 1, 1]),
        (CFG(3.0) | Reuse(2) | PAG(2.0), [3, 1, 3, 1, 3, 1, 3]),
        (CFG(3.0) | Reuse(1), [2] * 7),
        (Internal(2.0) | CFG(3.0) | Reuse(3), [2, 1, 1, 2, 1, 1, 2]),
    ],
    ids=str,
)
def test_counts(rule: Rule, expected: list[int]) -> None:
    assert counts(rule) == expected


def test_heun_asks_in_both_evaluations_of_a_step_or_in_none() -> None:
    assert counts(CFG(3.0) | Reuse(2), solver=Heun(), steps=5) == [2, 2, 1, 1, 2, 2, 1, 1, 2]


def test_an_interval_starts_counting_where_it_opens() -> None:
    rule = CFG(3.0, when=Interval(0.2, 6.0)) | Reuse(2)
    _, events, _ = World(EDM(), steps=9).watched(rule, LABELS, SEEDS)
    inside = [event for event in events if 0.2 < event.at.noise_level <= 6.0]
    assert inside[0].at.index % 2 == 1, "so that the count is the interval's own"
    assert [len(event.predictions) for event in inside] == [2, 1, 2, 1, 2, 1, 2][: len(inside)]
    assert all(len(event.predictions) == 1 for event in events if event not in inside)


@pytest.mark.parametrize("space", ["eps", "x0", "v", "velocity", "score"])
def test_the_difference_of_the_space_is_kept(space: str) -> None:
    rule, state = CFG(2.5) | Reuse(3, space=space), (CFG(2.5) | Reuse(3, space=space)).init()
    kept = None
    for index in range(3):
        at = Moment(LEVELS[index], LEVELS[index + 1], index, 3)
        given, null = (
            Prediction.from_eps(normal(2, 5, seed=index), normal(2, 5, seed=9 + index + 40 * k), LEVELS[index])
            for k in range(2)
        )
        assert rule.branches(at, state) == ((GIVEN, NULL) if index == 0 else (GIVEN,))
        kept = getattr(given, space) - getattr(null, space) if kept is None else kept
        guided, state = rule.combine({GIVEN: given, NULL: null} if index == 0 else {GIVEN: given}, at, state)
        want = given.moved(space, 1.5 * kept)
        agree(guided.x0, want.x0, "x0")
        agree(guided.eps, want.eps, "eps")


def test_images_are_their_own_and_every_1_is_the_rule() -> None:
    world, rule = World(EDM(), steps=7), CFG((2.0, 7.0, 0.5, 1.0)) | Reuse(2)
    images = world.run(rule, LABELS, SEEDS)
    for i, weight in enumerate((2.0, 7.0, 0.5, 1.0)):
        alone = world.run(CFG(weight) | Reuse(2), LABELS[i : i + 1], SEEDS[i : i + 1])
        agree(images[i : i + 1], alone, f"image {i}")
    agree(world.run(rule, LABELS, SEEDS, batching="sequential"), images, "one by one")
    assert torch.equal(world.run(CFG(3.0) | Reuse(1), LABELS, SEEDS), world.run(CFG(3.0), LABELS, SEEDS))
    assert not torch.allclose(world.run(CFG(3.0) | Reuse(2), LABELS, SEEDS), world.run(CFG(3.0), LABELS, SEEDS))


def test_where_nothing_can_be_saved_it_is_refused() -> None:
    for rule in (Internal(2.0), ClassifierGuidance(2.0)):
        with pytest.raises(BadValue, match="none that could be saved"):
            _ = rule | Reuse(3)


def test_runs_from_a_level_without_signal() -> None:
    levels = [Flow().level(t) for t in (1.0, 0.7, 0.4)]
    x = normal(2, 3)
    rule = CFG(3.0) | Reuse(2, space="x0")
    beliefs = {b: Prediction.from_v(x, normal(2, 3, seed=k), levels[0]) for k, b in enumerate((GIVEN, NULL), 1)}
    _, state = rule.combine(beliefs, Moment(levels[0], levels[1], 0, 2), rule.init())
    given = Prediction.from_v(x, normal(2, 3, seed=5), levels[1])
    guided, _ = rule.combine({GIVEN: given}, Moment(levels[1], levels[2], 1, 2), state)
    agree(guided.x0, given.x0 + 2 * (beliefs[GIVEN].x0 - beliefs[NULL].x0), "x0")


def test_settings() -> None:
    with pytest.raises(BadValue, match="every"):
        Reuse(0)
    with pytest.raises(BadValue, match="space"):
        Reuse(space="pixels")
