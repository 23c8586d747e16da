"""CFG-Zero*: the scaled unconditional belief and the zeroed first steps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.beliefs import believing, check_degenerate, check_images_apart, check_precisions, guide, moment, views
from support.numbers import agree, f64

from guidon.errors import BadValue
from guidon.guidance import CFG, CFGZero
from guidon.noise.prediction import SPACES


@pytest.mark.parametrize("space", SPACES)
def test_laws(space: str) -> None:
    rule = CFG(4.0) | CFGZero(space=space)
    check_images_apart(rule, space)
    check_precisions(rule, space)
    check_degenerate(rule, space)


def test_by_hand() -> None:
    """c = (2, 1), u = (1, 0): u counts twice, so that (2, 0) + 3 (0, 1)."""
    given, null = f64([[2.0, 1.0]]), f64([[1.0, 0.0]])
    guided, _ = guide(CFG(3.0) | CFGZero(0), given, null, "velocity")
    agree(guided, f64([[2.0, 3.0]]), "guided", atol=1e-7)
    # the source adds 1e-8 to |u|^2, so that a u of length 1e-4 counts half of what fits best
    guided, _ = guide(CFG(3.0) | CFGZero(0), 1e-4 * given, 1e-4 * null, "velocity")
    agree(guided, f64([[4e-4, 3e-4]]), "small")


@pytest.mark.parametrize("space", SPACES)
def test_reduces_to_cfg(space: str) -> None:
    given, null = views()
    null = given + null - (given * null).sum((1, 2, 3), keepdim=True) * null / (null**2).sum((1, 2, 3), keepdim=True)
    null = null * ((given * null).sum((1, 2, 3), keepdim=True) / (null**2).sum((1, 2, 3), keepdim=True))  # fits best
    guided, _ = guide(CFG(4.0) | CFGZero(0, space), given, null, space)
    agree(guided, null + 4 * (given - null), "s = 1", rtol=1e-8, atol=1e-8)
    given, null = views()
    agree(guide(CFG(1.0) | CFGZero(0, space), given, null, space)[0], given, "w = 1")
    agree(guide(CFG(0.0) | CFGZero(0, space), given, null, space)[0], null, "w = 0")


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("space", SPACES)
def test_first_steps_are_zero(space: str, weight: float) -> None:
    given, null = views()
    for steps in (0, 1, 2):
        rule = CFG(weight) | CFGZero(steps, space)
        still = [guide(rule, given, null, space, moment(i))[0].abs().max() < 1e-12 for i in range(4)]
        assert still == [i < steps for i in range(4)]


def test_a_zeroed_velocity_is_exactly_zero() -> None:
    for dtype in (torch.float32, torch.float64):
        given = believing(views()[0].to(dtype), "velocity")
        zeroed, _ = CFGZero().reshape(given, given, moment(0), None)
        assert torch.equal(zeroed.x0, zeroed.eps)
        agree(0.8 * zeroed.x0 + 0.6 * zeroed.eps, given.x, "x", rtol=1e-6, atol=1e-6)


def test_the_variance_stays() -> None:
    given = believing(views()[0], "velocity")
    guided = dataclasses.replace(given, variance_fraction=torch.full_like(given.x, 0.3))
    for index in (0, 1):
        shaped, _ = CFGZero().reshape(guided, given, moment(index), None)
        assert shaped.variance_fraction is guided.variance_fraction


def test_refused() -> None:
    with pytest.raises(BadValue, match="first steps"):
        CFGZero(-1)
    with pytest.raises(BadValue, match="no space"):
        CFGZero(1, "pixels")
