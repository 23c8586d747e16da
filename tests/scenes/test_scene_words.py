"""Captions are true of their scenes, mean what they say, and a scene that differs in one attribute is told by that part alone."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from guidon.errors import BadValue, UnknownName
from guidon.scenes.check import Holds, Verdict, check, has
from guidon.scenes.draw import CLEAR, KINDS, draw, prompts
from guidon.scenes.scene import COLOURS, PLACES, RELATIONS, SHAPES, SIZES, Scene, Thing
from guidon.scenes.words import Claim, Wanted, caption, claim

OTHERS = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES), "place": PLACES}
RED = Thing("red", "circle", "big", 0.3, 0.3)
BLUE = Thing("blue", "square", "small", 0.75, 0.35)


def drawn(kind: str | None, count: int, seed: int = 0) -> list[tuple[Scene, str]]:
    rng = np.random.default_rng(seed)
    return [draw(rng, kind) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", Claim()),
        ("a circle", Claim((Wanted(None, "circle"),))),
        ("a thing", Claim((Wanted(),))),
        ("a small blue square in the top left", Claim((Wanted("blue", "square", "small", "top left"),))),
        ("a red thing in the center", Claim((Wanted("red", None, None, "center"),))),
        ("a big thing left of a cross", Claim((Wanted(size="big"), Wanted(shape="cross")), "left of")),
        ("a red circle above a blue square", Claim((Wanted("red", "circle"), Wanted("blue", "square")), "above")),
        (
            "a cross and a thing and a red cross",
            Claim((Wanted(None, "cross"), Wanted(), Wanted("red", "cross"))),
        ),
        ("three small green triangles", Claim((Wanted("green", "triangle", "small"),) * 3)),
        ("two things", Claim((Wanted(),) * 2)),
        ("four crosses", Claim((Wanted(None, "cross"),) * 4)),
    ],
)
def test_captions_mean_what_they_say(text: str, meant: Claim) -> None:
    assert claim(text) == meant
    assert caption(meant) == text


@pytest.mark.parametrize("kind", KINDS)
def test_captions_come_back_and_hold_of_their_scene(kind: str) -> None:
    for scene, text in [*drawn(kind, 800)]:
        assert caption(claim(text)) == text
        verdict = check(text, scene)
        assert verdict.all
        assert all(all(held) for held in verdict.parts().values())
    for text in prompts(kind, 300, 1):
        assert caption(claim(text)) == text


def test_kinds_are_drawn_as_often_as_wished() -> None:
    def kind(said: Claim) -> str:
        if said.relation:
            return "relation"
        if len(said.things) == 1:
            return "single"
        return "count" if len({*said.things}) == 1 else "and"

    counts = Counter(kind(claim(text)) for _, text in drawn(None, 4000))
    assert {name: counts[name] / 4000 for name in KINDS} == pytest.approx(KINDS, abs=0.03)


@pytest.mark.parametrize("part", OTHERS)
def test_a_changed_attribute_is_noticed_where_it_is(part: str) -> None:
    for scene, _ in drawn("single", 200):
        (thing,) = scene.things
        if thing.place is None:
            continue
        right = Wanted(thing.colour, thing.shape, thing.size, thing.place)
        for other in OTHERS[part]:
            if other != getattr(right, part):
                wrong = check(Claim((dataclasses.replace(right, **{part: other}),)), scene)
                assert wrong.parts() == {**check(Claim((right,)), scene).parts(), part: [False]}
                assert not wrong.all


@pytest.mark.parametrize("part", ["colour", "shape", "size"])
def test_a_changed_attribute_of_one_of_two_leaves_the_other(part: str) -> None:
    for scene, text in drawn("relation", 200):
        first, second = (Wanted(thing.colour, thing.shape, thing.size) for thing in scene.things)
        relation = claim(text).relation
        if len({first.colour, second.colour}) == len({first.shape, second.shape}) == 2:
            other = next(o for o in OTHERS[part] if o not in (getattr(first, part), getattr(second, part), None)) if (
                part != "size"
            ) else {"big": "small", "small": "big"}[str(first.size)]  # fmt: skip
            verdict = check(Claim((dataclasses.replace(first, **{part: other}), second), relation), scene)
            assert verdict.parts()[part] == [False, True]
            assert verdict.relation
            assert verdict.count


def test_the_opposite_relation_is_noticed() -> None:
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for scene, text in drawn("relation", 300):
        said = claim(text)
        assert said.relation is not None
        first, second = (Wanted(thing.colour, thing.shape) for thing in scene.things)
        assert scene.things[0].stands(said.relation, scene.things[1], CLEAR)
        turned = check(Claim((first, second), opposite[said.relation]), scene)
        assert turned.relation is False
        assert check(Claim((second, first), opposite[said.relation]), scene).all


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_are_those_of_the_picture(relation: str) -> None:
    at = {"left of": (0.2, 0.5), "right of": (0.8, 0.5), "above": (0.5, 0.2), "below": (0.5, 0.8)}
    middle = Thing("blue", "square", "small", 0.5, 0.5)
    for where, (x, y) in at.items():
        scene = Scene((middle, Thing("red", "circle", "small", x, y)))
        assert check(f"a red circle {relation} a blue square", scene).relation is (where == relation)


def test_the_number_must_be_right_to_the_last() -> None:
    scene = Scene((RED, dataclasses.replace(RED, x=0.75), BLUE))
    assert check("three things", scene).all
    assert check("two red circles", scene) == Verdict((Holds(True, True, None, None),) * 2, count=False, relation=None)
    four = check("four red circles", scene)
    assert four.count is False
    assert sorted(thing.all for thing in four.things) == [False, False, True, True]
    assert check("a red circle", Scene(())) == Verdict((Holds(False, False, None, None),), False, None)
    assert check("a red circle above a blue square", Scene((RED,))).parts() == {
        "colour": [True, False],
        "shape": [True, False],
        "size": [],
        "place": [],
        "count": [False],
        "relation": [False],
    }


def test_an_empty_caption_says_nothing() -> None:
    for scene in (Scene(()), Scene((RED, BLUE))):
        assert check("", scene) == Verdict((), None, None)
        assert check("", scene).all


def test_attributes_swapped_between_things_are_wrong() -> None:
    verdict = check("a blue circle left of a red square", Scene((RED, BLUE)))
    assert verdict.relation
    assert verdict.parts()["colour"] == [False, False]
    assert not check("a blue circle and a red square", Scene((RED, BLUE))).all
    assert check("a blue square and a red circle", Scene((RED, BLUE))).all


def test_an_attribute_is_found_wherever_it_is() -> None:
    scene = Scene((RED, BLUE))
    there = {word for words in OTHERS.values() for word in words if has(scene, word)}
    assert there == {"red", "blue", "circle", "square", "big", "small", "top left", "top right"}
    with pytest.raises(UnknownName, match="pink"):
        has(scene, "pink")


def test_places_are_corners_and_the_middle() -> None:
    found = {place: Thing("red", "circle", "big", x, y).place for place, (x, y) in {
        "top left": (0.3, 0.3), "top right": (0.7, 0.3), "bottom left": (0.3, 0.7), "bottom right": (0.7, 0.7),
        "center": (0.6, 0.4),
    }.items()}  # fmt: skip
    assert found == {place: place for place in PLACES}
    assert Thing("red", "circle", "big", 0.5, 0.25).place is None


@pytest.mark.parametrize(
    "text",
    [
        "a pink circle",
        "two circle",
        "a circles",
        "A red circle",
        "circle",
        "a red big circle",
        "a circle left of",
        "a circle left of a cross above a square",
        "two circles left of a cross",
        "a circle in the middle",
        "a thing and",
    ],
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(BadValue, match="not in the words of the shapes"):
        check(text, Scene((RED,)))


def test_prompts_say_all_there_is_to_say() -> None:
    for text in prompts("single", 50, 0):
        assert None not in vars(claim(text).things[0]).values()
    for text in prompts("relation", 50, 0):
        first, second = claim(text).things
        assert None not in (first.colour, first.shape, second.colour, second.shape)
        assert first.colour != second.colour
        assert first.shape != second.shape
    assert prompts("count", 9, 4) == prompts("count", 20, 4)[:9]
    assert prompts("single", 20, 4) != prompts("single", 20, 5)
    with pytest.raises(UnknownName, match="kind of scene"):
        prompts("many", 3, 0)


def test_the_same_generator_draws_the_same() -> None:
    assert drawn(None, 50, seed=7) == drawn(None, 50, seed=7)
    assert drawn(None, 50, seed=7) != drawn(None, 50, seed=8)
