"""Clipping of the guided clean image, static and dynamic."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from support.beliefs import (
    LEVEL,
    believing,
    check_degenerate,
    check_images_apart,
    check_precisions,
    guide,
    moment,
    views,
)
from support.numbers import agree, f64, normal

from guidon.errors import BadValue
from guidon.guidance import CFG, DynamicThreshold, Threshold
from guidon.guidance.threshold import quantile
from guidon.noise import Level

STAGES = [Threshold(), Threshold(-0.5, 0.7, rederive=False), DynamicThreshold(0.9), DynamicThreshold(0.5, 2.0, False)]


@pytest.mark.parametrize("stage", STAGES)
def test_laws(stage: Threshold | DynamicThreshold) -> None:
    check_images_apart(CFG(4.0) | stage)
    check_precisions(CFG(4.0) | stage)
    check_degenerate(CFG(4.0) | stage)


def test_static() -> None:
    told = believing(f64([[[-3.0, -0.2], [0.4, 2.0]]]))
    for rederive in (True, False):
        after, _ = Threshold(-1, 0.5, rederive).reshape(told, told, moment(), None)
        assert after.x0.tolist() == [[[-1.0, -0.2], [0.4, 0.5]]]
        if rederive:
            agree(after.x0 * LEVEL.alpha + after.eps * LEVEL.sigma, told.x, "x")
        else:
            assert after.eps is told.eps


def test_dynamic_by_hand() -> None:
    """At the percentile 0.75 of five values the range is the fourth by size."""
    told = believing(f64([[-3.0, 0.5, 2.0, -1.0, 0.25], [0.9, -0.5, 0.1, 0.0, 0.3]]))
    after, _ = DynamicThreshold(0.75).reshape(told, told, moment(), None)
    agree(after.x0[0], f64([-1.0, 0.25, 1.0, -0.5, 0.125]), "shrunk")
    assert torch.equal(after.x0[1], told.x0[1])  # in range before
    assert torch.equal(after.eps[1], told.eps[1])
    capped, _ = DynamicThreshold(0.75, most=1.5).reshape(told, told, moment(), None)
    agree(capped.x0[0], f64([-1.5, 0.5, 1.5, -1.0, 0.25]) / 1.5, "capped")
    plain, _ = DynamicThreshold(0.75, most=1.0).reshape(told, told, moment(), None)
    clipped, _ = Threshold().reshape(told, told, moment(), None)
    assert torch.equal(plain.x0, clipped.x0)


def test_the_belief_without_guidance_does_not_matter() -> None:
    guided = believing(f64([[4.0, -2.0, 1.0]]))
    for stage, x0 in (
        (Threshold(), [1.0, -1.0, 1.0]),
        (DynamicThreshold(0.5), [1.0, -1.0, 0.5]),
        (DynamicThreshold(0.5, most=1.5), [1.0, -1.0, 2 / 3]),
    ):
        for rederive in (True, False):
            clip = dataclasses.replace(stage, rederive=rederive)
            for given in (guided, believing(f64([[-9.0, 0.1, 7.0]]))):
                after, _ = clip.reshape(guided, given, moment(), None)
                agree(after.x0, f64([x0]), "x0")
                eps = (guided.x - LEVEL.alpha * after.x0) / LEVEL.sigma if rederive else guided.eps
                agree(after.eps, eps, "eps")


def test_never_leaves_the_range() -> None:
    given, null = views()
    for rule in (CFG(9.0) | Threshold(), CFG(9.0) | DynamicThreshold(0.8)):
        guided, _ = guide(rule, given, null)
        assert guided.abs().max() <= 1


def test_in_range_nothing_changes() -> None:
    given, null = (0.1 * view for view in views())
    for stage in (Threshold(), DynamicThreshold()):
        assert torch.equal(guide(CFG(2.0) | stage, given, null)[0], guide(CFG(2.0), given, null)[0])


def test_where_no_signal_is_left() -> None:
    told = believing(3 * normal(2, 3), level=Level(1.0, 0.0, 1.0))
    after, _ = Threshold().reshape(told, told, moment(), None)
    assert torch.equal(after.eps, told.eps)
    assert after.x0.abs().max() <= 1


@pytest.mark.parametrize("n", [1, 2, 3, 10, 257])
@pytest.mark.parametrize("share", [1e-9, 0.1, 0.5, 0.75, 0.995, 1.0])
def test_quantile_is_that_of_torch(n: int, share: float) -> None:
    values = normal(5, n).abs()
    values[0] = 0.3  # ties
    agree(quantile(values, share), torch.quantile(values, share, dim=1), "quantile", rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Threshold(1, -1), "low < high"),
        (lambda: Threshold(0, math.nan), "low < high"),
        (lambda: DynamicThreshold(0.0), "percentile"),
        (lambda: DynamicThreshold(99.5), "percentile"),
        (lambda: DynamicThreshold(0.9, most=0.5), "most >= 1"),
    ],
)
def test_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadValue, match=message):
        make()
