"""docs/solvers.md is what its generator writes now, and what it says of refusals is what happens."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from support.examples import dataclasses_of
from support.mixtures import told
from support.numbers import normal

from guidon import registry
from guidon.app import cli
from guidon.app.solver_cards import LIMITED, solver_cards
from guidon.errors import NotSupported
from guidon.noise import EDM
from guidon.noise.grids import Karras
from guidon.sampling import Trajectory

DOCS = Path(__file__).parents[2] / "docs"
CARDS = {card.name: card for card in solver_cards()}


def test_the_page_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location("make_solvers", DOCS / "make_solvers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "solvers.md").read_text(encoding="utf-8") == module.page(), "run: python docs/make_solvers.py"


def test_the_rules_that_ask_for_certain_solvers_are_all_told_of():
    limited = {name for name, member in dataclasses_of("rule") if member.why_only}
    assert limited == {text.partition("(")[0] for text in LIMITED}
    assert all(registry.parse("rule", text).only_with for text in LIMITED)


@pytest.mark.parametrize("text", LIMITED)
@pytest.mark.parametrize("name", CARDS)
def test_refusals_happen_as_told(name, text):
    rule, card = registry.parse("rule", text), CARDS[name]
    told_so = any(refused.partition("(")[0] == text.partition("(")[0] for refused in card.refuses)
    if any(refused.startswith("every rule but") for refused in card.refuses):
        told_so = name not in rule.only_with
    levels, solver = Karras().levels(EDM(), 3), registry.lookup("solver", name)()

    def start():
        Trajectory(80 * normal(1, 2), levels, solver, rule, told([0]), lambda: normal(1, 2))

    if told_so:
        with pytest.raises(NotSupported, match=rule.why_only[:30]):
            start()
    else:
        start()


def test_the_command_shows_one_and_all(capsys):
    assert cli.run(["solvers"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in CARDS)
    assert cli.run(["solvers", "heun"]) == 0
    shown = capsys.readouterr().out
    assert "2 a step" in shown and "cfgpp" in shown
    assert cli.run(["solvers", "hein"]) == 2
    assert "heun" in capsys.readouterr().err
