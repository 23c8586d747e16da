"""Guidance of the first channels only: the others are as the given branch has them, and no such stage is silent."""

from __future__ import annotations

import pytest
import torch

from guidon.errors import BadValue
from guidon.guidance import CFG, GIVEN, NULL, Moment
from guidon.noise import Level, Prediction
from guidon.registry import parse

AT = Moment(Level(0.5, 0.8, 0.6), Level(0.4, 0.9, 0.4), 0, 4)


def beliefs() -> dict[object, Prediction]:
    g = torch.Generator().manual_seed(0)
    x, given, null = (torch.randn(2, 4, 3, 3, generator=g, dtype=torch.float64) for _ in range(3))
    return {GIVEN: Prediction.from_eps(x, given, AT.here), NULL: Prediction.from_eps(x, null, AT.here)}


def test_the_first_channels_are_guided_and_the_others_given() -> None:
    rule, told = parse("rule", "cfg(4) | channels(3)"), beliefs()
    guided, _ = rule.combine(told, AT, rule.init())
    whole, _ = CFG(4.0).combine(told, AT, None)
    torch.testing.assert_close(guided.eps[:, :3], whole.eps[:, :3])
    torch.testing.assert_close(guided.eps[:, 3:], told[GIVEN].eps[:, 3:])
    torch.testing.assert_close(guided.x0[:, :3], whole.x0[:, :3])
    torch.testing.assert_close(guided.x0[:, 3:], told[GIVEN].x0[:, 3:])
    assert not torch.allclose(whole.eps[:, 3:], told[GIVEN].eps[:, 3:])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cfg(4) | channels(0)", "at least the first"),
        ("cfgpp(0.6) | channels(1)", "cannot follow cfgpp"),
        ("cfg(3) | classifier(2) | channels(1)", "here classifier"),
        ("cfg(3) | classifier(2) | apg", "here classifier"),
    ],
)
def test_where_it_would_do_nothing_it_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        parse("rule", text)


def test_all_channels_are_no_choice() -> None:
    rule = parse("rule", "cfg(4) | channels(4)")
    with pytest.raises(BadValue, match=r"leave channels\(4\) out"):
        rule.combine(beliefs(), AT, rule.init())
