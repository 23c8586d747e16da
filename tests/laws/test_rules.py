"""Law 1: weight 1 is plain conditional with one branch, weight 0 unconditional, others change the result."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.drive import guided_by
from support.examples import dataclasses_of, plain
from support.mixtures import Exact, field, plane, told
from support.numbers import normal

from guidon.guidance import GIVEN, NULL, Moment, Rule
from guidon.noise import EDM

RULES = dataclasses_of("rule")
WEIGHTED = [(name, rule) for name, rule in RULES if "weight" in {f.name for f in dataclasses.fields(rule)}]
LEVELS = [EDM().level(s) for s in (3.0, 1.0)]
AT = Moment(*LEVELS, index=1, steps=4)
LABELS = [0, 1, 1, 0]


@pytest.fixture(params=[plane, field], ids=["plane", "field"])
def network(request: pytest.FixtureRequest) -> Exact:
    return Exact(request.param())


def believed(rule: Rule, network: Exact) -> tuple[torch.Tensor, torch.Tensor]:
    x = 2 * normal(4, *network.mixture.shape)
    guided = guided_by(rule, network, told(LABELS))(x, AT)
    return guided.x0, guided.eps


def plainly(label_of: str, network: Exact) -> tuple[torch.Tensor, torch.Tensor]:
    answer = network(2 * normal(4, *network.mixture.shape), AT.here, told(LABELS)[label_of])
    return answer.x0, answer.eps


@pytest.mark.parametrize(("name", "rule"), WEIGHTED)
def test_neutral_weights(name: str, rule: type, network: Exact) -> None:
    for weight, branch in ((1.0, GIVEN), (0.0, NULL), ((1.0,) * 4, GIVEN), ((0.0,) * 4, NULL)):
        neutral = dataclasses.replace(plain(name, rule), weight=weight)
        assert neutral.branches(AT, neutral.init()) == (branch,)
        for got, want in zip(believed(neutral, network), plainly(branch.condition, network), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize(("name", "rule"), WEIGHTED)
def test_other_weights_change_the_result(name: str, rule: type, network: Exact) -> None:
    results = [
        believed(dataclasses.replace(plain(name, rule), weight=weight), network)[0] for weight in (-1.0, 0.5, 2.0, 7.5)
    ]
    results += [plainly("given", network)[0], plainly("null", network)[0]]
    for i, a in enumerate(results):
        assert all(not torch.allclose(a, b, rtol=1e-6) for b in results[:i])


@pytest.mark.parametrize(("name", "rule"), RULES)
def test_rules_are_pure(name: str, rule: type, network: Exact) -> None:
    made = plain(name, rule)
    assert hash(made) == hash(plain(name, rule))
    first, second = believed(made, network), believed(made, network)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("name", "rule"), RULES)
def test_guided_values_belong_together(name: str, rule: type, network: Exact) -> None:
    """x = alpha x0 + sigma eps holds for a linear rule as it does for each branch."""
    x0, eps = believed(plain(name, rule), network)
    assert torch.allclose(x0 + AT.here.sigma * eps, 2 * normal(4, *network.mixture.shape), atol=1e-12)
