"""The weight over the mean size of the state."""

from __future__ import annotations

import pytest
import torch
from support.numbers import agree, f64
from support.worlds import World

from guidon.errors import BadValue
from guidon.guidance import APG, CFG, GIVEN, NULL, DynamicScale, Interval, LinearWeight, Moment
from guidon.noise import EDM, Level, Prediction

LABELS, SEEDS = [0, 3, 1, 4], [5, 6, 7, 8]
HERE = Level(2.0, 1.0, 2.0)
AT = Moment(HERE, EDM().clean)


def beliefs(x: torch.Tensor) -> dict:
    return {GIVEN: Prediction.from_eps(x, 0 * x + 3, HERE), NULL: Prediction.from_eps(x, 0 * x + 1, HERE)}


def test_each_image_by_its_own_size() -> None:
    x = f64([[1.0, -3.0], [0.5, 0.5], [-4.0, 0.0]])  # type: ignore[list-item]
    guided, _ = DynamicScale(1.5, base=2.0).combine(beliefs(x), AT, None)
    weights = [1.5 * 2 / (size + 1e-6) for size in (2.0, 0.5, 2.0)]
    agree(guided.eps, f64([[1 + 2 * w] * 2 for w in weights]), "eps")  # type: ignore[misc]
    agree(x, guided.x0 + 2 * guided.eps, "what belongs together")


def test_an_image_that_is_all_zero_is_finite() -> None:
    guided, _ = DynamicScale(1.5).combine(beliefs(f64([[0.0, 0.0]])), AT, None)  # type: ignore[list-item]
    agree(guided.eps, f64([[1 + 2 * 1.5e6] * 2]), "eps")  # type: ignore[list-item]


def test_weights_per_image_over_time_and_in_an_interval() -> None:
    x = f64([[1.0, -3.0], [0.5, 0.5]])  # type: ignore[list-item]
    guided, _ = DynamicScale((0.0, 1.0)).combine(beliefs(x), AT, None)
    agree(guided.eps, f64([[1.0, 1.0], [1 + 2 / (0.5 + 1e-6)] * 2]), "eps")  # type: ignore[list-item]
    assert DynamicScale(1.0).branches(AT, None) == (GIVEN, NULL), "weight 1 is not plain conditional"
    assert DynamicScale(0.0).branches(AT, None) == (NULL,)
    assert DynamicScale(2.0, when=Interval(3.0, 5.0)).branches(AT, None) == (GIVEN,)
    world = World(EDM())
    assert torch.equal(world.run(DynamicScale(0.0), LABELS, SEEDS), world.run(CFG(0.0), LABELS, SEEDS))
    never = DynamicScale(2.0, when=Interval(90.0, 99.0))
    assert torch.equal(world.run(never, LABELS, SEEDS), world.run(CFG(1.0), LABELS, SEEDS))
    first = DynamicScale(LinearWeight(0.0, 2.0))
    assert [len(event.predictions) for event in world.watched(first, LABELS, SEEDS)[1]] == [1, 2, 2, 2, 2, 2]


def test_images_are_their_own() -> None:
    world = World(EDM())
    for weight in (2.0, (2.0, 0.0, 1.0, 5.0)):
        for more in ((), (APG(),)):
            rules = [DynamicScale(w) for w in (weight if isinstance(weight, tuple) else (weight,) * 4)]
            together = DynamicScale(weight)
            for stage in more:
                rules, together = [rule | stage for rule in rules], together | stage  # type: ignore[misc, assignment]
            images = world.run(together, LABELS, SEEDS)
            for i, rule in enumerate(rules):
                agree(images[i : i + 1], world.run(rule, LABELS[i : i + 1], SEEDS[i : i + 1]), f"image {i}")


def test_settings() -> None:
    with pytest.raises(BadValue, match="base"):
        DynamicScale(2.0, base=0.0)
    with pytest.raises(BadValue, match="stand first"):
        CFG(2.0) | DynamicScale(2.0)
