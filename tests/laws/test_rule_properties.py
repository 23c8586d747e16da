"""Laws of guidance on any tensors: shapes, dtypes, weights for each image, weights far out; and what NaN does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import dataclasses_of, plain
from support.worlds import CLASSES, Weakenable, World
from torch import Tensor

from guidon.conditioning import Context
from guidon.errors import NumericalError
from guidon.guidance import CFG, Branch, Moment, Rule
from guidon.noise import EDM, Flow, Level, Prediction
from guidon.registry import to_text

RULES = {name: plain(name, member) for name, member in dataclasses_of("rule")}
STAGES = {name: plain(name, member) for name, member in dataclasses_of("stage")}
ALL = {**RULES, **{f"cfg|{name}": CFG(3.0) | stage for name, stage in STAGES.items()}}

shapes = st.sampled_from([(7,), (3, 10), (1, 4, 4), (3, 8, 8), (2, 9, 5), (4, 6, 16)])
weights = st.one_of(st.floats(-40, 60), st.floats(0, 8), st.sampled_from([0.0, 1.0]))


def tensors(
    branches: tuple[Branch, ...], shape: tuple[int, ...], batch: int, dtype: torch.dtype, seed: int
) -> dict[Branch, Prediction]:
    """Return beliefs of all branches about one state, clean images of the size of images."""
    g, level = torch.Generator().manual_seed(seed), Level(0.5, 0.8, 0.6)
    x = torch.randn(batch, *shape, generator=g, dtype=torch.float64)
    made = {}
    for branch in dict.fromkeys(dataclasses.replace(b, inner=False) for b in branches):
        x0, inner = (torch.randn(batch, *shape, generator=g, dtype=torch.float64) for _ in range(2))
        believed = Prediction.from_x0(x, x0, level)
        made[branch] = dataclasses.replace(believed, inner=Prediction.from_x0(x, inner, level))
    told = {b: made[dataclasses.replace(b, inner=False)] for b in branches}
    return {b: _cast(p.inner if b.inner else p, dtype) for b, p in told.items()}


def _cast(p: Any, dtype: torch.dtype) -> Prediction:
    return Prediction(p.x.to(dtype), p.level, p.x0.to(dtype), p.eps.to(dtype))


def at(level: Level) -> Moment:
    return Moment(level, Level(0.4, 0.9, 0.4), 3, 8)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(data=st.data())
def test_any_shape_dtype_and_weight(name: str, data: st.DataObject) -> None:
    rule: Rule = ALL[name]
    shape, batch, seed = data.draw(shapes), data.draw(st.integers(1, 4)), data.draw(st.integers(0, 10**6))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    if name == "fdg" and len(shape) != 3:
        shape = (2, *shape)[:3] if len(shape) == 2 else (1, 6, 7)
    if name == "cfg|channels" and shape[0] == 1:
        shape = (2, *shape[1:])
    weight = data.draw(st.one_of(weights, st.lists(weights, min_size=batch, max_size=batch).map(tuple)))
    if isinstance(weight, tuple) and any(name.endswith(stage) for stage in ("adaptive", "reuse", "linear-ag")):
        weight = tuple(w or 0.5 for w in weight)  # they refuse images of weight 0 among others
    rule = _weighted(rule, weight)
    moment = at(Level(0.5, 0.8, 0.6))
    answers = tensors(rule.branches(moment, rule.init()), shape, batch, dtype, seed)
    guided, _ = rule.combine(answers, moment, rule.init())
    assert guided.x0.shape == guided.eps.shape == (batch, *shape)
    assert guided.x0.dtype == guided.eps.dtype == dtype
    assert torch.isfinite(guided.x0).all() and torch.isfinite(guided.eps).all()
    scale = max(1.0, guided.x0.abs().max().item(), guided.eps.abs().max().item())
    loose = 3e-3 if dtype == torch.float32 else 1e-9
    for i in range(batch):  # each image alone
        alone = _weighted(rule, weight[i]) if isinstance(weight, tuple) else rule
        single = {branch: answer.take(slice(i, i + 1)) for branch, answer in answers.items()}
        wanted = alone.branches(moment, alone.init())
        result, _ = alone.combine({b: single[b] for b in wanted}, moment, alone.init())
        assert torch.allclose(result.x0[0], guided.x0[i], rtol=loose, atol=loose * scale), i
        assert torch.allclose(result.eps[0], guided.eps[i], rtol=loose, atol=loose * scale), i


def _weighted(rule: Any, weight: Any) -> Any:
    """Return a rule with another weight, where it has one."""
    if hasattr(rule, "links"):
        first, *rest = rule.links
        chained = _weighted(first, weight)
        for link in rest:
            chained = chained | link
        return chained
    return dataclasses.replace(rule, weight=weight) if hasattr(rule, "weight") else rule


class Failing(Weakenable):
    """Gives NaN for one branch from some noise level down, told apart by its condition."""

    def __init__(self, label: float, below: float) -> None:
        super().__init__()
        self.label, self.below = label, below

    def __call__(self, x: Tensor, level: Level, context: Context, perturbed: Any = ()) -> Prediction:
        told = super().__call__(x, level, context, perturbed)
        assert context.vector is not None
        rows = context.vector[:, 0] == self.label
        if float(level.noise_level) < self.below:
            told.x0[rows] = torch.nan
        return told


@pytest.mark.parametrize(
    "rule", [CFG(3.0), CFG(3.0) | STAGES["apg"], CFG(3.0) | STAGES["rescale"], RULES["avoid"]], ids=to_text
)
@pytest.mark.parametrize(("label", "name"), [(-1.0, "null"), (0.0, "given"), (1.0, "negative")])
def test_nan_in_a_branch_names_branch_and_step(rule: Rule, label: float, name: str) -> None:
    world = World(EDM())
    world.networks["main"] = Failing(label, below=0.5)
    wanted = {branch.condition for branch in world.trajectory(rule, [0], [0]).wanted}
    if name not in wanted:
        assert torch.isfinite(world.run(rule, [0], [0])).all()
        return
    with pytest.raises(NumericalError, match=rf"'{name}' gave NaN or infinity in step \d of 6"):
        world.run(rule, [0], [0])


def test_a_rule_that_overflows_says_so() -> None:
    world = World(Flow())
    with pytest.raises(NumericalError, match=r"the rule cfg\(1e\+308\) gave NaN or infinity in step \d of 6"):
        world.run(CFG(1e308), [0], [0])
    assert CLASSES > 2
