"""What is in a store is whole: entered once, in the order of the plan, whatever ended the process that wrote it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from guidon.errors import BadValue, DamagedCheckpoint, MissingFile
from guidon.measure.estimate import Figure
from guidon.measure.observe import ImageSet, Observer, Rows, observe
from guidon.study.passes import finished_passes, merged, seen_in
from guidon.study.store import FILE, Cell, Cost, Store, Trial


def cell(store: Store, key: str, **axes: object) -> Cell:
    figures = {"fid": Figure(1.5, math.nan, 2.0, 10, 20, 200, network="abc")}
    settings = {"rule": f"cfg({key})", "told": ["a", None]}
    return Cell(key, dict(axes), settings, figures, Cost(38.5, 2.25, 1 << 31, 10), store.room(key), {"fid": "x"})


def test_a_cell_comes_back_as_it_was(tmp_path: Path):
    store = Store(tmp_path)
    store.put(cell(store, "a", w=1.5), 0)
    (found,) = Store.existing(tmp_path).cells()
    assert repr(found) == repr(cell(store, "a", w=1.5))  # NaN differs from itself
    assert found.folder == tmp_path / "cells/a"


def test_cells_stand_in_the_order_of_the_plan_and_those_of_other_plans_stay(tmp_path: Path):
    store = Store(tmp_path)
    for key in "abc":
        store.put(cell(store, key, w=1))
    assert store.cells() == [] and set(store.all_cells()) == set("abc")
    store.arrange({"c": {"w": 7}, "missing": {}, "a": {"w": 8}})
    assert [(found.key, found.axes) for found in store.cells()] == [("c", {"w": 7}), ("a", {"w": 8})]
    store.put(cell(store, "missing"), 1)
    assert [found.key for found in store.cells()] == ["c", "missing", "a"]
    assert set(store.all_cells()) == {"a", "b", "c", "missing"}


def test_trials_and_notes_come_back(tmp_path: Path):
    store = Store(tmp_path)
    assert store.trial("a") is None and store.note("plan") is None
    store.put_trial("a", Trial(20, 38.5, 0.25))
    store.put_note("plan", {"w": [1, 2]})
    store.put_note("plan", {"w": [3]})
    assert (store.trial("a"), store.note("plan")) == (Trial(20, 38.5, 0.25), {"w": [3]})


def test_what_is_no_store_is_refused(tmp_path: Path):
    with pytest.raises(MissingFile, match="guidon sweep"):
        Store.existing(tmp_path)
    (tmp_path / FILE).write_bytes(b"something else, of some length" * 50)
    with pytest.raises(DamagedCheckpoint, match="no file of a sweep"):
        Store.existing(tmp_path)


def test_another_format_is_refused(tmp_path: Path):
    Store(tmp_path).put_note("format", 2)
    with pytest.raises(DamagedCheckpoint, match="update guidon"):
        Store(tmp_path)


def test_two_sweeps_do_not_work_in_one_folder(tmp_path: Path):
    store = Store(tmp_path)
    with store.alone(), pytest.raises(BadValue, match="another sweep"), Store(tmp_path).alone():
        pass
    with store.alone():
        pass


def test_a_kill_leaves_whole_cells(tmp_path: Path):
    code = f"""
import itertools
from guidon.study.store import Cell, Cost, Store
store = Store({str(tmp_path)!r})
for i in itertools.count():
    store.put(Cell(str(i), {{}}, {{"pad": "x" * 5000}}, {{}}, Cost(1, 1.0, 0, 1), store.room(str(i))), i)
    print(i, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    os.kill(process.pid, signal.SIGKILL)
    last = max([20, *map(int, process.stdout.read().split())])
    process.wait()
    found = Store(tmp_path).cells()
    assert [cell.key for cell in found[: last + 1]] == [str(i) for i in range(last + 1)]
    assert len(found) in (last + 1, last + 2) and all(len(cell.settings["pad"]) == 5000 for cell in found)


class Numbers(ImageSet):
    fingerprint = "numbers"

    def __len__(self) -> int:
        return 5

    def block(self, start, stop):
        import torch

        return torch.arange(start, stop, dtype=torch.uint8).reshape(-1, 1, 1, 1)


class Eye(Observer):
    def __init__(self, name: str, factor: float) -> None:
        self.name, self.factor, self.fingerprint = name, factor, f"{name} {factor}"

    def look(self, images, captions):
        return {f"{self.name}/features": images.numpy().reshape(-1, 1) * self.factor}


def test_passes_of_several_observers_are_one(tmp_path: Path):
    with pytest.raises(MissingFile):
        seen_in(tmp_path)
    observe(Numbers(), [Eye("a", 2.0), Eye("b", 3.0)], tmp_path / "1", keep_images=5)
    observe(Numbers(), [Eye("a", 5.0), Eye("c", 7.0)], tmp_path / "2")
    os.utime(tmp_path / "1/rows.json", (1, 1))
    passes = finished_passes(tmp_path)
    newest, older = merged(passes), merged(passes, {"a": "a 2.0"})
    assert newest.aspects == older.aspects == ("a/features", "b/features", "c/features", "images")
    assert [float(newest[f"{name}/features"][1, 0]) for name in "abc"] == [5, 3, 7]
    assert [float(older[f"{name}/features"][1, 0]) for name in "abc"] == [2, 3, 7]
    assert older.observers == {"a": "a 2.0", "b": "b 3.0", "c": "c 7.0"} and len(older) == 5
    np.save(tmp_path / "2/done.npy", np.zeros(1, np.uint8))
    assert isinstance(seen_in(tmp_path), Rows) and seen_in(tmp_path).observers == {"a": "a 2.0", "b": "b 3.0"}
