"""Weights that follow the size of the difference."""

from __future__ import annotations

import math
from dataclasses import replace

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
from guidon.guidance import CFG, MamboG, PowerLaw
from guidon.guidance.contrast import Pull
from guidon.noise.prediction import SPACES


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", [MamboG, PowerLaw])
def test_laws(kind: type[MamboG | PowerLaw], space: str) -> None:
    rule = CFG(3.0) | kind(0.5, space)
    check_images_apart(rule, space)
    check_precisions(rule, space)
    for alpha in (0.0, 8.0):
        check_degenerate(CFG(3.0) | kind(alpha, space), space)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", [MamboG, PowerLaw])
def test_reduces_to_cfg(kind: type[MamboG | PowerLaw], space: str) -> None:
    given, null = views()
    agree(guide(CFG(4.0) | kind(0.0, space), given, null, space)[0], null + 4 * (given - null), "alpha = 0")
    agree(guide(CFG(1.0) | kind(2.0, space), given, null, space)[0], given, "w = 1")
    agree(guide(CFG(0.0) | kind(2.0, space), given, null, space)[0], null, "w = 0")


@pytest.mark.parametrize("stage", [MamboG(), PowerLaw()])
def test_what_is_steered_away_from_keeps_its_variance(stage: MamboG | PowerLaw) -> None:
    given, null = (
        replace(believing(view), variance_fraction=torch.full_like(view, share))
        for view, share in zip(views(), (0.1, 0.2), strict=True)
    )
    shaped, _ = stage.shape(Pull(given, null, 3.0), moment(), None)
    assert shaped.variance_fraction is null.variance_fraction


def test_mambo_by_hand() -> None:
    """|c - u| = 3 and |u| = 4: w = 1 + 9 exp(-8 * 3 / 4)."""
    guided, _ = guide(CFG(10.0) | MamboG(), f64([[4.0, 3.0]]), f64([[4.0, 0.0]]), "velocity")
    agree(guided, f64([[4.0, 3.0 * (1 + 9 * math.exp(-6))]]), "guided")


def test_mambo_is_off_where_there_is_nothing_to_compare_with() -> None:
    given = normal(2, 5)
    agree(guide(CFG(10.0) | MamboG(), given, 0 * given, "velocity")[0], given, "guided")


def test_power_law_by_hand() -> None:
    """|s_c - s_u| = 5: c + 2 * 5^0.5 (c - u)."""
    given, null = f64([[4.0, 3.0]]), f64([[1.0, -1.0]])
    guided, _ = guide(CFG(3.0) | PowerLaw(0.5), given, null, "score")
    agree(guided, given + 2 * math.sqrt(5) * (given - null), "score")


def test_power_law_measures_scores() -> None:
    """A difference of the noise counts 1 / sigma times as much in the score."""
    given, null = views()
    size = ((given - null).flatten(1).norm(dim=1) / LEVEL.sigma).reshape(-1, 1, 1, 1)
    guided, _ = guide(CFG(2.0) | PowerLaw(0.9), given, null, "eps")
    agree(guided, given + size**0.9 * (given - null), "noise")


def test_larger_differences() -> None:
    """MAMBO-G guides them less, the power law more."""
    null = torch.ones(3, 4, dtype=torch.float64)
    given = null + normal(1, 4) * f64([[0.1], [1.0], [3.0]])
    for kind, falls in ((MamboG(2.0), True), (PowerLaw(0.9, "velocity"), False)):
        guided, _ = guide(CFG(2.0) | kind, given, null, "velocity")
        share = ((guided - given).norm(dim=1) / (given - null).norm(dim=1)).tolist()
        assert share == sorted(share, reverse=falls)
        assert len(set(share)) == 3


@pytest.mark.parametrize("kind", [MamboG, PowerLaw])
def test_refused(kind: type[MamboG | PowerLaw]) -> None:
    for alpha in (-1.0, math.nan):
        with pytest.raises(BadValue, match="alpha >= 0"):
            kind(alpha)
    with pytest.raises(BadValue, match="no space"):
        kind(1.0, "pixels")
