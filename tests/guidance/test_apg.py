"""Adaptive projected guidance."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.beliefs import check_degenerate, check_images_apart, check_precisions, guide, views
from support.drive import moments, sample
from support.mixtures import Exact, field, told
from support.numbers import agree, f64, normal

from guidon.errors import BadValue
from guidon.guidance import APG, CFG, Interval, Moment
from guidon.guidance.space import dot
from guidon.noise import EDM
from guidon.noise.prediction import SPACES
from guidon.solvers import Heun


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("stage", [{}, {"radius": 2.0, "eta": 0.3}, {"momentum": -0.5, "axes": (1,), "radius": 0.5}])
def test_laws(stage: dict[str, Any], space: str) -> None:
    rule = CFG(4.0) | APG(**stage, space=space)
    check_images_apart(rule, space)
    check_precisions(rule, space)
    check_degenerate(rule, space)


@pytest.mark.parametrize("space", SPACES)
def test_reduces_to_cfg(space: str) -> None:
    given, null = views()
    neutral = APG(eta=1.0, space=space)
    agree(guide(CFG(4.0) | neutral, given, null, space)[0], null + 4 * (given - null), "neutral")
    for stage in (neutral, APG(0.0, 1.0, -0.5, space)):
        agree(guide(CFG(1.0) | stage, given, null, space)[0], given, "w = 1")
        agree(guide(CFG(0.0) | stage, given, null, space)[0], null, "w = 0")


def test_by_hand() -> None:
    """c = (3, 0), u = (1, -4): along c the difference is (2, 0), across (0, 4)."""
    given, null = f64([[3.0, 0.0]]), f64([[1.0, -4.0]])
    agree(guide(CFG(3.0) | APG(), given, null)[0], f64([[3.0, 8.0]]), "across only")
    agree(guide(CFG(3.0) | APG(eta=0.5), given, null)[0], f64([[5.0, 8.0]]), "half along")
    cut = APG(radius=math.sqrt(5))  # half its length
    agree(guide(CFG(3.0) | cut, given, null)[0], f64([[3.0, 4.0]]), "cut")
    assert torch.equal(
        guide(CFG(3.0) | APG(radius=5), given, null)[0], guide(CFG(3.0) | APG(), given, null)[0]
    )  # short enough


def test_more_than_all_along() -> None:
    given, null = f64([[3.0, 0.0]]), f64([[1.0, -4.0]])
    agree(guide(CFG(3.0) | APG(eta=2.0), given, null)[0], f64([[11.0, 8.0]]), "twice along")


def test_without_a_radius_no_length_is_taken() -> None:
    """In single precision the squares of these would be infinite."""
    given, null = f64([[3e25, 0.0]]).float(), f64([[1e25, -4e25]]).float()
    agree(guide(CFG(3.0) | APG(eta=1.0), given, null)[0], f64([[7e25, 8e25]]), "as cfg", rtol=1e-6)


def test_momentum_by_hand() -> None:
    """1, then 2 - 0.5, then 3 - 0.75: kept before it is cut."""
    rule, state = CFG(2.0) | APG(1.0, 1.2, -0.5), None
    for difference, kept in ((1.0, 1.0), (2.0, 1.5), (3.0, 2.25)):
        given, null = f64([[5.0]]), f64([[5.0 - difference]])
        guided, state = guide(rule, given, null, state=state)
        agree(guided, given + min(kept, 1.2), "guided")
        agree(state[1][0], f64([[kept]]), "kept")


def test_momentum_rests_where_the_branches_agree() -> None:
    """1, nothing, a half that starts anew, and 0.3 - 0.25; each image by itself."""
    rule, state = CFG(2.0) | APG(1.0, momentum=-0.5), None
    for differences, kept in (
        ((1.0, 1.0), (1.0, 1.0)),
        ((0.0, 2.0), (0.0, 1.5)),
        ((0.5, 0.5), (0.5, -0.25)),
        ((0.3, 0.0), (0.05, 0.0)),
    ):
        given = f64([[5.0], [5.0]])
        guided, state = guide(rule, given, given - f64(differences)[:, None], state=state)
        agree(guided, given + f64(kept)[:, None], "guided")
        agree(state[1][0], f64(kept)[:, None], "kept")


def test_result_has_nothing_along_the_given_belief() -> None:
    given, null = views()
    guided, _ = guide(CFG(6.0) | APG(), given, null)
    agree(dot(guided - given, given), 0 * dot(given, given), "along", atol=1e-11)


def test_axes() -> None:
    """One length for each place, over channels: the same as places being images of their own."""
    given, null = views(2, 3, 4, 4)
    places = [view.permute(0, 2, 3, 1).reshape(-1, 3) for view in (given, null)]
    stage = {"eta": 0.2, "radius": 1.0}
    got, _ = guide(CFG(3.0) | APG(**stage, axes=(1,)), given, null)
    want, _ = guide(CFG(3.0) | APG(**stage), *places)
    agree(got.permute(0, 2, 3, 1).reshape(-1, 3), want, "places")
    agree(guide(CFG(3.0) | APG(**stage, axes=(-3,)), given, null)[0], got, "counted from the end")


def test_no_memory_outside_of_the_interval() -> None:
    rule = CFG(3.0, when=Interval(0.5, 2.0)) | APG(momentum=-0.5)
    given, null = views()
    inside, outside = (Moment(EDM().level(tau), EDM().clean) for tau in (1.0, 0.4))
    _, state = guide(rule, given, null, at=inside)
    guided, after = guide(rule, given, null, at=outside, state=state)
    assert after[1][0] is state[1][0]
    agree(guided, given, "outside")


def test_remembers_once_a_step() -> None:
    """Both evaluations of Heun's step start from the memory that the step began with."""
    remembered: list[tuple[int, Any]] = []

    class Spy(APG):
        def shape(self, pull, at, state):  # type: ignore[no-untyped-def]
            remembered.append((at.index, state))
            return super().shape(pull, at, state)

    levels = [EDM().level(tau) for tau in (4.0, 2.0, 1.0, 0.5)] + [EDM().clean]
    rule, network, x = CFG(3.0) | Spy(momentum=-0.5), Exact(field()), 4 * normal(4, 2, 3, 3)
    sample(network, levels, Heun(), rule, x, told([0, 1, 1, 0]))
    assert [index for index, _ in remembered] == [0, 0, 1, 1, 2, 2, 3]
    assert len(moments(levels)) == 4
    states = [state for _, state in remembered]
    assert states[0] is None
    assert states[1] is None
    assert all(states[i] is states[i + 1] is not None for i in (2, 4))
    assert len({id(state) for state in states}) == 4


@pytest.mark.parametrize(
    "bad",
    [{"radius": 0.0}, {"radius": -1.0}, {"momentum": 1.0}, {"axes": ()}, {"axes": (0, 1)}, {"space": "pixels"}],
)
def test_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadValue):
        APG(**bad)
