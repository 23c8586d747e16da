"""How the cells of a sweep stand: as columns, on axes, and in lines along the weight."""

from __future__ import annotations

import math
from pathlib import Path

from support.cells import GiB, figure

from guidon.study.columns import along, as_json, axes, coloured, columns, common, lines, slug
from guidon.study.store import Cell, Cost


def cell(key: str, cost: Cost | None = None, **place: object) -> Cell:
    return Cell(key, place, {}, {}, cost or Cost(20, 40.0, 2 * GiB, 100), Path())


def test_costs_are_of_one_image():
    found = {column.key: column.of(cell("a")) for column in columns([cell("a")])}
    values = {key: point.value for key, point in found.items() if point is not None}
    assert values == {"nfe": 20, "seconds": 0.4, "peak_memory": 2}
    unknown = [column.key for column in columns([cell("a", Cost(20, 40.0, 0, 100))])]
    assert unknown == ["nfe", "seconds"]


def test_a_figure_knows_its_metric_its_network_and_which_way_is_better():
    one = Cell(
        "a",
        {},
        {},
        {"fid@dinov2": figure(3.0), "recall": figure(0.5), "saturation": figure(math.nan)},
        Cost(1, 1, 1, 1),
        Path(),
    )
    fid, recall, saturation, *_ = columns([one])
    assert (fid.metric, fid.network, fid.better, recall.better, saturation.better) == (
        "fid",
        "dinov2",
        "lower",
        "higher",
        None,
    )
    assert fid.of(one) is not None and saturation.of(one) is None


def test_lines_run_along_the_weight_in_its_order_and_keep_other_axes_apart():
    places = [(rule, w, steps) for rule in ("b", "a") for w in (4, 1, 2.5) for steps in (10, 20)]
    cells = [cell(f"{i}", rule=rule, w=w, steps=steps) for i, (rule, w, steps) in enumerate(places)]
    assert (along(cells), coloured(cells)) == ("w", "rule")
    assert axes(cells) == {"rule": ["b", "a"], "w": [1, 2.5, 4], "steps": [10, 20]}
    found = lines(cells)
    assert [[each.axes["w"] for each in line.cells] for line in found] == [[1, 2.5, 4]] * 4
    assert sorted((line.name, line.cells[0].axes["steps"]) for line in found) == [
        ("a", 10),
        ("a", 20),
        ("b", 10),
        ("b", 20),
    ]


def test_without_a_weight_the_longest_axis_of_numbers_is_followed():
    cells = [cell(f"{s}{g}", steps=s, eta=g) for s in (5, 10, 20) for g in (0.0, 1.0)]
    assert (along(cells), coloured(cells)) == ("steps", "eta")
    assert along([cell("a", rule="x"), cell("b", rule="y")]) is None


def test_a_cell_off_the_axis_stands_alone():
    found = lines([cell("a", rule="x", w=1), cell("b", rule="x", w=2), cell("c", rule="x"), cell("d", rule="x")])
    assert [len(line.cells) for line in found] == [2, 1, 1]


def test_small_helpers():
    assert (common([2, 2]), common([2, 3]), common([])) == (2, None, None)
    assert slug("kid(50, 500)@a/b") == "kid-50-500-a-b"
    assert as_json({"a": [math.nan, 1.0, (math.inf,)], 2: "x"}) == {"a": [None, 1.0, [None]], "2": "x"}
