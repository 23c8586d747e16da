"""`guidon tune`: a search from the command line, its winner, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from guidon.study.store import Store
from guidon.study.tune import SPACE

FILE = "steps: 2\nsolver: euler\nn: 4\nresamples: 5\naxes: {rule: [cfg(1), cfg(3)], steps: [2, 3]}\n"


@pytest.fixture
def space(guidon) -> str:
    Path("space.yaml").write_text(FILE)
    return "--space space.yaml"


def test_a_grid_finds_the_winner_and_saves_it(guidon, space, model_folder):
    shutil.copytree(model_folder, "mine")
    answer = guidon(f'tune mine --objective nfe --subject-to "nfe>=4" "contrast>=0" {space} --grid -o out')
    assert answer.code == 0, answer.err
    assert "best: cfg(3), euler in 2 steps on karras: nfe 4" in answer.out
    assert "sample with it: guidon sample mine --rule 'cfg(3)' --solver euler --grid karras --steps 2" in answer.out
    assert all(Path("out", name).exists() for name in ("report.html", "table.csv", "table.json", "trials.jsonl"))
    assert len(Store.existing("out").cells()) == 4
    answer = guidon(f"tune mine --objective nfe {space} --grid -o out --save")
    assert "saved: mine" in answer.out
    sample = json.loads(Path("mine/config.json").read_text())["sample"]
    assert sample == {"rule": "cfg(1)", "solver": "euler", "grid": "karras", "steps": 2, "temperature": 1.0}


def test_a_search_tries_as_often_as_is_asked(guidon, space):
    pytest.importorskip("optuna")
    answer = guidon(f"tune MODEL --objective nfe {space} --set solver=heun --trials 7 -o out")
    assert answer.code == 0, answer.err
    assert len(Path("out/trials.jsonl").read_text().splitlines()) == 7
    assert {cell.settings["solver"] for cell in Store.existing("out").cells()} == {"heun"}


def test_limited_evaluations_are_all_used_along_what_is_left_of_the_default_space(guidon):
    change = """--set 'axes.rule=["cfg({w})"]' axes.w=[2,3] axes.solver=[euler] --n 2"""
    answer = guidon(f'tune MODEL --objective nfe --subject-to "nfe<=9" {change} --grid -o out')
    assert answer.code == 0, answer.err
    cells = Store.existing("out").cells()
    assert [cell.axes for cell in cells] == [{"rule": "cfg({w})", "w": w, "solver": "euler"} for w in (2, 3)]
    assert [(cell.cost.nfe, cell.settings["steps"]) for cell in cells] == [(8, 4)] * 2
    assert set(SPACE) == {"rule", "w", "low", "high", "solver"} and SPACE["solver"] != ["euler"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tune MODEL --objective fid recall --save", "one --objective"),
        ("tune MODEL --objective fdi", "did you mean 'fid'"),
        ("tune MODEL --objective saturation", "neither better high nor low"),
        ("tune MODEL --objective fid", "compares with real images"),
        ("tune MODEL --objective nfe --subject-to nfe=30", "cannot read the limit"),
        ("tune nowhere --objective nfe", "nowhere"),
        ("tune MODEL --objective nfe --trials 0", ">= 1"),
        ("tune MODEL", "--objective"),
    ],
)
def test_what_is_wrong_is_said_in_words(guidon, words, message):
    answer = guidon(words)
    assert answer.code == 2 and message in answer.err and "Traceback" not in answer.err
    assert not Path("runs").exists()
