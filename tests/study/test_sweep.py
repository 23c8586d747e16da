"""A sweep: the right images in every cell, nothing made twice, and nothing lost to a kill but the block in flight."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.sweeps import tiny_model, tiny_plan
from training.tiny import tiny_recipe

import guidon
from guidon.errors import BadValue, NumericalError, SaveFailed
from guidon.measure.estimate import Figure, estimate
from guidon.measure.metrics import Contrast
from guidon.measure.networks import Classifier
from guidon.measure.observe import IMAGES
from guidon.study import bench as bench_module
from guidon.study import shelf as shelf_module
from guidon.study import sweep as sweep_module
from guidon.study.bench import Bench
from guidon.study.columns import best, columns
from guidon.study.cost import LOG, Logged, forget_peak, peak_memory
from guidon.study.images import Sampled
from guidon.study.nfe import longest, steps_for
from guidon.study.plan import SweepPlan
from guidon.study.shelf import MODELS, fingerprint
from guidon.study.store import Cell, Cost, Store, Trial
from guidon.study.sweep import sweep
from guidon.training.loop import train
from guidon.training.snapshots import reconstruct_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every block that is sampled."""
    sampled: list[tuple[int, int]] = []
    block = Sampled.block

    def counting(self, start, stop):
        sampled.append((start, stop))
        return block(self, start, stop)

    monkeypatch.setattr(Sampled, "block", counting)
    return sampled


def done(plan: SweepPlan, out: Path) -> tuple[list[Cell], list[str]]:
    """Return all cells, and the keys of those that were made."""
    made: list[str] = []
    return sweep(plan, out, on_cell=lambda cell, *_: made.append(cell.key)), made


def pixels(cell: Cell) -> np.ndarray:
    return np.asarray(cell.rows()[IMAGES])


def test_a_cell_holds_what_the_model_samples_under_its_settings(model, tmp_path):
    plan = tiny_plan(model, told=["2", 0], seed=5, axes={"w": [1, 3], "solver": ["euler", "heun"]})
    cells, made = done(plan, tmp_path)
    assert [cell.axes for cell in cells] == [{"w": w, "solver": s} for w in (1, 3) for s in ("euler", "heun")]
    assert made == [cell.key for cell in cells]
    loaded = guidon.load(model)
    for cell in cells:
        rule, solver = cell.settings["rule"], cell.settings["solver"]
        samples = loaded.sample([2, 0] * 6, rule=rule, solver=solver, steps=3, seed=5)
        assert np.array_equal(pixels(cell), samples.uint8().transpose(0, 3, 1, 2))
        assert cell.rows().labels.tolist() == [2, 0] * 6
        assert cell.cost.nfe == samples.nfe and cell.cost.images == 12
        assert cell.settings["steps"] == 3 and cell.settings["grid"] == "karras"
    assert (
        cells[0].cost.nfe == 3 and cells[3].cost.nfe == 10
    )  # two branches at each of the 2 * 3 - 1 evaluations of Heun


def test_figures_are_those_of_the_metrics_on_the_rows(model, tmp_path):
    plan = tiny_plan(model)
    (cell, _), _ = done(plan, tmp_path)
    for wish in plan.wanted():
        assert cell.figures[wish.key] == estimate(wish.metric.statistic(cell.rows(), None, ""), resamples=20)
    contrast = (pixels(cell) / 255).std(axis=(1, 2, 3)).mean()
    assert cell.figures["contrast"].value == pytest.approx(contrast, rel=0.05) and cell.figures["contrast"].n == 12
    assert cell.figures["contrast"].low < cell.figures["contrast"].value < cell.figures["contrast"].high


def test_what_is_finished_is_not_made_again(model, tmp_path, blocks):
    first, _ = done(tiny_plan(model), tmp_path)
    blocks.clear()
    again, made = done(tiny_plan(model), tmp_path)
    assert (made, blocks) == ([], []) and [repr(cell) for cell in again] == [repr(cell) for cell in first]


def test_a_changed_plan_makes_what_is_new_and_keeps_the_rest(model, tmp_path):
    done(tiny_plan(model), tmp_path)
    cells, made = done(tiny_plan(model, axes={"w": [5, 3]}), tmp_path)
    assert [cell.axes["w"] for cell in cells] == [5, 3] and made == [cells[0].key]
    cells, made = done(tiny_plan(model, axes={"w": [1, 5, 3]}), tmp_path)
    assert [cell.axes["w"] for cell in cells] == [1, 5, 3] and made == []
    assert len(Store.existing(tmp_path).all_cells()) == 3


