"""``guidon compare`` and ``guidon report`` on a tiny model and a tiny sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from support.cells import figure, sweep
from support.sweeps import tiny_model, tiny_plan

from guidon.app.png import read_record
from guidon.study.sweep import sweep as make


def test_two_rules_of_one_model(guidon):
    answer = guidon('compare MODEL --rule 1 "cfg(5)" -n 8 --steps 3 --resamples 50 --metrics contrast')
    assert answer.code == 0, answer.err
    told = json.loads(Path("compare/compare.json").read_text())
    assert [told[side]["settings"]["rule"] for side in "ab"] == ["cfg(1)", "cfg(5)"]
    (row,) = told["figures"]
    assert f"{row['first']['value']:.4g}" in answer.out and f"{row['difference']['value']:+.3g}" in answer.out
    assert max(map(len, answer.out.splitlines()[2:5])) <= 80
    assert Image.open("compare/compare.png").size > (100, 100)


def test_two_models_and_what_is_there_is_not_made_again(guidon):
    tiny = [tiny_model(Path(name), seed) for seed, name in enumerate("ab")]
    line = f"compare {tiny[0]} {tiny[1]} -n 6 --steps 2 --resamples 30 -o out"
    assert guidon(line).code == 0
    kept = {path: path.stat().st_mtime_ns for path in Path("out/cells").rglob("done.npy")}
    assert len(kept) == 2
    assert guidon(f"{line} --metrics saturation").code == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out/cells").rglob("done.npy")} == kept
    told = json.loads(Path("out/compare.json").read_text())
    assert [told[side]["settings"]["model"] for side in "ab"] == ["a", "b"] and len(told["figures"]) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("compare MODEL", "name what to compare"),
        ("compare MODEL --rule 1", "name what to compare"),
        ("compare MODEL --rule 1 2 3", "two are compared"),
        ("compare MODEL --rule 1 2 --metrics fid", "reference"),
        ("compare MODEL --rule 1 2 --metrics fld", "fld"),
        ("report nowhere", "no sweep"),
    ],
)
def test_what_cannot_be_done_is_said(guidon, line, says):
    answer = guidon(line)
    assert answer.code == 2 and says in answer.err and "Traceback" not in answer.err


def test_the_report_of_a_sweep_with_its_pictures(guidon):
    sweep(Path("s"), lambda rule, w: {"precision": figure(w / 8), "recall": figure(1 - w / 8)})
    answer = guidon("report s")
    assert answer.code == 0, answer.err
    assert {path.name for path in Path("s").glob("*.*g")} == {
        "pareto-precision-recall.png",
        "pareto-precision-recall.svg",
        "sheet-rule-w.png",
        "sheet-01-plain.png",
        "sheet-02-apg.png",
    }
    assert "6 cells" in answer.out and Path("s/report.html").stat().st_size > 10_000


def test_films_of_the_best_cells_are_sampled_again_and_put_in(guidon):
    model = tiny_model(Path("model"))
    make(tiny_plan(model), "s")
    assert guidon("report s --film 1").code == 0
    names = sorted(path.name for path in Path("s").glob("film-*"))  # no figure has a better: the first cell is shown
    assert names == ["film-1-w-1-trace.png", "film-1-w-1.png"]
    assert Path("s/report.html").read_text().count("data:image/png;base64") == 2


def test_sample_films_what_it_samples(guidon):
    answer = guidon("sample MODEL --class dog cat --steps 3 --film -o out")
    assert answer.code == 0 and "filmed out/film.png" in answer.out
    assert read_record("out/film.png")["labels"] == ["dog", "cat"]
    assert guidon("sample --like out/film.png --film").code == 2
