"""Answers made up for rules and stages, and what holds for every stage."""

from __future__ import annotations

import torch
from torch import Tensor

from guidon.guidance import GIVEN, NULL, Moment, Rule
from guidon.guidance.rule import State
from guidon.guidance.space import view
from guidon.noise import Level, Prediction
from support.numbers import agree, normal

LEVEL = Level(0.5, 0.8, 0.6)


def moment(index: int = 5, steps: int = 10) -> Moment:
    return Moment(LEVEL, Level(0.4, 0.9, 0.4), index, steps)


def believing(raw: Tensor, space: str = "x0", level: Level = LEVEL) -> Prediction:
    """Return a belief whose view is ``raw``, at a state that depends on its shape only."""
    x = normal(*raw.shape, seed=9).to(raw.dtype)
    found: Prediction = getattr(Prediction, f"from_{space}")(x, raw, level)
    return found


def guide(
    rule: Rule, given: Tensor, null: Tensor, space: str = "x0", at: Moment | None = None, state: State = None
) -> tuple[Tensor, State]:
    """Return the view that a rule makes of two views, and its state after; from its first state by default."""
    at, state = at or moment(), rule.init() if state is None else state
    told = {GIVEN: believing(given, space, at.here), NULL: believing(null, space, at.here)}
    guided, state = rule.combine({branch: told[branch] for branch in rule.branches(at, state)}, at, state)
    return view(Prediction(told[GIVEN].x, at.here, guided.x0, guided.eps), space), state


def views(*shape: int) -> tuple[Tensor, Tensor]:
    """Return two views, given and null, (B, *shape)."""
    shape = shape or (4, 2, 6, 6)
    return normal(*shape, seed=1), normal(*shape, seed=2)


def check_images_apart(rule: Rule, space: str = "x0") -> None:
    """An image is what it would be alone, and does not hear of its neighbours."""
    given, null = views()
    whole, _ = guide(rule, given, null, space)
    for i in range(len(given)):
        other_given, other_null = 5 * normal(*given.shape, seed=3), 7 * normal(*given.shape, seed=4)
        other_given[i], other_null[i] = given[i], null[i]
        told = {GIVEN: believing(given, space), NULL: believing(null, space)}
        others = {GIVEN: believing(other_given, space), NULL: believing(other_null, space)}
        one, _ = rule.combine({b: p.take(slice(i, i + 1)) for b, p in told.items()}, moment(), rule.init())
        beside, _ = rule.combine(others, moment(), rule.init())
        alone = Prediction(told[GIVEN].x[i : i + 1], LEVEL, one.x0, one.eps)
        agree(view(alone, space)[0], whole[i], "alone", rtol=1e-12, atol=1e-13)
        among = Prediction(told[GIVEN].x, LEVEL, beside.x0, beside.eps)
        assert torch.equal(view(among, space)[i], whole[i])


def check_precisions(rule: Rule, space: str = "x0") -> None:
    """float32 goes in and comes out, and says what float64 does."""
    given, null = views()
    exact, _ = guide(rule, given, null, space)
    rough, _ = guide(rule, given.float(), null.float(), space)
    assert rough.dtype == torch.float32
    agree(rough, exact, "float32", rtol=2e-5, atol=2e-5)


def check_degenerate(rule: Rule, space: str = "x0") -> None:
    """Beliefs that agree, or are zero, divide by nothing."""
    some, nothing = normal(2, 2, 6, 6), torch.zeros(2, 2, 6, 6, dtype=torch.float64)
    for given, null in ((some, some), (some, nothing), (nothing, some), (nothing, nothing), (some, -some)):
        for dtype in (torch.float64, torch.float32):
            guided, _ = guide(rule, given.to(dtype), null.to(dtype), space)
            assert torch.isfinite(guided).all()
