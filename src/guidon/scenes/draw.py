"""Scenes and captions by chance: a caption says a random part of what is true of its scene."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

import numpy as np

from guidon.errors import BadValue, UnknownName
from guidon.scenes.scene import COLOURS, MIDDLE, PLACES, RELATIONS, SHAPES, SIZES, Scene, Thing
from guidon.scenes.words import Claim, Wanted, caption

KINDS = {"single": 0.35, "relation": 0.35, "and": 0.15, "count": 0.15}  # how often each is drawn
CLEAR = 0.2  # a relation is said from this difference of the centres on
SURE = 0.03  # what is said to be in a place is so far from its border
BORDER = 1 / 32  # between a thing and the edge of the image
BETWEEN = 2.5 / 32  # between the bounding boxes of two things, at least
TRIES = 40

T = TypeVar("T")
Point = tuple[float, float]


def draw(rng: np.random.Generator, kind: str | None = None) -> tuple[Scene, str]:
    """Return a scene and a caption that holds of it.

    Args:
        rng: decides everything.
        kind: "single", "relation", "and" or "count"; None draws one as often as `KINDS` says.
    """
    kind = _kind(rng, kind)
    if kind == "single":
        look, place = _attributes(rng), _pick(rng, PLACES) if rng.random() < 0.6 else None
        width = SIZES[look[2]]
        thing = Thing(*look, *(_point_in(rng, place, width) if place else _point(rng, width)))
        return Scene((thing,)), caption(Claim((_said(rng, thing, (0.8, 0.85, 0.6), place),)))
    if kind == "count":
        return _several(rng)
    number = 3 if kind == "and" and rng.random() < 0.25 else 2
    looks: list[tuple[str, str, str]] = []
    while len(looks) < number:
        look = _attributes(rng)
        if all(look[:2] != other[:2] for other in looks):
            looks.append(look)
    things = _placed(rng, looks)
    wanted = tuple(_said(rng, thing, (0.9, 0.9, 0.3)) for thing in things)
    if kind == "and":
        return Scene(things), caption(Claim(wanted))
    true = [relation for relation in RELATIONS if things[0].stands(relation, things[1], CLEAR)]
    return Scene(things), caption(Claim(wanted, _pick(rng, true)))  # boxes that are apart leave one at least


def prompts(kind: str, count: int, seed: int) -> list[str]:
    """Return captions to measure with, which say all that there is to say.

    Single: size, colour, shape and place. Relation, and: colour and shape of two different things. Count: number, colour and shape.

    Args:
        kind: one of `KINDS`.
        count: how many captions.
        seed: decides them.
    """
    if count < 0 or seed < 0:
        raise BadValue(f"{count} prompts of seed {seed} cannot be drawn; neither number can be negative")
    rng = np.random.default_rng([seed, list(KINDS).index(_kind(None, kind))])
    return [caption(_full_claim(rng, kind)) for _ in range(count)]


def _full_claim(rng: np.random.Generator, kind: str) -> Claim:
    colour, shape, size = _attributes(rng)
    if kind == "single":
        return Claim((Wanted(colour, shape, size, _pick(rng, PLACES)),))
    if kind == "count":
        return Claim((Wanted(colour, shape),) * _pick(rng, (2, 3, 4)))
    first = second = Wanted(colour, shape)
    while second.colour == first.colour or second.shape == first.shape:
        second = Wanted(*_attributes(rng)[:2])
    return Claim((first, second), _pick(rng, list(RELATIONS)) if kind == "relation" else None)


def _several(rng: np.random.Generator) -> tuple[Scene, str]:
    """Return two to four things that share what is said of them; in the rest they may differ."""
    number = _pick(rng, (2, 3, 4))
    common = _said(rng, Thing(*_attributes(rng), 0.5, 0.5), (0.6, 0.85, 0.25))
    others = [_attributes(rng) for _ in range(number)]
    looks = [(common.colour or o[0], common.shape or o[1], common.size or o[2]) for o in others]
    return Scene(_placed(rng, looks)), caption(Claim((common,) * number))


def _said(rng: np.random.Generator, thing: Thing, chances: Sequence[float], place: str | None = None) -> Wanted:
    """Return a random part of what is true of a thing: colour, shape and size with these chances."""
    colour, shape, size = rng.random(3) < chances
    return Wanted(thing.colour if colour else None, thing.shape if shape else None, thing.size if size else None, place)


def _placed(rng: np.random.Generator, looks: Sequence[tuple[str, str, str]]) -> tuple[Thing, ...]:
    points = _points(rng, [SIZES[size] for _, _, size in looks])
    return tuple(Thing(*look, *point) for look, point in zip(looks, points, strict=True))


def _points(rng: np.random.Generator, widths: Sequence[float]) -> list[Point]:
    """Return places for up to four things that do not touch: anywhere, or one in each quarter where that does not succeed."""
    for _ in range(TRIES):
        points = [_point(rng, width) for width in widths]
        pairs = combinations(zip(points, widths, strict=True), 2)
        if all(
            max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= (width + other) / 2 + BETWEEN for (a, width), (b, other) in pairs
        ):
            return points
    quarters = rng.permutation(4)[: len(widths)]
    room = [0.5 - BETWEEN - width for width in widths]
    return [
        (q % 2 / 2 + 0.25 + (rng.random() - 0.5) * free, q // 2 / 2 + 0.25 + (rng.random() - 0.5) * free)
        for q, free in zip(quarters.tolist(), room, strict=True)
    ]


def _point(rng: np.random.Generator, width: float) -> Point:
    low, room = BORDER + width / 2, 1 - 2 * BORDER - width
    return low + room * rng.random(), low + room * rng.random()


def _point_in(rng: np.random.Generator, place: str, width: float) -> Point:
    if place == "center":
        reach = 2 * (MIDDLE - SURE)
        return 0.5 + reach * (rng.random() - 0.5), 0.5 + reach * (rng.random() - 0.5)
    low, room = MIDDLE + SURE, 0.5 - BORDER - width / 2 - MIDDLE - SURE
    x, y = low + room * rng.random(), low + room * rng.random()
    return 0.5 + (x if "right" in place else -x), 0.5 + (y if "bottom" in place else -y)


def _attributes(rng: np.random.Generator) -> tuple[str, str, str]:
    return _pick(rng, _COLOURS), _pick(rng, SHAPES), _pick(rng, _SIZES)


def _kind(rng: np.random.Generator | None, kind: str | None) -> str:
    if kind is None and rng is not None:
        return str(rng.choice(list(KINDS), p=list(KINDS.values())))
    if kind not in KINDS:
        raise UnknownName("kind of scene", str(kind), KINDS)
    return kind


def _pick(rng: np.random.Generator, things: Sequence[T]) -> T:
    return things[int(rng.random() * len(things))]


_COLOURS, _SIZES = tuple(COLOURS), tuple(SIZES)