def test_the_key_is_of_what_decides_the_images(model, tmp_path):
    def key(where: Path, **changes):
        plan = tiny_plan(where, **{"axes": {}, "rule": "cfg(2)", **changes})
        return Bench(plan, "cpu").key(plan.points()[0].setting)

    base = key(model)
    copied = tmp_path / "copy"
    loaded = guidon.load(model)
    sample = loaded.config.sample.model_copy(update={"steps": 3, "solver": "heun"})
    loaded.config = loaded.config.model_copy(update={"sample": sample, "training": {"note": 1}})
    loaded.save_pretrained(copied)
    assert key(copied) == base and key(copied, rule=2, metrics=[], resamples=3, precision="fp32") == base
    assert key(copied, steps=None) == base  # which is the model's own number now
    others = [
        key(tiny_model(tmp_path / "other", 1)),
        *(key(model, **{name: value}) for name, value in {"n": 13, "seed": 1, "told": [1], "steps": 4}.items()),
        *(key(model, **change) for change in ({"rule": "cfg(3)"}, {"solver": "heun"}, {"temperature": 0.5})),
        key(model, steps=None, nfe=6),
        key(model, rule="autoguidance(2)", weak="self:0.1"),
        key(model, rule="autoguidance(2)", weak="self:0.2"),
        key(model, rule="negative(2)", negative=1),
    ]
    assert len({base, *others}) == len(others) + 1


def test_further_metrics_are_measured_on_the_rows_that_were_kept(model, tmp_path, blocks):
    first, _ = done(tiny_plan(model, metrics=["saturation"]), tmp_path)
    blocks.clear()
    cells, made = done(tiny_plan(model, metrics=["contrast"]), tmp_path)
    assert made == [cell.key for cell in cells] and blocks == []
    assert all(set(cell.figures) == {"contrast"} for cell in cells)  # what is asked for, and nothing of another plan
    assert [cell.cost for cell in cells] == [cell.cost for cell in first]
    fewer, made = done(tiny_plan(model, metrics=["contrast"], resamples=5), tmp_path)
    assert len(made) == 2 and fewer[0].figures["contrast"].resamples == 5


@pytest.mark.parametrize("keep", [None, 4])
def test_further_observers_look_at_kept_images_or_else_at_the_same_ones_again(model, tmp_path, blocks, keep):
    first, _ = done(tiny_plan(model, metrics=[], keep_images=keep), tmp_path)
    assert len(pixels(first[0])) == (12 if keep is None else 4)
    blocks.clear()
    cells, made = done(tiny_plan(model, metrics=["contrast"], keep_images=keep), tmp_path)
    assert len(made) == 2 and blocks == ([] if keep is None else [(0, 12)] * 2)
    fresh, _ = done(tiny_plan(model, metrics=["contrast"]), tmp_path / "fresh")
    assert [cell.figures for cell in cells] == [cell.figures for cell in fresh]
    assert [cell.cost for cell in cells] == [cell.cost for cell in first]


