"""Tangential CFG against a singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from support.beliefs import believing, check_degenerate, check_images_apart, check_precisions, guide, moment, views
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG, TCFG
from guidon.guidance.contrast import Pull
from guidon.noise.prediction import SPACES


def projected(given: Tensor, null: Tensor, space: str = "eps") -> Tensor:
    pull = Pull(believing(given, space), believing(null, space), 3.0)
    after, _ = TCFG(space).shape(pull, moment(), None)
    found: Tensor = getattr(after, space)
    return found


@pytest.mark.parametrize("space", SPACES)
def test_laws(space: str) -> None:
    rule = CFG(4.0) | TCFG(space)
    check_images_apart(rule, space)
    check_precisions(rule, space)
    check_degenerate(rule, space)


@pytest.mark.parametrize("shape", [(4, 2, 6, 6), (3, 7), (2, 1)])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999, -0.9])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e5])
def test_is_the_projection(shape: tuple[int, ...], share: float, size: float) -> None:
    given, null = views(*shape)
    null = size * (share * given + (1 - abs(share)) * null)
    rows = torch.stack([given.flatten(1), null.flatten(1)], 1)
    first = torch.linalg.svd(rows, full_matrices=False).Vh[:, :1]
    want = ((rows[:, 1:] * first).sum(-1, keepdim=True) * first).reshape(shape)
    agree(projected(given, null), want, "projection", rtol=1e-8, atol=1e-9 * size)


def test_by_hand() -> None:
    """c = (2, 0), u = (0, 1): the main direction is that of c, where u has nothing."""
    agree(projected(f64([[2.0, 0.0]]), f64([[0.0, 1.0]])), f64([[0.0, 0.0]]), "u")
    agree(projected(f64([[1.0, 0.0]]), f64([[0.0, 2.0]])), f64([[0.0, 2.0]]), "u")
    agree(projected(f64([[1.0, 0.0]]), f64([[0.0, 1.0]])), f64([[0.0, 1.0]]), "neither is the main one")
    small = projected(f64([[2e-9, 0.0]]), f64([[1e-9, 1e-9]]))
    agree(small, f64([[1.170820e-9, 2.763932e-10]]), "small", rtol=1e-4, atol=0)


def test_what_is_parallel_stays() -> None:
    given = normal(3, 8)
    for factor in (1.0, -0.5, 2.0, 1e-8):
        agree(projected(given, factor * given), factor * given, "parallel", atol=1e-14)
    agree(projected(given, 0 * given), 0 * given, "zero")
    agree(projected(0 * given, given), given, "alone")


@pytest.mark.parametrize("space", SPACES)
def test_neutral_weights(space: str) -> None:
    given, null = views()
    agree(guide(CFG(1.0) | TCFG(space), given, null, space)[0], given, "w = 1")
    agree(guide(CFG(0.0) | TCFG(space), given, null, space)[0], null, "w = 0")


def test_refused() -> None:
    with pytest.raises(BadValue, match="no space"):
        TCFG("pixels")
