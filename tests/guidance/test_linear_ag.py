"""Linear adaptive guidance: exact where the relation is linear, and better than reusing the difference where it is nearly so."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.numbers import agree, normal
from support.worlds import World

from guidon.errors import BadValue
from guidon.guidance import CFG, GIVEN, NULL, PAG, Adaptive, Interval, LinearAG, Moment, Reuse, Rule
from guidon.noise import EDM, Level, Prediction
from guidon.solvers import Heun

LABELS, SEEDS = [0, 3, 1, 4], [5, 6, 7, 8]
LEVELS = [Level(8.0 - t, 0.8, 8.0 - t) for t in range(8)]


def counts(rule: Rule, **world: Any) -> list[int]:
    _, events, _ = World(EDM(), **{"steps": 7, **world}).watched(rule, LABELS, SEEDS)
    assert all(len(set(event.asked.tolist())) == 1 for event in events)
    return [int(event.asked[0]) for event in events]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (CFG(3.0) | LinearAG(2), [2, 2, 1, 2, 1, 2, 1]),
        (CFG(3.0) | LinearAG(3), [2, 2, 1, 1, 2, 1, 1]),
        (CFG(3.0) | PAG(2.0) | LinearAG(2), [3, 3, 1, 3, 1, 3, 1]),
        (CFG(3.0) | LinearAG(1), [2] * 7),
    ],
    ids=str,
)
def test_counts(rule: Rule, expected: list[int]) -> None:
    assert counts(rule) == expected


def test_heun_asks_in_both_evaluations_of_a_step_or_in_none() -> None:
    assert counts(CFG(3.0) | LinearAG(2), solver=Heun(), steps=5) == [2, 2, 2, 2, 1, 1, 2, 2, 1]


@pytest.mark.parametrize("space", ["eps", "x0", "v", "velocity", "score"])
@pytest.mark.parametrize("every", [2, 4])
def test_exact_where_the_relation_is_linear(space: str, every: int) -> None:
    """Each image has a relation of its own; guesses that follow guesses are exact too."""
    rule = CFG(4.0) | LinearAG(every, space=space)
    state, coefficients, guessed = rule.init(), normal(3, 3, seed=3)[..., None], 0
    before_given = before_null = torch.empty(0)
    for index in range(7):
        at = Moment(LEVELS[index], LEVELS[index + 1], index, 7)
        base, other = (
            Prediction.from_eps(normal(3, 30, seed=k + index), normal(3, 30, seed=k + 20 + index), LEVELS[index])
            for k in (50, 100)
        )
        given, null = getattr(base, space), getattr(other, space)  # anything at first; then from the step before
        if index:
            past = zip(coefficients.unbind(1), (given, before_given, before_null), strict=True)
            null = torch.stack([c * part for c, part in past]).sum(0)
        beliefs = {GIVEN: base, NULL: base.moved(space, null - given)}
        wanted = rule.branches(at, state)
        guessed += wanted == (GIVEN,)
        guided, state = rule.combine({branch: beliefs[branch] for branch in wanted}, at, state)
        want = base.moved(space, 3 * (given - null))
        agree(guided.x0, want.x0, "x0", rtol=1e-7, atol=1e-7)
        before_given, before_null = given, null
    assert guessed == {2: 3, 4: 4}[every]


def guessed(given: list[Any], differences: list[Any]) -> Any:
    """Return the difference that is guessed in the third step, after two that asked."""
    rule, guided = CFG(2.0) | LinearAG(2), None
    state = rule.init()
    for index, here in enumerate(given):
        eps = torch.tensor([here], dtype=torch.float64)
        told = {GIVEN: Prediction.from_eps(0 * eps, eps, LEVELS[index])}
        if index < 2:
            away = eps - torch.tensor([differences[index]], dtype=torch.float64)
            told[NULL] = Prediction.from_eps(0 * eps, away, LEVELS[index])
        at = Moment(LEVELS[index], LEVELS[index + 1], index, 7)
        assert rule.branches(at, state) == tuple(told)
        guided, state = rule.combine(told, at, state)
    assert guided is not None
    return guided.eps - eps


def test_by_hand() -> None:
    """The second difference is given / 2 and twice the first one; given did not change, so its change tells nothing."""
    third = guessed([[1, 0, 0], [1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0.5, 2, 0]])
    agree(third, torch.tensor([[1, 4, 0.5]]), "given / 2 and twice the second")


def test_directions_that_are_short_are_left_out() -> None:
    """Given and its change are the angle apart. Where that is too small both count the same, and half of what one would."""
    for angle, want in ((0.1, [0, 0, 3]), (0.01, [-1.5, 0, 3])):
        first = [1 - math.cos(angle), -math.sin(angle), 0]
        third = guessed([first, [1, 0, 0], [0, 0, 1]], [[0, 0, 0], [3, 0, 0]])
        agree(third, torch.tensor([want]), f"angle {angle}", rtol=1e-6, atol=1e-6)


def test_equal_beliefs_are_guessed_equal() -> None:
    """Regressors that are all the same leave the fit open; the smallest coefficients are taken."""
    rule, eps = CFG(4.0) | LinearAG(2), normal(2, 12)
    state = rule.init()
    for index in range(3):
        at = Moment(LEVELS[index], LEVELS[index + 1], index, 7)
        belief = Prediction.from_eps(0 * eps, eps, LEVELS[index])
        wanted = rule.branches(at, state)
        guided, state = rule.combine(dict.fromkeys(wanted, belief), at, state)
        agree(guided.eps, eps, "eps", rtol=1e-7)
    assert wanted == (GIVEN,)


def test_a_difference_that_was_next_to_nothing_is_not_blown_up() -> None:
    """It grows from 1e-8 to 1; a fit through it would take it for a growth that goes on."""
    rule, direction = CFG(2.0) | LinearAG(2), normal(2, 40, seed=9)
    state = rule.init()
    for index, size in enumerate((1e-8, 1.0, 1.0)):
        at = Moment(LEVELS[index], LEVELS[index + 1], index, 7)
        given = Prediction.from_eps(0 * direction, normal(2, 40, seed=index), LEVELS[index])
        null = given.moved("eps", size * direction)
        beliefs = {GIVEN: given, NULL: null}
        guided, state = rule.combine({b: beliefs[b] for b in rule.branches(at, state)}, at, state)
    assert (guided.eps - given.eps).abs().max() < 10


def test_nearer_to_the_rule_than_reuse() -> None:
    world = World(EDM(), steps=40)
    exact = world.run(CFG(3.0), LABELS, SEEDS)
    errors = {
        stage: (world.run(CFG(3.0) | stage, LABELS, SEEDS) - exact).square().mean().sqrt().item()
        for stage in (LinearAG(2), Reuse(2))
    }
    assert errors[LinearAG(2)] < errors[Reuse(2)] / 2, errors


def test_images_are_their_own() -> None:
    world, rule = World(EDM(), steps=7), CFG((2.0, 7.0, 0.5, 1.0)) | LinearAG(2) | Adaptive(0.99)
    images = world.run(rule, LABELS, SEEDS)
    for i, weight in enumerate((2.0, 7.0, 0.5, 1.0)):
        alone = world.run(CFG(weight) | LinearAG(2) | Adaptive(0.99), LABELS[i : i + 1], SEEDS[i : i + 1])
        agree(images[i : i + 1], alone, f"image {i}", rtol=1e-6, atol=1e-7)
    agree(world.run(rule, LABELS, SEEDS, batching="sequential"), images, "one by one", rtol=1e-6, atol=1e-7)


def test_images_that_are_no_longer_asked_do_not_spoil_the_fit_of_others() -> None:
    world = World(EDM(), steps=9)
    _, events, _ = world.watched(CFG(3.0) | Adaptive(0.9993) | LinearAG(2), LABELS, SEEDS)
    evaluations = torch.stack([event.asked for event in events])
    assert len(set(evaluations.sum(0).tolist())) > 1
    images = world.run(CFG(3.0) | Adaptive(0.9993) | LinearAG(2), LABELS, SEEDS)
    for i in range(4):
        alone = world.run(CFG(3.0) | Adaptive(0.9993) | LinearAG(2), LABELS[i : i + 1], SEEDS[i : i + 1])
        agree(images[i : i + 1], alone, f"image {i}", rtol=1e-6, atol=1e-7)


def test_a_pause_forgets() -> None:
    """After steps that wanted no other branch the relation of the steps before no longer holds: two steps ask again."""
    rule = CFG(lambda moment: 1.0 if moment.index in (3, 4) else 3.0) | LinearAG(2)
    assert counts(rule, steps=9) == [2, 2, 1, 1, 1, 2, 2, 1, 2]
    rule = CFG(lambda moment: 1.0 if moment.index == 3 else 3.0) | LinearAG(4)
    assert counts(rule, steps=9) == [2, 2, 1, 1, 2, 2, 1, 1, 1]
    outside = CFG(3.0, when=Interval(1e-6, 1e-5)) | LinearAG(2)
    assert counts(outside) == [1] * 7


def test_settings() -> None:
    with pytest.raises(BadValue, match="every"):
        LinearAG(0)
    with pytest.raises(BadValue, match="space"):
        LinearAG(space="pixels")