def test_figures_of_another_measurement_leave_finished_cells_before_any_new_one_is_made(model, tmp_path, monkeypatch):
    done(tiny_plan(model, axes={"w": [1]}, metrics=["contrast", "saturation"]), tmp_path)
    monkeypatch.setattr(sweep_module, "made", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        done(tiny_plan(model, axes={"w": [1, 3]}, metrics=["contrast", "clipping"]), tmp_path)
    assert [set(cell.figures) for cell in Store(tmp_path).cells()] == [{"contrast"}]
    with pytest.raises(KeyboardInterrupt):
        done(tiny_plan(model, axes={"w": [1]}, metrics=["contrast"], resamples=9), tmp_path)
    assert [set(cell.figures) for cell in Store(tmp_path).cells()] == [set()]


def test_a_cell_and_a_figure_that_fail_do_not_keep_the_others(model, tmp_path, monkeypatch):
    block = Sampled.block

    def failing(self, start, stop):
        if self._request["rule"] == "cfg(3)" and len(self) > 1:
            raise NumericalError("not a number")
        return block(self, start, stop)

    def refusing(self, sample, reference, network):
        raise BadValue("too few")

    with monkeypatch.context() as patch:
        patch.setattr(Sampled, "block", failing)
        patch.setattr(Contrast, "statistic", refusing)
        with pytest.raises(BadValue) as found:
            done(tiny_plan(model, axes={"w": [3, 1, 5]}), tmp_path)
    assert str(found.value).split("\n")[:2] == ["cell w=3: not a number", "contrast of cell w=1 and 1 more: too few"]
    kept = Store(tmp_path).cells()
    assert [(cell.axes["w"], list(cell.figures)) for cell in kept] == [(1, ["saturation"]), (5, ["saturation"])]
    cells, made = done(tiny_plan(model, axes={"w": [3, 1, 5]}), tmp_path)
    assert len(made) == 3 and all(list(cell.figures) == ["saturation", "contrast"] for cell in cells)
    monkeypatch.setattr(Sampled, "block", lambda *_: (_ for _ in ()).throw(SaveFailed("full")))
    with pytest.raises(SaveFailed):  # which no other cell would survive
        done(tiny_plan(model, axes={"w": [7, 8]}), tmp_path)


def test_more_images_are_kept_of_finished_cells_where_more_are_asked_for(model, tmp_path, blocks):
    first, _ = done(tiny_plan(model, keep_images=2), tmp_path)
    before = [pixels(cell).copy() for cell in first]
    blocks.clear()
    cells, made = done(tiny_plan(model, keep_images=7), tmp_path)
    assert len(made) == 2 and blocks == [(0, 12)] * 2
    for few, cell in zip(before, cells, strict=True):
        assert pixels(cell).shape[0] == 7 and np.array_equal(pixels(cell)[:2], few)
    assert [(cell.figures, cell.cost) for cell in cells] == [(cell.figures, cell.cost) for cell in first]
    assert done(tiny_plan(model, keep_images=5), tmp_path)[1] == []


def test_labels_are_those_that_the_images_have_now(model, tmp_path, monkeypatch):
    first, _ = done(tiny_plan(model, axes={"w": [1]}), tmp_path)
    numbered = []

    def turned(images, observers):
        images.labels, images.classes = 2 - images.labels, ("2", "1", "0")
        return images

    monkeypatch.setattr(bench_module, "aligned", turned)
    measured = bench_module.measured
    monkeypatch.setattr(
        bench_module,
        "measured",
        lambda wanted, rows, *a, **k: numbered.append(rows.labels) or measured(wanted, rows, *a, **k),
    )
    done(tiny_plan(model, axes={"w": [1]}, metrics=["clipping"]), tmp_path)
    assert numbered[0].tolist() == (2 - first[0].rows().labels).tolist() != first[0].rows().labels.tolist()


def reference_of(folder: Path, side: int) -> dict:
    for number in range(6):
        path = folder / "01"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (40 * number, 10, 90)).save(path)
    return {"source": str(folder)}


def test_the_reference_is_brought_to_the_size_of_the_models(model, tmp_path):
    given = reference_of(tmp_path / "real", 16)
    bench = Bench(tiny_plan(model, reference=given), "cpu")
    assert (bench.real.size, bench.real.channels) == (8, 1)
    assert bench.record()["reference"]["size"] == 8
    other = tiny_model(tmp_path / "wide", shape=(1, 16, 16))
    plan = tiny_plan(model, reference=given, axes={"model": [str(model), str(other)]}, rule="cfg(2)")
    with pytest.raises(BadValue, match=r"8x8 and 16x16; set reference\.size"):
        _ = Bench(plan, "cpu").real
    said = Bench(plan.model_copy(update={"reference": plan.reference.model_copy(update={"size": 12})}), "cpu").real
    assert (said.size, said.channels) == (12, 1)


