"""Modes lost: the shares printed in the reference, and what is known in closed form."""

from __future__ import annotations

import pytest
import torch

from guidon import registry
from guidon.errors import BadValue
from guidon.guidance.cfg import CFG
from guidon.lab import four_modes
from guidon.lab.experiments import modes_lost
from guidon.lab.experiments.modes_lost import IN_LOG, PRINTED, SHARE, ModesLost

SMALL = ModesLost(steps=120, starts=250, rules=("cfg(1)", "cfg(3)", "cfg(6)", "cfg(cosine(1, 11))", "cfgpp(0.6)"))


@pytest.fixture(scope="module")
def findings():
    return SMALL.run()


@pytest.mark.parametrize("text", PRINTED)
def test_the_limit_has_the_printed_digits(text) -> None:
    rule = modes_lost.IN_TIME.get(text) or registry.parse("rule", text)
    assert four_modes.limit(rule) == pytest.approx(PRINTED[text], abs=0.0015)  # 0.3967 for the printed 0.398


def test_plain_conditional_sampling_is_the_closed_form() -> None:
    expected = 0.5 * (1 + torch.erf(torch.tensor(1.75 / (6401**0.5 * 2**0.5))))
    assert four_modes.plain_share() == pytest.approx(float(expected), abs=1e-7)
    assert four_modes.limit(CFG(1)) == pytest.approx(four_modes.plain_share(), abs=1e-5)


def test_few_steps_find_the_same(findings) -> None:
    rows = {row["rule"]: row for row in findings.tables["shares"]}
    for text, printed in PRINTED.items():
        if text in rows:
            assert rows[text][SHARE] == pytest.approx(printed, abs=0.004)
            assert rows[text]["reference"] == printed
    assert rows["cfg(cosine(1, 11))"][SHARE] == pytest.approx(rows["cfg(cosine(1, 11))"]["in the limit"], abs=0.01)
    assert rows["cfg(cosine(1, 11))"][IN_LOG] == pytest.approx(0.0037, abs=0.005)  # where the steps are matters
    assert rows["cfgpp(0.6)"]["solver"] == "ddim"
    assert rows["cfgpp(0.6)"]["in the limit"] is None


def test_without_guidance_the_ends_are_the_class(findings) -> None:
    (row,) = (row for row in findings.tables["shares"] if row["rule"] == "cfg(1)")
    low = row[SHARE]  # nearly 1/2: the mixture of N(1, .15^2) and N(2.5, .15^2) with this share
    assert row["mean"] == pytest.approx(low * 1 + (1 - low) * 2.5, abs=0.005)
    assert row["std"] == pytest.approx((0.15**2 + low * (1 - low) * 1.5**2) ** 0.5, abs=0.005)


def test_the_sentences_say_the_numbers(findings) -> None:
    said = " ".join(findings.sees)
    assert f"{four_modes.plain_share():.3f}" in said
    assert "`cfg(6)` leaves 0.000" in said
    assert set(findings.figures) == {"", "shares"}


def test_the_share_lies_between_neighbouring_ends() -> None:
    assert four_modes.share(torch.tensor([1.0, 1.5, 2.0, 2.5])) == pytest.approx(0.5)
    assert four_modes.share(torch.tensor([1.0, 1.25, 2.25, 2.5])) == pytest.approx(0.5)
    assert four_modes.share(torch.tensor([2.0, 2.5])) == 0
    assert four_modes.share(torch.tensor([1.0, 1.5])) == 1


def test_other_rules_are_drawn_too() -> None:
    findings = ModesLost(steps=8, starts=20, rules=("cfg(2)", "cfgpp(0.5)", "cfg(6) | mambo-g")).run()
    titles = [panel.get_title() for panel in findings.figures[""].axes[:3]]
    assert titles == ["cfg(2)", "cfgpp(0.5)", "cfg(6) | mambo-g"]
    drawn = [len(panel.lines) for panel in findings.figures[""].axes[:3]]
    assert drawn == [1, 0, 0]  # a line where the weight is known beforehand


def test_the_limit_asks_the_rule() -> None:
    class Backwards(CFG):
        def combine(self, predictions, at, state):
            return CFG(1.0).combine(predictions, at, state)

    assert four_modes.limit(Backwards(6.0)) == pytest.approx(four_modes.plain_share(), abs=1e-5)


def test_text_form() -> None:
    text = registry.to_text(SMALL)
    assert registry.parse("experiment", text) == SMALL
    with pytest.raises(BadValue, match="two steps"):
        ModesLost(steps=1)
    with pytest.raises(BadValue, match="a rule"):
        ModesLost(rules=())
