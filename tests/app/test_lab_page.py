"""The pages of the lab are what their generator writes now, and every experiment has one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from guidon import registry
from guidon.lab.experiments import experiments

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [name for name, _ in experiments()]


@pytest.fixture(scope="module")
def make_lab():
    spec = importlib.util.spec_from_file_location("make_lab", DOCS / "make_lab.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(make_lab):
    for file, text in make_lab.pages().items():
        assert (DOCS / "lab" / file).read_text(encoding="utf-8") == text, f"{file}: run python docs/make_lab.py"


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_has_a_page_of_its_own_findings(name):
    account = json.loads((DOCS / "lab" / f"{name}.json").read_text(encoding="utf-8"))
    made = registry.parse("experiment", account["experiment"])
    assert type(made) is dict(experiments())[name]
    assert all((DOCS / "lab" / picture).is_file() for picture in account["pictures"])
    assert f"lab/{name}.md" in (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_example_runs(make_lab, capsys):
    code = make_lab.OPENING.partition("```python\n")[2].partition("```")[0]
    exec(code, {})
    assert 0 < float(capsys.readouterr().out.removeprefix("tensor(").partition(",")[0]) < 0.05


def test_pages_have_places_of_their_own():
    places = [member.page for _, member in experiments()]
    assert places == list(range(1, len(places) + 1))
