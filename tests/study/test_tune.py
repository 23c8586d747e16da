"""A search: limits are read and never run, the winners are those of the Pareto front, and a search that broke off goes on."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sweeps import tiny_model, tiny_plan

import guidon
from guidon.errors import BadValue, NotSupported, SaveFailed
from guidon.measure.estimate import Figure
from guidon.measure.observe import IMAGES
from guidon.study.goals import Limit, Objective, excess, read_limit, read_objective, value_of, winners
from guidon.study.images import Sampled
from guidon.study.plan import SweepPlan
from guidon.study.store import Cell, Cost, Store
from guidon.study.tune import LOG, SPACE, STEPS, default_space, save_defaults, tune

SPACED = {"w": {"from": 1, "to": 4, "spacing": "log"}, "steps": {"from": 2, "to": 5}, "solver": ["euler", "heun"]}
NFE = [Objective("nfe", "lower")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def cell(number: int, nfe: float, **figures: float) -> Cell:
    read = {key: Figure(value, value, value, 10) for key, value in figures.items()}
    return Cell(str(number), {}, {}, read, Cost(nfe, 5.0, 1 << 30, 10), Path())


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nfe<=30", Limit("nfe", "<=", 30)),
        (" recall >= 0.5 ", Limit("recall", ">=", 0.5)),
        ("fid@inception<1e2", Limit("fid@inception", "<", 100)),
        ("kid(50, 500)=<.1", Limit("kid(50, 500)", "<=", 0.1)),
        ("seconds>-2", Limit("seconds", ">", -2)),
    ],
)
def test_limits_are_read(text, expected):
    assert read_limit(text, "classifier") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nfe", "cannot read the limit"),
        ("nfe<=", "cannot read the limit"),
        ("nfe<=thirty", "cannot read the limit"),
        ("nfe<=1e", "cannot read the limit"),
        ("recal>=0.5", "did you mean 'recall'"),
        ("nef<=3", "did you mean 'nfe'"),
        ("__import__('os').abort()<=1", "cannot read"),
    ],
)
def test_what_is_no_limit_is_refused_and_never_run(text, message):
    with pytest.raises(BadValue, match=message):
        read_limit(text, "classifier")


def test_objectives_know_which_way_is_better():
    assert read_objective("fid", "classifier") == Objective("fid", "lower")
    assert read_objective("recall", "classifier") == Objective("recall", "higher")
    assert read_objective("seconds", "classifier") == Objective("seconds", "lower")
    with pytest.raises(BadValue, match="neither"):
        read_objective("saturation", "classifier")


def test_costs_are_of_an_image_and_in_the_units_of_tables():
    one = cell(0, 30.0, recall=0.25)
    assert [value_of(one, key) for key in ("nfe", "seconds", "peak_memory", "recall")] == [30, 0.5, 1, 0.25]
    assert math.isnan(value_of(one, "fid"))


@pytest.mark.parametrize(
    ("relation", "holds"), [("<=", (1, 1, 0)), ("<", (1, 0, 0)), (">=", (0, 1, 1)), (">", (0, 0, 1))]
)
def test_limits_hold_where_they_should(relation, holds):
    limit = Limit("nfe", relation, 30.0)
    assert [limit.excess(cell(0, nfe)) <= 0 for nfe in (29, 30, 31)] == [bool(h) for h in holds]
    assert Limit("fid", relation, 30.0).excess(cell(0, 1)) == math.inf
    assert excess(cell(0, 33), [Limit("nfe", "<=", 30), Limit("nfe", "<=", 0)]) == pytest.approx(0.1 + 33)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_winners_are_what_nothing_beats_within_the_limits(points):
    cells = [cell(i, nfe, recall=float(recall), fid=float(fid)) for i, (nfe, recall, fid) in enumerate(points)]
    goals, limits = [Objective("recall", "higher"), Objective("nfe", "lower")], [Limit("fid", "<=", 3.0)]
    allowed = [i for i, (_, _, fid) in enumerate(points) if fid <= 3]
    front = {
        i
        for i in allowed
        if not any(
            points[j][1] >= points[i][1] and points[j][0] <= points[i][0] and points[j][:2] != points[i][:2]
            for j in allowed
        )
    }
    found = winners(cells, goals, limits)
    assert {int(one.key) for one in found} == front
    recalls = [one.figures["recall"].value for one in found]
    assert recalls == sorted(recalls, reverse=True)


def test_a_figure_that_is_no_number_wins_nothing():
    assert winners([cell(0, 1, fid=math.nan), cell(1, 9, fid=4.0)], [Objective("fid", "lower")], [])[0].key == "1"


def test_the_default_space_uses_all_evaluations_that_are_allowed():
    axes, settings = default_space([Limit("nfe", "<=", 30), Limit("nfe", "<=", 20), Limit("recall", ">=", 0.1)])
    assert (axes, settings) == (SPACE, {"nfe": 20})
    assert default_space([]) == ({**SPACE, "steps": STEPS}, {})
    for limits in ([], [Limit("nfe", "<=", 30)]):
        axes, settings = default_space(limits)
        plan = SweepPlan.read({"model": "m", "axes": axes, **settings})
        assert len(plan.points()) == (504 if not limits else 126)


def test_every_cell_of_a_grid_is_tried(model, tmp_path):
    axes = {"w": [1, 2], "steps": [2, 3, 4]}
    found = tune(tiny_plan(model, steps=None, axes=axes), NFE, [Limit("nfe", ">=", 4.0)], tmp_path, trials=None)
    assert [entry["values"]["nfe"] for entry in log_of(tmp_path)] == [2, 3, 4, 4, 6, 8]
    assert [entry["allowed"] for entry in log_of(tmp_path)] == [False, False, True, True, True, True]
    assert [one.axes for one in found.best] == [{"w": 1, "steps": 4}, {"w": 2, "steps": 2}]


def test_nothing_within_the_limits_is_said_with_what_came_nearest(model, tmp_path):
    plan = tiny_plan(model, steps=None, axes={"w": [1, 2], "steps": [4]})
    with pytest.raises(BadValue, match=r"keeps to nfe<=2; the nearest has nfe 4\."):
        tune(plan, NFE, [Limit("nfe", "<=", 2.0)], tmp_path, trials=None)


def test_a_search_needs_optuna_and_says_so(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(NotSupported, match=r"guidon\[tune\].*--grid"):
        tune(tiny_plan(model, steps=None, axes=SPACED), NFE, [], tmp_path, trials=2)


class TestSearch:
    """With Optuna."""

    @pytest.fixture(autouse=True)
    def _optuna(self):
        pytest.importorskip("optuna")

    @pytest.fixture
    def plan(self, model) -> SweepPlan:
        return tiny_plan(model, n=4, steps=None, axes=SPACED, metrics=["contrast"])

    def test_trials_are_cells_of_the_space(self, plan, tmp_path):
        found = tune(plan, NFE, [], tmp_path, trials=8)
        entries = log_of(tmp_path)
        assert [entry["trial"] for entry in entries] == list(range(8))
        for entry in entries:
            axes = entry["axes"]
            assert 1 <= axes["w"] <= 4 and axes["steps"] in (2, 3, 4, 5) and axes["solver"] in ("euler", "heun")
            branches = 1 if axes["w"] == 1 else 2
            asks = axes["steps"] * 2 - 1 if axes["solver"] == "heun" else axes["steps"]
            assert entry["values"] == {"nfe": branches * asks}
        assert len({entry["axes"]["w"] for entry in entries}) > 4
        assert list(found.cells) == Store.existing(tmp_path).cells()
        assert found.best[0].cost.nfe == min(entry["values"]["nfe"] for entry in entries)

    def test_a_search_that_broke_off_goes_on_as_if_it_had_not(self, plan, tmp_path, monkeypatch):
        whole = tune(plan, NFE, [Limit("contrast", ">=", 0.05)], tmp_path / "whole", trials=14)
        tried: list[int] = []

        def stop(done: int, trials: int, _: Cell | None) -> None:
            tried.append(done)
            if done == 12:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune(plan, NFE, [Limit("contrast", ">=", 0.05)], tmp_path / "cut", trials=14, on_try=stop)
        sampled: list[int] = []
        block = Sampled.block
        monkeypatch.setattr(Sampled, "block", lambda self, *at: sampled.append(1) or block(self, *at))
        resumed = tune(plan, NFE, [Limit("contrast", ">=", 0.05)], tmp_path / "cut", trials=14)
        assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
        assert len(sampled) == len({entry["cell"] for entry in log_of(tmp_path / "whole")[12:]}) - sum(
            entry["cell"] in {other["cell"] for other in log_of(tmp_path / "whole")[:12]}
            for entry in log_of(tmp_path / "whole")[12:]
        )
        assert [one.key for one in resumed.best] == [one.key for one in whole.best]
        again = tune(plan, NFE, [], tmp_path / "cut", trials=5)
        assert [one.key for one in again.cells] == [one.key for one in whole.cells][: len(again.cells)]

    def test_the_search_is_led_by_what_it_found(self, model, tmp_path):
        plan = tiny_plan(model, n=1, steps=None, axes={"steps": {"from": 1, "to": 60}}, rule="cfg(1)", metrics=[])
        tune(plan, NFE, [Limit("nfe", ">=", 20.0)], tmp_path, trials=30)
        nfe = [entry["values"]["nfe"] for entry in log_of(tmp_path)]

        def far(values):
            return np.mean([abs(value - 20) for value in values])

        assert far(nfe[20:]) < far(nfe[:10]) / 2 and min(n for n in nfe if n >= 20) <= 22

    def test_several_objectives_have_a_front(self, plan, tmp_path):
        goals = [Objective("contrast", "higher"), *NFE]
        found = tune(plan, goals, [], tmp_path, trials=10)
        pairs = [(one.figures["contrast"].value, one.cost.nfe) for one in found.best]
        assert all(a[0] > b[0] and a[1] > b[1] for a, b in itertools.pairwise(pairs))

    def test_a_trial_that_fails_is_written_down_and_the_others_go_on(self, model, tmp_path):
        axes = {"rule": ["cfg(2)", "autoguidance(2)", "cfg(3)"]}
        tune(tiny_plan(model, axes=axes, rule=None), NFE, [], tmp_path, trials=12)
        failed = [entry for entry in log_of(tmp_path) if "failed" in entry]
        assert failed and all("weak" in entry["failed"] and "cell" not in entry for entry in failed)
        assert {entry["axes"]["rule"] for entry in failed} == {"autoguidance(2)"}
        with pytest.raises(BadValue, match="weak"):
            tune(tiny_plan(model, axes={"rule": ["autoguidance(2)"]}, rule=None), NFE, [], tmp_path, trials=2)

    def test_a_full_disk_ends_the_search(self, plan, tmp_path, monkeypatch):
        monkeypatch.setattr(Sampled, "block", lambda *_: (_ for _ in ()).throw(SaveFailed("full")))
        with pytest.raises(SaveFailed):
            tune(plan, NFE, [], tmp_path, trials=3)
        assert log_of(tmp_path) == []

    def test_axes_that_play_no_part_in_a_trial_are_not_told(self, model, tmp_path):
        axes = {"rule": {"plain": "cfg(2)", "apg": "cfg({w}) | apg"}, "w": [3]}
        found = tune(tiny_plan(model, axes=axes, rule=None), NFE, [], tmp_path, trials=6)
        assert {tuple(one.axes.items()) for one in found.cells} == {
            (("rule", "plain"),),
            (("rule", "apg"), ("w", 3)),
        }


def test_the_winner_becomes_the_default_and_nothing_else_changes(model, tmp_path):
    copy = tmp_path / "copy"
    guidon.load(model).save_pretrained(copy)
    plan = tiny_plan(copy, steps=None, axes={"w": [3], "steps": [2], "solver": ["heun"]}, temperature=0.5)
    found = tune(plan, NFE, [], tmp_path / "out", trials=None)
    before = json.loads((copy / "config.json").read_text())
    weights = (copy / "model.safetensors").stat().st_mtime_ns
    assert save_defaults(str(copy), found.best[0]) == copy / "config.json"
    after = json.loads((copy / "config.json").read_text())
    assert after.pop("sample") == {"rule": "cfg(3)", "solver": "heun", "grid": "karras", "steps": 2, "temperature": 0.5}
    assert after == {name: value for name, value in before.items() if name != "sample"}
    assert (copy / "model.safetensors").stat().st_mtime_ns == weights
    samples = guidon.load(copy).sample(n=12)
    assert np.array_equal(np.asarray(found.best[0].rows()[IMAGES]), samples.uint8().transpose(0, 3, 1, 2))
    assert [one.key for one in tune(plan, NFE, [], tmp_path / "out", trials=None).cells] == [found.best[0].key]


def test_what_cannot_be_a_default_is_not_saved(model, tmp_path):
    found = tune(tiny_plan(model, axes={"negative": ["1"]}, rule="negative(2)"), NFE, [], tmp_path, trials=None)
    before = (model / "config.json").read_bytes()
    with pytest.raises(NotSupported, match="no negative"):
        save_defaults(str(model), found.best[0])
    other = tiny_model(tmp_path / "other", 1)
    one = tune(tiny_plan(model, axes={"w": [2]}), NFE, [], tmp_path / "one", trials=None).best[0]
    with pytest.raises(NotSupported, match=f"those of {model}, not of {other}"):
        save_defaults(str(other), one)
    with pytest.raises(NotSupported, match="no folder here"):
        save_defaults("owner/name", found.best[0])
    assert (model / "config.json").read_bytes() == before
