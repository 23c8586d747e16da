"""Cells by Ray: the same as those of one process; without Ray what to do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.sweeps import tiny_model, tiny_plan

from guidon.errors import BadValue, NotSupported
from guidon.measure.observe import IMAGES
from guidon.study.bench import Bench
from guidon.study.ray_engine import _alike
from guidon.study.store import Store
from guidon.study.sweep import sweep


def test_without_ray_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NotSupported, match=r"pip install 'guidon\[ray\]'"):
        sweep(tiny_plan(tiny_model(tmp_path / "m")), tmp_path / "out", engine="ray")
    assert Store.existing(tmp_path / "out").all_cells() == {}


def test_figures_of_another_reference_or_network_are_refused(tmp_path: Path):
    plan = tiny_plan(tiny_model(tmp_path / "m"), axes={"w": [1]})
    (cell,), bench = sweep(plan, tmp_path / "out"), Bench(plan, "cpu")
    assert _alike(cell, bench) == cell and _alike("why", bench) == "why"
    with pytest.raises(BadValue, match="a worker measured contrast with another reference"):
        _alike(replace(cell, against={**cell.against, "contrast": "other"}), bench)


def test_cells_by_ray_are_those_of_one_process(tmp_path: Path):
    ray = pytest.importorskip("ray")
    plan = tiny_plan(tiny_model(tmp_path / "m"), axes={"w": [1, 2, 3]})
    alone = sweep(plan, tmp_path / "alone")
    ray.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    try:
        counts: list[int] = []
        cells = sweep(plan, tmp_path / "ray", engine="ray", workers=2, on_cell=lambda _, done, of: counts.append(done))
        assert counts == [1, 2, 3]
        assert sweep(plan, tmp_path / "ray", engine="ray", on_cell=lambda *_: pytest.fail("made again")) == cells
        with pytest.raises(Exception, match="weak"):
            sweep(tiny_plan(tmp_path / "m", rule="autoguidance({w})"), tmp_path / "bad", engine="ray")
    finally:
        ray.shutdown()
    for one, other in zip(cells, alone, strict=True):
        folder = other.folder
        assert replace(one, folder=folder, cost=other.cost) == other
        assert np.array_equal(np.asarray(one.rows()[IMAGES]), np.asarray(other.rows()[IMAGES]))
