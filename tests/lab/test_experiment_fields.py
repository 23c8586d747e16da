"""Flow fields and what arrives: the flow is the formula's, and rules that are one rule end alike."""

from __future__ import annotations

import math

import pytest
import torch

from guidon import registry
from guidon.errors import BadValue, NotSupported, ShapeMismatch, UnknownName
from guidon.guidance import CFG
from guidon.lab import drawing
from guidon.lab.experiments.fields import Fields
from guidon.lab.flow import LATTICE, REACH, flows
from guidon.lab.plane import CLASS, WEIGHTS, Plane, mixture
from guidon.noise import EDM
from guidon.noise.grids import Karras
from guidon.solvers import Euler


def test_the_flow_is_that_of_the_guided_ode() -> None:
    levels = Karras(7.0, 0.002, 80.0).levels(EDM(), 12)
    (flow,) = flows(Plane(1), CFG(3.0), Euler(), levels, (0.5,))
    here = flow.level
    there = levels[levels.index(here) + 1]
    _, _, pairs = drawing.lattice((-REACH, REACH, -REACH, REACH), LATTICE)
    x = pairs * math.hypot(1, here.sigma)
    given, null = (mixture().believe(x, here.alpha, here.sigma, torch.full((len(x),), label))[1] for label in (1, -1))
    torch.testing.assert_close(flow.moves, (null + 3 * (given - null)) * (there.sigma - here.sigma))
    assert abs(math.log(here.sigma / 0.5)) == min(abs(math.log(level.sigma / 0.5)) for level in levels[:-1])
    assert math.isclose(flow.extent[1], REACH * math.hypot(1, here.sigma))


@pytest.fixture(scope="module")
def findings():
    return Fields(rules=("cfg(1)", "cfg(3)", "classifier(3)", "cfgpp(0.6)"), points=600, steps=20).run()


def test_plain_sampling_ends_in_the_class(findings) -> None:
    truth, plain, guided, *_ = findings.tables["rules"]
    total = sum(weight for weight, label in zip(WEIGHTS, CLASS, strict=True) if label == 0)
    for k in range(3):
        assert truth[f"mode_{k + 1}"] == round(WEIGHTS[k] / total, 4)
        assert abs(plain[f"mode_{k + 1}"] - WEIGHTS[k] / total) < 0.06
    assert truth["spread"] == 1
    assert plain["w2"] < 0.12 < 0.3 < guided["w2"]
    assert guided["mode_3"] < 0.01 and guided["looks_other"] < truth["looks_other"]
    assert 0.95 < plain["spread"] < 1.05


def test_another_class_has_its_own_modes() -> None:
    truth, plain = Fields(rules=("cfg(1)",), points=300, steps=12, label=1, noise_levels=(1.0,)).run().tables["rules"]
    for row in (truth, plain):
        assert abs(row["mode_1"] - 0.18 / 0.33) < 0.09 and "mode_3" not in row
        assert row["looks_other"] < 0.05


def test_shares_are_all_there_is(findings) -> None:
    for row in findings.tables["rules"]:
        assert math.isclose(row["mode_1"] + row["mode_2"] + row["mode_3"], 1.0, abs_tol=3e-4)


def test_the_exact_classifier_ends_where_cfg_does(findings) -> None:
    _, _, cfg, classifier, _ = findings.tables["rules"]
    assert (cfg["rule"], classifier["rule"]) == ("cfg(3)", "classifier(3)")
    for key in ("w2", "spread", "mode_1", "mode_2", "mode_3", "looks_other"):
        assert abs(cfg[key] - classifier[key]) < 2e-4, key


def test_a_rule_with_solvers_of_its_own_gets_one(findings) -> None:
    rows = {row["rule"]: row for row in findings.tables["rules"]}
    assert rows["cfg(3)"]["solver"] == "heun" and rows["cfg(3)"]["evaluations"] == 2 * (2 * 19 + 1)
    assert rows["cfgpp(0.6)"]["solver"] in registry.parse("rule", "cfgpp(0.6)").only_with
    assert rows["cfgpp(0.6)"]["evaluations"] == 40


def test_the_sentences_are_about_these_rules(findings) -> None:
    rows = findings.tables["rules"][1:]
    near, far = (choose(rows, key=lambda row: row["w2"]) for choose in (min, max))
    assert (
        f"`{near['rule']}` comes nearest to the truth, at {near['w2']:.3f}; `{far['rule']}` is farthest"
        in findings.sees[0]
    )
    assert set(findings.figures) == {"", "flow"}


@pytest.mark.parametrize("points", [2, 6])
def test_few_points_may_miss_a_mode(points: int) -> None:
    findings = Fields(rules=("cfg(3)",), points=points, steps=3, noise_levels=(1.0,)).run()
    truth = findings.tables["rules"][0]
    assert [truth[f"mode_{k}"] for k in (1, 2, 3)] == [0.4706, 0.3529, 0.1765]  # of the class, not of a draw
    assert findings.sees[1].startswith("A mode suffers most under `cfg(3)`")


@pytest.mark.parametrize(
    ("rule", "neutral"),
    [
        ("negative(2)", "negative(1)"),
        ("tsg(2)", "tsg(1)"),
        ("icg(2)", "icg(1)"),
        ("internal(2)", "internal(1)"),
        ("autoguidance(2)", "autoguidance(1)"),
        ("cfg(2) | cads", None),
        ("rectified-cfgpp(2)", None),
        ("perp-neg(2)", None),
    ],
)
def test_most_rules_find_what_they_ask_for(rule: str, neutral: str | None) -> None:
    experiment = Fields(rule=rule, points=40, steps=6, noise_levels=(1.0,))
    assert experiment.shown == ("cfg(1)", rule)
    _, plain, guided = experiment.run().tables["rules"]
    assert guided["rule"] == rule
    assert max(abs(guided[key] - plain[key]) for key in ("w2", "spread")) > 5e-3  # it guides
    if neutral is not None:
        again = Fields(rule=neutral, points=40, steps=6, noise_levels=(1.0,)).run().tables["rules"][2]
        assert again["w2"] == plain["w2"] and again["spread"] == plain["spread"]  # weight 1 does not


def test_what_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="fdg needs images"):
        Fields(rules=("fdg([4, 2])",), points=8, steps=3).run()
    with pytest.raises(UnknownName, match="cgf"):
        Fields(rules=("cgf(3)",))
    with pytest.raises(BadValue, match="classes 0 to 2"):
        Fields(label=3)
    with pytest.raises(BadValue, match="between"):
        Fields(noise_levels=(0.0,))
    with pytest.raises(NotSupported, match="rectified"):
        Fields(rules=("cfg(2)",), solver="rectified", points=8, steps=3).run()


def test_settings_have_a_text_form() -> None:
    made = registry.parse("experiment", """fields(rules=["cfg(2)", "cfg(6) | apg"], label=1)""")
    assert made == Fields(rules=("cfg(2)", "cfg(6) | apg"), label=1)
    assert registry.parse("experiment", registry.to_text(made)) == made
