"""What is weak: which question each rule asks to steer away from its answer, and the arithmetic that they share."""

from __future__ import annotations

import math

import pytest
import torch
from support.numbers import agree, f64

from guidon.errors import BadValue, NotSupported
from guidon.guidance import (
    GIVEN,
    ICG,
    PAG,
    SEG,
    SLG,
    TSG,
    Autoguidance,
    Branch,
    Internal,
    Interval,
    Moment,
    Rule,
)
from guidon.guidance.contrast import Contrast
from guidon.noise import Level, Prediction
from guidon.perturbation import Perturbation

# where DDPM's clock shows 1/2, log(1 + (sigma / alpha)^2) = 0.1 / 2 + 9.95 / 4
HALF = math.sqrt(math.expm1(0.05 + 9.95 / 4))
HERE = Level(0.5, 1.0, HALF)
ALL_NOISE = Level(1.0, 0.0, 1.0)


def moment(level: Level = HERE, index: int = 0) -> Moment:
    return Moment(level, Level(0.4, 0.9, 0.4), index, 10)


def weakened(name: str, layers: tuple[str, ...] | None = None, amount: float = 1.0, seed: int = 0) -> Branch:
    return Branch("given", "main", Perturbation(name, layers, amount, seed))


LAYERS = ("middle", "up")
ASKED = [
    (Autoguidance(2.0), Branch("given", "weak")),
    (Autoguidance(2.0, "earlier"), Branch("given", "earlier")),
    (PAG(2.0), weakened("attention-identity")),
    (PAG(2.0, LAYERS), weakened("attention-identity", LAYERS)),
    (SEG(2.0), weakened("query-blur", None, math.inf)),
    (SEG(2.0, 10.0, LAYERS), weakened("query-blur", LAYERS, 10.0)),
    (SLG(2.0), weakened("skip")),
    (SLG(2.0, LAYERS), weakened("skip", LAYERS)),
    (TSG(2.0), Branch("given", perturbation=Perturbation("time-noise", amount=1.0, tag="2, 1"))),
    (ICG(2.0), Branch("random")),
    (Internal(2.0), Branch("given", inner=True)),
]


@pytest.mark.parametrize(("rule", "away"), ASKED)
def test_what_is_asked_and_steered_away_from(rule: Contrast, away: Branch) -> None:
    assert rule.branches(moment(), rule.init()) == (GIVEN, away)
    assert rule.away_at(moment()) == away
    x = f64([[0.5, -0.5]])  # type: ignore[list-item]
    told = {GIVEN: Prediction.from_x0(x, x + 3, HERE), away: Prediction.from_x0(x, x + 1, HERE)}
    guided, _ = rule.combine(told, moment(), rule.init())
    agree(guided.x0, x + 5, "1 + 2 (3 - 1)")
    agree(guided.x0 + HALF * guided.eps, x, "what belongs together")


@pytest.mark.parametrize("rule", [Autoguidance, PAG, SEG, SLG, TSG, ICG, Internal])
def test_asks_for_the_network_alone_where_the_weight_is_1(rule: type) -> None:
    assert rule(1.0).branches(moment(), None) == (GIVEN,)
    assert rule(2.0, when=Interval(100.0)).branches(moment(), None) == (GIVEN,)
    assert len(rule(0.0).branches(moment(), None)) == 1
    assert rule(0.0).branches(moment(), None) != (GIVEN,)


def test_the_noise_in_the_time_grows_with_the_time() -> None:
    """Half of the way is the scale times half to the power; at pure noise it is the scale."""
    for scale, power, amount in ((2.0, 1.0, 1.0), (3.0, 2.0, 0.75), (3.0, 0.0, 3.0), (4.0, 0.5, 8**0.5)):
        rule = TSG(2.0, scale, power)
        asked = rule.away_at(moment(index=7)).perturbation
        assert asked is not None
        assert (asked.name, asked.layers, asked.seed) == ("time-noise", None, 7)
        assert asked.amount == pytest.approx(amount)
        at_noise = rule.away_at(moment(ALL_NOISE)).perturbation
        assert at_noise is not None
        assert at_noise.amount == scale


@pytest.mark.parametrize("rule", [PAG(2.0), SEG(2.0), SLG(2.0), TSG(2.0)])
def test_a_perturbation_that_changes_nothing_is_refused_at_first(rule: Rule) -> None:
    x = f64([[0.5, -0.5]])  # type: ignore[list-item]
    same, other = Prediction.from_x0(x, x + 3, HERE), Prediction.from_x0(x, x + 1, HERE)
    given, away = rule.branches(moment(), rule.init())
    with pytest.raises(NotSupported, match="changes nothing"):
        rule.combine({given: same, away: same}, moment(), rule.init())
    _, seen = rule.combine({given: same, away: other}, moment(), rule.init())
    guided, _ = rule.combine({given: same, away: same}, moment(), seen)
    assert torch.equal(guided.x0, same.x0)


@pytest.mark.parametrize("bad", [{"scale": 0.0}, {"power": -1.0}])
def test_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadValue, match="tsg needs"):
        TSG(2.0, **bad)
    with pytest.raises(BadValue, match="seg needs"):
        SEG(2.0, blur=0.0)