def test_a_bare_classifier_is_that_of_the_reference_beside_another_network(model, tmp_path, monkeypatch):
    plan = tiny_plan(
        model,
        features="inception",
        metrics=["fid", "accuracy@classifier"],
        reference=reference_of(tmp_path / "real", 8),
    )
    assert [plan.opening(wish.network) for wish in plan.wanted()] == ["inception", "auto"]
    trained = []
    monkeypatch.setattr(
        bench_module, "auto_classifier", lambda real, *_: trained.append(real.size) or Classifier("there")
    )
    bench = Bench(plan, "cpu")
    assert bench.classifier == Classifier("there") and trained == [8]
    assert Bench(plan, "cpu", classifier=tmp_path).classifier == Classifier(str(tmp_path)) and len(trained) == 1
    with pytest.raises(BadValue, match="give features, or a reference to train one on"):
        tiny_plan(model, features="inception", metrics=["accuracy@classifier"])


def test_images_that_are_kept_by_default_fit_a_size(model, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_module, "KEPT", 5 * 64)
    cells, _ = done(tiny_plan(model, axes={}, rule="cfg(2)"), tmp_path)
    assert pixels(cells[0]).shape == (5, 1, 8, 8)


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from support.sweeps import tiny_plan
from guidon.study.sweep import sweep
sweep(tiny_plan(Path({model!r}), n=600), {out!r},
    on_cell=lambda cell, *_: print("cell", cell.key, flush=True), on_block=lambda *done: print("block", *done, flush=True))
