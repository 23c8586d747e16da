"""What a plan of a sweep means, cell by cell, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guidon.errors import BadRecipe, BadValue, DataError
from guidon.scenes.draw import prompts
from guidon.study.axes import Range, read_axis
from guidon.study.plan import SweepPlan


def plan(**content: Any) -> SweepPlan:
    return SweepPlan.read({"model": "m", **content})


def cells(**content: Any) -> list[tuple[dict[str, Any], Any]]:
    return [(point.axes, point.setting) for point in plan(**content).points()]


def refused(**content: Any) -> str:
    with pytest.raises(BadRecipe) as found:
        plan(**content)
    return str(found.value)


def test_cells_are_the_product_of_the_axes_the_first_slowest():
    found = cells(
        rule="{rule}",
        steps=7,
        axes={"rule": {"plain": "cfg({w})", "apg": "cfg({w}) | apg"}, "w": [1, 2.5], "solver": ["euler", "heun"]},
    )
    assert [axes for axes, _ in found] == [
        {"rule": rule, "w": w, "solver": solver}
        for rule in ("plain", "apg")
        for w in (1, 2.5)
        for solver in ("euler", "heun")
    ]
    assert [setting.rule for _, setting in found] == [
        text for text in ("cfg(1)", "cfg(2.5)", "cfg(1) | apg", "cfg(2.5) | apg") for _ in range(2)
    ]
    assert {setting.steps for _, setting in found} == {7}


@pytest.mark.parametrize("rule", [None, "{rule}"])
def test_a_setting_is_an_axis_by_its_own_name_whether_it_names_it_or_not(rule):
    assert [s.rule for _, s in cells(rule=rule, axes={"rule": ["cfg(2)", 3]})] == ["cfg(2)", "cfg(3)"]


def test_a_text_around_the_name_of_an_axis_stays():
    assert [s.rule for _, s in cells(rule="{rule} | apg", axes={"rule": ["cfg(2)"]})] == ["cfg(2) | apg"]


def test_what_a_name_alone_stands_for_keeps_its_kind():
    (_, setting), *_ = cells(steps="{s}", n="{s}", told=["a {what}", "{what}"], axes={"s": [12], "what": ["cat"]})
    assert (setting.steps, setting.n, setting.told) == (12, 12, ("a cat", "cat"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"from": 1, "to": 4, "count": 4}, [1, 2, 3, 4]),
        ({"from": 1, "to": 16, "count": 3, "spacing": "log"}, [1, 4, 16]),
        ({"from": 0, "to": 1, "count": 3}, [0, 0.5, 1]),
        ({"from": 1, "to": 2, "count": 3, "spacing": "log"}, [1, 1.41421, 2]),
    ],
)
def test_ranges(given, expected):
    axis = read_axis("w", given)
    assert isinstance(axis, Range) and [value for _, value in axis.values] == expected


def test_a_range_of_steps_has_whole_numbers_only():
    assert [value for _, value in read_axis("steps", {"from": 5, "to": 10, "count": 3}).values] == [5, 8, 10]


def test_cells_that_are_alike_are_one():
    found = cells(axes={"rule": {"none": "cfg(1)", "cfg": "cfg({w})"}, "w": [1, 2]})
    assert [axes for axes, _ in found] == [{"rule": "none", "w": 1}, {"rule": "cfg", "w": 2}]
    assert len(cells(axes={"rule": ["cfg(3)", "cfg( 3.0 )", 3]})) == 1


def test_what_a_rule_has_no_use_for_makes_no_cells():
    found = cells(axes={"rule": ["cfg(2)", "negative(2)"], "negative": ["a", "b"]})
    assert [(s.rule, s.negative) for _, s in found] == [
        ("cfg(2)", ()),
        ("negative(2)", ("a",)),
        ("negative(2)", ("b",)),
    ]


def test_further_cells_are_no_product_and_know_the_names_of_an_axis():
    axes = {"rule": {"plain": "cfg({w})"}, "w": [1]}
    found = cells(axes=axes, cells=[{"rule": "plain", "w": 9}, {"rule": "cfg(4) | apg"}])
    assert [s.rule for _, s in found] == ["cfg(1)", "cfg(9)", "cfg(4) | apg"]
    assert [s.rule for _, s in cells(cells=[{"rule": 2}, {"rule": 3}])] == ["cfg(2)", "cfg(3)"]
    assert len(cells()) == 1


def test_what_is_told(tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n\n a dog \n")
    told = {
        name: cells(told=given)[0][1].told for name, given in enumerate([3, ["a", None], {"file": str(file)}, None])
    }
    assert told == {0: (3,), 1: ("a", None), 2: ("a cat", "a dog"), 3: None}
    assert cells(told={"shapes": "relation", "count": 4, "seed": 1})[0][1].told == tuple(prompts("relation", 4, 1))
    many = cells(axes={"told": {"one": {"shapes": "single", "count": 2}, "two": ["x"]}})
    assert [axes["told"] for axes, _ in many] == ["one", "two"] and many[1][1].told == ("x",)
    with pytest.raises(DataError, match="nowhere"):
        plan(told={"file": "nowhere.txt"})


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ({"rulle": "cfg(1)"}, ["rulle", "did you mean 'rule'"]),
        ({"rule": "cfgg(1)"}, ["rule: ", "did you mean 'cfg'"]),
        ({"rule": "apg"}, ["stage"]),
        ({"solver": "eulr", "grid": "karas"}, ["'euler'", "'karras'"]),
        ({"rule": "cfg({v})", "axes": {"w": [1]}}, ["{v} is no axis", "w"]),
        ({"axes": {"v": [1]}}, ["v is no setting", "no {v} stands"]),
        ({"axes": {"rule": ["{rule}"]}}, ["its own value"]),
        ({"axes": {"w": []}, "rule": "cfg({w})"}, ["axis w has no values"]),
        ({"axes": {"w": 3}, "rule": "cfg({w})"}, ["axis w is a list"]),
        ({"axes": {"w": {"from": 0, "to": 4, "spacing": "log"}}, "rule": "cfg({w})"}, ["above 0"]),
        ({"axes": {"w": {"from": 4, "to": 1}}, "rule": "cfg({w})"}, ["not from 4 to 1"]),
        ({"axes": {"w": {"from": 0, "to": 4, "step": 1}}, "rule": "cfg({w})"}, ["'step'", "count"]),
        ({"steps": 3, "nfe": 4}, ["one of the two"]),
        ({"steps": 2.5}, ["steps: ", "2.5"]),
        ({"average": 0.5}, ["0.2887"]),
        ({"negative": "a", "rule": "cfg(2)"}, ["negative: no rule here"]),
        ({"metrics": ["fid"]}, ["fid compares", "reference"]),
        ({"metrics": ["fdi"], "reference": {}}, ["did you mean 'fid'"]),
        ({"metrics": ["fid@incept"], "reference": {}}, ["did you mean 'inception'"]),
        ({"metrics": ["diversity"]}, ["needs a network"]),
        ({"features": "incept"}, ["did you mean 'inception'"]),
        ({"reference": {"sorce": 1}}, ["reference.sorce", "did you mean 'source'"]),
        ({"told": [1.5]}, ["told: 1.5"]),
        ({"told": {"shapes": "relation"}}, ["count: 200"]),
        ({"cells": [{"w": 1}]}, ["w is no setting"]),
    ],
)
def test_what_is_wrong_is_said(content, messages):
    said = refused(**content)
    assert all(message in said for message in messages), said


def test_everything_that_is_wrong_is_said_at_once():
    said = refused(rule="cfg({w}) | apgg", solver="eulr", metrics=["fdi"], axes={"w": [1, 2, 3]}).split("\n")
    assert len(said) == 3 and all(line.startswith("plan: ") for line in said)
    assert sum("cell w=1, and 2 more" in line for line in said) == 2


def test_a_plan_is_read_from_a_file_with_changes(tmp_path: Path):
    path = tmp_path / "plan.yaml"
    path.write_text("model: m\nrule: cfg({w})\naxes: {w: [1, 2]}\n")
    changed = SweepPlan.load(path, ["axes.w=[5]", "n=10", "reference.source=digits"])
    assert [(p.setting.rule, p.setting.n) for p in changed.points()] == [("cfg(5)", 10)]
    assert changed.reference is not None and changed.reference.source == "digits"
    with pytest.raises(BadRecipe, match="cannot read the plan"):
        SweepPlan.load(tmp_path / "other.yaml")
    path.write_text("- 1\n")
    with pytest.raises(BadRecipe, match="must hold"):
        SweepPlan.load(path)


def test_the_example_is_a_plan():
    example = SweepPlan.load(Path(__file__).parents[2] / "sweeps/digits.yaml")
    assert len(example.points()) == 18 and {point.setting.nfe for point in example.points()} == {30}


def test_an_axis_without_a_name_names_itself():
    axis = read_axis("negative", [["a", "b"], None, "c"])
    assert axis.values == (("a, b", ["a", "b"]), (None, None), ("c", "c"))
    with pytest.raises(BadValue):
        read_axis("w", "12")
