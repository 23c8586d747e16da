"""`guidon sweep`: from a plan to a table, a page and files; what it would do, and how it goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import guidon as library
from guidon.errors import NumericalError
from guidon.study.images import Sampled
from guidon.study.store import Store

PLAN = """
model: {model}
n: 6
steps: 3
solver: euler
metrics: [contrast]
resamples: 20
axes:
  rule: {{plain: "cfg({{w}})", apg: "cfg({{w}}) | apg"}}
  w: [1, 4]
"""


@pytest.fixture
def plan(guidon, model_folder) -> str:
    Path("mine.yaml").write_text(PLAN.format(model=model_folder))
    return "mine.yaml"


def test_a_sweep_leaves_a_table_in_three_forms(guidon, plan):
    answer = guidon(f"sweep {plan} -o out")
    assert answer.code == 0, answer.err
    cells = Store.existing("out").cells()
    assert [cell.axes for cell in cells] == [{"rule": r, "w": w} for r in ("plain", "apg") for w in (1, 4)]
    with Path("out/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    told = json.loads(Path("out/table.json").read_text())
    for cell, row, entry in zip(cells, rows, told, strict=True):
        figure = cell.figures["contrast"]
        assert float(row["contrast"]) == entry["figures"]["contrast"]["value"] == figure.value
        assert float(row["contrast low"]) == figure.low < figure.value < float(row["contrast high"])
        assert (row["rule"], float(row["w"])) == (cell.axes["rule"], cell.axes["w"])
        assert float(row["nfe"]) == cell.cost.nfe == entry["cost"]["nfe"] == (3 if cell.axes["w"] == 1 else 6)
        assert float(row["seconds"]) == pytest.approx(cell.cost.seconds / 6)
        line = next(line for line in answer.out.splitlines() if line.split()[:2] == [row["rule"], row["w"]])
        half = (figure.high - figure.low) / 2
        assert float(line.split()[2]) == pytest.approx(figure.value, abs=0.01)
        assert float(line.split()[3].strip("±")) == pytest.approx(half, rel=0.06)
    assert "4 cells of 6 images" in answer.out and "out/report.html" in answer.out
    assert "<html" in Path("out/report.html").read_text()[:200].lower()


def test_what_fails_is_named_at_the_end_and_the_rest_is_there(guidon, plan, monkeypatch):
    block = Sampled.block

    def failing(self, start, stop):
        if self._request["rule"] == "cfg(4)" and len(self) > 1:
            raise NumericalError("not a number")
        return block(self, start, stop)

    monkeypatch.setattr(Sampled, "block", failing)
    answer = guidon(f"sweep {plan} -o out")
    assert answer.code == 2 and "cell rule=plain, w=4: not a number\nall else is done" in answer.err
    assert "3 cells of 6 images" in answer.out and len(json.loads(Path("out/table.json").read_text())) == 3


def test_networks_are_opened_before_anything_is_sampled(guidon, plan):
    answer = guidon(f"sweep {plan} -o out --set metrics=[diversity] \"features=torchscript('eyes.pt')\"")
    assert answer.code == 2 and "eyes.pt" in answer.err
    assert not Path("out/cells").exists()


def test_rehearsing_counts_and_makes_nothing(guidon, plan):
    answer = guidon(f"sweep {plan} -o out --dry-run")
    assert answer.code == 0 and not Path("out").exists()
    rows = [line.split() for line in answer.out.splitlines() if line.startswith(("plain", "apg"))]
    assert [(row[0], row[1], row[-4], row[-3]) for row in rows] == [
        ("plain", "1", "3", "3"),
        ("plain", "4", "3", "6"),
        ("apg", "1", "3", "3"),
        ("apg", "4", "3", "6"),
    ]
    assert "4 cells: 0 done, 4 to make, 0 to measure" in answer.out
    assert f"{(3 + 6) * 2 * 6} network evaluations" in answer.out and "at the most" in answer.out
    guidon(f"sweep {plan} -o out --set axes.w=[1]")
    answer = guidon(f"sweep {plan} -o out --dry-run --set metrics=[contrast,saturation]")
    assert "4 cells: 0 done, 2 to make, 2 to measure" in answer.out and "by the cells that are done" in answer.out
    assert len(Store.existing("out").all_cells()) == 2


def test_nothing_is_made_twice_and_the_folder_has_a_name_of_its_own(guidon, plan, monkeypatch):
    assert guidon(f"sweep {plan} --set axes.w=[1]").code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("runs/sweep-mine/cells").rglob("*.npy")}
    assert guidon(f"sweep {plan}").code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) > 0
    assert len(Store.existing("runs/sweep-mine").cells()) == 4


def test_an_interrupted_sweep_says_how_to_go_on(guidon, plan, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("guidon.study.sweep.made", interrupt)
    answer = guidon(f"sweep {plan} -o out")
    assert answer.code == 130 and "the same command goes on" in answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sweep nowhere.yaml", "cannot read the plan nowhere.yaml"),
        ("sweep mine.yaml --set solver=eulr", "did you mean 'euler'"),
        ("sweep mine.yaml --set steps=0", "steps: "),
        ("sweep mine.yaml --engine spark", "ray"),
        ("sweep mine.yaml --device tpu", "no device"),
        ("sweep mine.yaml --set model=nowhere", "nowhere"),
        ("sweep mine.yaml --set told=[cow]", "no class 'cow'"),
    ],
)
def test_what_is_wrong_is_said_in_words(guidon, plan, words, message):
    answer = guidon(words)
    assert answer.code == 2 and message in answer.err and "Traceback" not in answer.err


def test_a_cell_can_be_sampled_with_the_command_line(guidon, plan):
    guidon(f"sweep {plan} -o out")
    (cell, *_) = [cell for cell in Store.existing("out").cells() if cell.axes == {"rule": "apg", "w": 4}]
    settings = cell.settings
    model = library.load(settings["model"])
    names = ("rule", "solver", "grid", "steps", "temperature")
    samples = model.sample(n=6, seed=settings["seed"], **{name: settings[name] for name in names})
    assert np.array_equal(np.asarray(cell.rows()["images"]), samples.uint8().transpose(0, 3, 1, 2))
