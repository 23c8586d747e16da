"""Rescaling of the guided belief to the size of the given one."""

from __future__ import annotations

import pytest
import torch
from support.beliefs import believing, check_degenerate, check_images_apart, check_precisions, guide, moment, views
from support.numbers import agree, f64, normal

from guidon.errors import BadValue
from guidon.guidance import CFG, CFGZero, Rescale
from guidon.noise.prediction import SPACES


@pytest.mark.parametrize("space", SPACES)
def test_laws(space: str) -> None:
    rule = CFG(4.0) | Rescale(0.6, space)
    check_images_apart(rule, space)
    check_precisions(rule, space)
    check_degenerate(rule, space)


@pytest.mark.parametrize("space", SPACES)
def test_reaches_the_deviation_of_the_given_branch(space: str) -> None:
    given, null = views()
    guided, _ = guide(CFG(5.0) | Rescale(1.0, space), given, null, space)
    agree(guided.flatten(1).std(1), given.flatten(1).std(1), "deviation")
    whole, _ = guide(CFG(5.0), given, null, space)
    half, _ = guide(CFG(5.0) | Rescale(0.5, space), given, null, space)
    agree(half, (guided + whole) / 2, "halfway")


def test_by_hand() -> None:
    """Deviations 1 and 3 (unbiased), mixed 0.7: a factor of 0.7 / 3 + 0.3; the mean shrinks along."""
    given, guided = believing(f64([[1.0, 2.0, 3.0]]), "v"), believing(f64([[1.0, 4.0, 7.0]]), "v")
    after, _ = Rescale().reshape(guided, given, moment(), None)
    agree(after.v, f64([[1.0, 4.0, 7.0]]) * (0.7 / 3 + 0.3), "rescaled")


def test_neutral() -> None:
    given, null = views()
    assert torch.equal(guide(CFG(4.0) | Rescale(0.0), given, null)[0], guide(CFG(4.0), given, null)[0])
    assert torch.equal(guide(CFG(1.0) | Rescale(0.7), given, null)[0], given)


def test_one_number_has_no_deviation() -> None:
    given, null = normal(3, 1, seed=1), normal(3, 1, seed=2)
    assert torch.equal(guide(CFG(4.0) | Rescale(), given, null)[0], guide(CFG(4.0), given, null)[0])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_stands_still_is_not_blown_up(space: str, dtype: torch.dtype) -> None:
    """The reference gives NaN after a zeroed step."""
    given, null = (100 * view.to(dtype) for view in views())
    guided, _ = guide(CFG(4.0) | CFGZero(1, space) | Rescale(0.7, space), given, null, space, moment(0))
    assert guided.abs().max() < 1e-3


@pytest.mark.parametrize("mix", [-0.1, 1.1, float("nan")])
def test_refused(mix: float) -> None:
    with pytest.raises(BadValue, match="share"):
        Rescale(mix)
    with pytest.raises(BadValue, match="no space"):
        Rescale(0.5, "pixels")
