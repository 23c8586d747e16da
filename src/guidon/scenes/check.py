"""Which parts of a claim hold of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.optimize import linear_sum_assignment

from guidon.errors import UnknownName
from guidon.scenes.scene import COLOURS, PLACES, SHAPES, SIZES, Scene, Thing
from guidon.scenes.words import Claim, Wanted, claim

ATTRIBUTES = ("colour", "shape", "size", "place")


@dataclass(frozen=True)
class Holds:
    """Which of the attributes said of one thing it has; None for what was not said, False for all where there is no such thing."""

    colour: bool | None
    shape: bool | None
    size: bool | None
    place: bool | None

    @property
    def all(self) -> bool:
        """Whether nothing said of it is wrong."""
        return False not in (self.colour, self.shape, self.size, self.place)


@dataclass(frozen=True)
class Verdict:
    """Which parts of a caption hold.

    Args:
        things: for each thing that was named.
        count: whether there are as many things as were named; None where nothing was said.
        relation: whether the first stands to the second as was said; None where nothing was.
    """

    things: tuple[Holds, ...]
    count: bool | None
    relation: bool | None

    @property
    def all(self) -> bool:
        """Whether everything holds that was said."""
        return all(thing.all for thing in self.things) and self.count is not False and self.relation is not False

    def parts(self) -> dict[str, list[bool]]:
        """Return what was said under "colour", "shape", "size", "place", "count" and "relation": for each time whether it holds."""
        said = {name: [getattr(thing, name) for thing in self.things] for name in ATTRIBUTES}
        said |= {"count": [self.count], "relation": [self.relation]}
        return {name: [held for held in helds if held is not None] for name, helds in said.items()}


def check(said: str | Claim, scene: Scene) -> Verdict:
    """Return which parts of a caption hold of a scene, with the things that were named found where most of it holds.

    Raises:
        BadValue: a caption that is not in the words of the shapes.
    """
    said = claim(said) if isinstance(said, str) else said
    if not said.things:
        return Verdict((), None, None)
    count = len(said.things) == len(scene.things)
    things = scene.things + (None,) * max(0, len(said.things) - len(scene.things))
    if said.relation is not None:
        pairs = (_pair(said, first, second, count) for first, second in permutations(things, 2))
        return max(pairs, key=lambda verdict: sum(map(sum, verdict.parts().values())))
    holds = [[_holds(wanted, thing) for thing in things] for wanted in said.things]
    right = np.array([[sum(map(bool, vars(h).values())) + 0.5 * h.all for h in row] for row in holds])
    rows, columns = linear_sum_assignment(right, maximize=True)
    return Verdict(tuple(holds[i][j] for i, j in zip(rows, columns, strict=True)), count, None)


def has(scene: Scene, word: str) -> bool:
    """Whether anything in a scene has an attribute: a colour, a shape, a size or a place.

    Raises:
        UnknownName: the word is none of these.
    """
    words = (*COLOURS, *SHAPES, *SIZES, *PLACES)
    if word not in words:
        raise UnknownName("attribute", word, words)
    return any(word in (thing.colour, thing.shape, thing.size, thing.place) for thing in scene.things)


def _holds(wanted: Wanted, thing: Thing | None) -> Holds:
    pairs = ((getattr(wanted, name), getattr(thing, name, None)) for name in ATTRIBUTES)
    return Holds(*(None if said is None else said == seen for said, seen in pairs))


def _pair(said: Claim, first: Thing | None, second: Thing | None, count: bool) -> Verdict:
    assert said.relation is not None
    stands = first is not None and second is not None and first.stands(said.relation, second)
    return Verdict((_holds(said.things[0], first), _holds(said.things[1], second)), count, stands)
