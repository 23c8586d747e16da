"""docs/rules.md is what its generator writes now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from guidon.app.rule_cards import all_cards

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def make_rules():
    spec = importlib.util.spec_from_file_location("make_rules", DOCS / "make_rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(make_rules):
    assert (DOCS / "rules.md").read_text(encoding="utf-8") == make_rules.page(), "run: python docs/make_rules.py"


def test_the_page_has_a_section_for_each_method(make_rules):
    sections = [line.removeprefix("### ") for line in make_rules.page().splitlines() if line.startswith("### ")]
    assert sections == [card.name for card in all_cards()]


def test_pictures_show_where_they_exist(make_rules, tmp_path, monkeypatch):
    monkeypatch.setattr(make_rules, "DOCS", tmp_path)
    assert "![" not in make_rules.page()
    (tmp_path / "images/rules").mkdir(parents=True)
    (tmp_path / "images/rules/apg.jpg").touch()
    assert make_rules.page().count("![") == 1 and "(images/rules/apg.jpg)" in make_rules.page()


def test_marks_of_markdown_are_told_as_they_are(make_rules):
    assert make_rules._safe("a_b * <c> | ``d_e|`` [f]") == r"a\_b \* \<c> \| `d_e|` \[f]"
