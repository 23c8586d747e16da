"""Comparing on the same seeds: nothing where there is nothing, something where there is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cells import sweep
from support.sweeps import tiny_model, tiny_plan

from guidon.errors import BadValue, ShapeMismatch
from guidon.measure.metric import Wanted
from guidon.measure.observe import Rows
from guidon.study.compare import compare, compared, holm, side_by_side

SATURATION = [Wanted.parse("saturation", "")]


def rows(values: np.ndarray) -> Rows:
    return Rows.of({"pixels/saturation": values})


def p_of(first: np.ndarray, second: np.ndarray, **how: int) -> float:
    (row,) = compared(SATURATION, rows(first), rows(second), draws=0, **how)
    return row.p


def test_equal_figures_are_called_different_about_once_in_twenty_times():
    random = np.random.default_rng(0)
    called = 0
    for seed in range(300):
        shared = random.normal(size=80)
        first, second = (shared + 0.5 * random.normal(size=80) for _ in range(2))
        called += p_of(first, second, resamples=199, seed=seed) <= 0.05
    assert 5 <= called <= 30  # of 300, 15 are expected, with a deviation of 3.8


def test_what_the_seeds_share_does_not_hide_a_difference():
    random = np.random.default_rng(1)
    found = []
    for seed in range(20):
        shared = 5 * random.normal(size=80)
        first, second = (shared + 0.5 * random.normal(size=80) for _ in range(2))
        found.append(p_of(first, second + 0.4, resamples=199, seed=seed))
    assert np.mean(np.array(found) <= 0.05) >= 0.9  # a test of unpaired images would need a shift of 2


def test_the_difference_is_that_of_the_figures_and_changes_its_sign_with_them():
    random = np.random.default_rng(2)
    first, second = random.random(50), random.random(50)
    (row,) = compared(SATURATION, rows(first), rows(second), resamples=100)
    (turned,) = compared(SATURATION, rows(second), rows(first), resamples=100)
    assert row.difference.value == pytest.approx(second.mean() - first.mean())
    assert row.difference.value == pytest.approx(row.second.value - row.first.value)
    assert turned.difference.value == pytest.approx(-row.difference.value) and turned.p == row.p


def test_verdicts_follow_what_is_better():
    low, high = rows(np.zeros(30) + np.linspace(0, 0.1, 30)), rows(np.ones(30) - np.linspace(0, 0.1, 30))
    (row,) = compared(SATURATION, low, high, resamples=100)
    assert row.verdict == "B is higher"
    for better, verdict in (("higher", "B is better"), ("lower", "A is better")):
        assert type(row)(row.key, row.title, better, row.first, row.second, row.difference, row.p).verdict == verdict
        assert (
            type(row)(row.key, row.title, better, row.first, row.second, row.difference, 0.06).verdict
            == "no difference shown"
        )


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, float("nan"), 0.03])[::2] == [0.02, 0.03]  # what could not be tested does not count
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_p_and_that_of_bonferroni_in_the_same_order(p):
    found = holm(p)
    assert all(a <= b <= min(1, len(p) * a) + 1e-12 for a, b in zip(p, found, strict=True))
    assert [found[i] for i in np.argsort(p, kind="stable")] == sorted(found)


def test_samples_of_other_sizes_are_no_pairs():
    with pytest.raises(BadValue, match="30 images are paired with 31"):
        compared(SATURATION, rows(np.zeros(30)), rows(np.zeros(31)))


def test_images_that_are_told_different_things_are_no_pairs(tmp_path):
    one = tiny_model(tmp_path / "one")
    other = tiny_model(tmp_path / "other", 1, classes=("0", "2", "1"))
    sides = [{"model": str(one)}, {"model": str(other)}]
    plan = {"axes": {}, "rule": "cfg(2)", "cells": sides}
    with pytest.raises(BadValue, match=r"image 2: 1 and 2\).*tell both"):
        compare(tiny_plan(one, **plan), tmp_path / "a", resamples=20)
    assert not (tmp_path / "a/cells").exists()
    found = compare(
        tiny_plan(one, told=["1", "2"], **plan), tmp_path / "b", resamples=20
    )  # other numbers, the same names
    assert [cell.settings["model"] for cell in found.cells] == [str(one), str(other)]


@pytest.fixture
def model(tmp_path):
    return tiny_model(tmp_path / "model")


def test_a_model_compared_with_itself_shows_no_difference(model, tmp_path):
    found = compare(tiny_plan(model, axes={}, rule="cfg(2)"), tmp_path / "out", resamples=50)
    assert found.cells[0].key == found.cells[1].key and len(found.figures) == 2
    for row in found.figures:
        assert row.difference.value == row.difference.low == row.difference.high == 0
        assert row.difference.p == row.p == 1 and row.verdict == "no difference shown"


def test_two_rules_are_compared_image_by_image_and_written_down(model, tmp_path):
    plan = tiny_plan(model, axes={}, cells=[{"rule": "cfg(1)"}, {"rule": "cfg(6)"}])
    found = compare(plan, tmp_path / "out", resamples=50)
    assert [cell.settings["rule"] for cell in found.cells] == ["cfg(1)", "cfg(6)"]
    told = json.loads((tmp_path / "out/compare.json").read_text())
    assert [row["key"] for row in told["figures"]] == ["saturation", "contrast"]
    assert told["a"]["cost"]["nfe"] == 3 and told["b"]["cost"]["nfe"] == 6
    contrast = [cell.rows()["pixels/contrast"].mean(dtype=float) for cell in found.cells]
    assert told["figures"][1]["difference"]["value"] == pytest.approx(contrast[1] - contrast[0])


def test_the_sheet_pairs_seeds_from_the_most_different_on(model, tmp_path):
    plan = tiny_plan(model, axes={}, cells=[{"rule": "cfg(1)"}, {"rule": "cfg(6)"}])
    first, second = compare(plan, tmp_path / "out", resamples=20).cells
    made = side_by_side(first, second, count=12)
    one, two = (cell.rows()["images"] for cell in (first, second))
    apart = np.abs(one.astype(int) - two).mean((1, 2, 3))
    for column, i in enumerate(np.argsort(-apart, kind="stable")):
        for r, images in enumerate((one, two)):
            left, top = made.places[r, column]
            scale = made.size[0] // 8
            assert made.picture.getpixel((left + scale // 2, top + scale // 2))[0] == images[i, 0, 0, 0]


def test_what_cannot_be_paired_is_refused(model, tmp_path):
    with pytest.raises(BadValue, match="3 cells"):
        compare(tiny_plan(model, axes={"w": [1, 2, 3]}), tmp_path / "a")
    with pytest.raises(BadValue, match="other seeds"):
        compare(tiny_plan(model, rule="cfg(2)", axes={"seed": [0, 5]}), tmp_path / "b")
    cells = compare(tiny_plan(model, rule="cfg(2)", axes={}), tmp_path / "c", resamples=20).cells
    other = sweep(tmp_path / "d", lambda rule, w: {})[0]
    with pytest.raises(ShapeMismatch, match="1x8x8 and 3x8x8"):
        side_by_side(cells[0], other)