"""


def test_a_kill_costs_the_block_in_flight(model, tmp_path, blocks):
    out, tests = tmp_path / "killed", Path(__file__).parents[1]
    code = KILLED.format(tests=str(tests), model=str(model), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    cells, seen = 0, []
    for line in process.stdout:
        seen.append(line)
        cells += line.startswith("cell")
        if cells == 1 and line == "block 2 3\n":
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert cells == 1, seen
    (finished,) = Store.existing(out).all_cells().values()
    rows = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*") if path.is_file()}
    resumed, made = done(tiny_plan(model, n=600), out)
    assert len(made) == 1 and made[0] != finished.key
    assert {path: path.stat().st_mtime_ns for path in rows} == rows
    assert blocks[0][0] >= 500 and blocks[-1] == (500, 600) and len(blocks) == 1
    whole, _ = done(tiny_plan(model, n=600), tmp_path / "whole")
    for one, other in zip(resumed, whole, strict=True):
        assert np.array_equal(pixels(one), pixels(other)) and one.figures == other.figures
        assert (one.cost.nfe, one.cost.images) == (other.cost.nfe, other.cost.images)
        assert one.cost.seconds == pytest.approx(other.cost.seconds, rel=5)


def test_the_log_of_costs_is_read_past_a_line_that_a_kill_cut(model, tmp_path):
    cells, _ = done(tiny_plan(model, axes={}, rule="cfg(2)"), tmp_path)
    log = cells[0].folder / LOG
    took = {"start": 12, "images": 4, "seconds": 3.0, "nfe": 10.0, "peak_memory": 1 << 50}
    log.write_text(log.read_text() + '\n{"start": 12, "im\n' + json.dumps(took))
    images = Sampled(guidon.load(model), seeds=range(16), steps=3)
    cost = Logged(images, log, torch.device("cpu")).cost()
    assert cost.images == 16 and cost.nfe == (6 * 12 + 10 * 4) / 16 and cost.peak_memory == 1 << 50
    assert cost.seconds == pytest.approx(cells[0].cost.seconds + 3)


def test_as_many_steps_as_evaluations_allow(model, tmp_path):
    plan = tiny_plan(model, steps=None, nfe=21, axes={"w": [1, 3], "solver": ["euler", "heun"]})
    cells, _ = done(plan, tmp_path)
    assert [(cell.settings["steps"], cell.cost.nfe) for cell in cells] == [(21, 21), (11, 21), (10, 20), (5, 18)]
    assert [cell.settings["nfe"] for cell in cells] == [21] * 4
    loaded = guidon.load(model)
    assert steps_for(loaded, {"told": [0, 1], "rule": "cfg(3)", "solver": "euler"}, 7) == 3


@pytest.mark.parametrize(("a", "b"), [(1, 0), (2, 0), (4, -2), (1.5, 0), (3, 7), (2, 5.5)])
def test_the_longest_run_is_found_in_few_tries(a, b):
    for limit in (a + b, 10, 31, 100.5, 999):
        tries = []

        def count(steps, tries=tries):
            tries.append(steps)
            return Trial(steps, a * steps + b, 0.0)

        if limit < a + b:
            with pytest.raises(BadValue, match="even one step"):
                longest(count, limit)
        else:
            assert longest(count, limit).steps == math.floor((limit - b) / a + 1e-9)
            assert len(tries) == len(set(tries)) <= 8


def test_a_grid_with_its_own_number_of_steps_has_that():
    assert longest(lambda steps: Trial(25, 50.0, 0.0), 60) == Trial(25, 50.0, 0.0)


def test_everything_that_cannot_be_made_is_said_before_anything_is(model, tmp_path, blocks):
    axes = {"rule": ["cfg(2)", "autoguidance(2)", "autoguidance(3)"], "told": [[0], [7]]}
    with pytest.raises(BadValue) as found:
        done(tiny_plan(model, axes=axes, rule=None), tmp_path)
    lines = str(found.value).split("\n")
    assert len(lines) == 2 and "weak" in str(found.value) and "no class 7" in str(found.value)
    assert "and 1 more" in lines[1 - ("7" in lines[1])]
    assert blocks == [] and Store.existing(tmp_path).all_cells() == {}
    with pytest.raises(BadValue, match="even one step takes 2"):
        done(tiny_plan(model, steps=None, nfe=1), tmp_path)
    with pytest.raises(BadValue, match="captions"):
        done(tiny_plan(model, metrics=["adherence"]), tmp_path)


def test_the_best_of_a_column_is_told_where_cells_differ_and_one_way_is_better():
    def cell(key, nfe, **figures):
        read = {name: Figure(value, value, value, 5) for name, value in figures.items()}
        return Cell(key, {}, {}, read, Cost(nfe, 1.0, 0, 5), Path())

    cells = [
        cell("a", 3, fid=2.0, recall=0.5, contrast=1.0),
        cell("b", 3, fid=1.0, recall=0.5, contrast=2.0),
        cell("c", 3, fid=1.0, recall=0.1, contrast=2.0),
        cell("d", 3, fid=math.nan, contrast=2.0),
    ]
    found = {column.key: "".join(one.key for one in best(cells, column)) for column in columns(cells)}
    assert found == {"fid": "bc", "recall": "ab", "contrast": "", "nfe": "", "seconds": ""}


def test_the_length_of_an_average_is_an_axis(tmp_path):
    run = tmp_path / "run"
    train(tiny_recipe(power_averages=[0.05, 0.1], snapshot_every=5), run)
    plan = tiny_plan(run, axes={"average": [None, 0.05, 0.15]}, rule="cfg(2)")
    cells, _ = done(plan, tmp_path / "out")
    own = guidon.load(run)
    for cell, loaded in zip(cells, (own, reconstruct_model(run, 0.05), reconstruct_model(run, 0.15)), strict=True):
        samples = loaded.sample(n=12, rule="cfg(2)", solver="euler", steps=3)
        assert np.array_equal(pixels(cell), samples.uint8().transpose(0, 3, 1, 2))
        assert cell.settings["weights"] == fingerprint(loaded)
    assert len({cell.settings["weights"] for cell in cells}) == 3


def test_models_are_loaded_once_and_few_are_held(model, tmp_path, monkeypatch):
    loads: list[str] = []
    from_pretrained = shelf_module.Model.from_pretrained
    monkeypatch.setattr(
        shelf_module.Model, "from_pretrained", lambda source: loads.append(str(source)) or from_pretrained(source)
    )
    others = [str(tiny_model(tmp_path / f"model-{i}", i + 1)) for i in range(3)]
    done(tiny_plan(model, axes={"w": [1, 2, 3], "model": others[:2]}), tmp_path / "two")
    assert sorted(loads) == others[:2]
    plan = tiny_plan(model, axes={"model": others, "w": [1, 2]})
    bench = Bench(plan, "cpu")
    for point in plan.points():
        bench.key(point.setting)
    assert len(bench.shelf.models) == MODELS


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there can the peak be forgotten")
def test_the_peak_of_memory_is_that_since_it_was_forgotten():
    cpu = torch.device("cpu")
    forget_peak(cpu)
    before = peak_memory(cpu)
    large = np.ones(8 << 20)
    during = peak_memory(cpu)
    del large
    assert during - before > 50 << 20 and abs(peak_memory(cpu) - during) < 4 << 20
    forget_peak(cpu)
    assert peak_memory(cpu) < during - (30 << 20)
