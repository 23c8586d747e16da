"""What is said: captions in a few dozen words, and the claims they make."""

from __future__ import annotations

import re
from dataclasses import dataclass

from guidon.errors import BadValue
from guidon.scenes.scene import COLOURS, PLACES, RELATIONS, SHAPES, SIZES

NUMBERS = ("two", "three", "four")
NOUNS = {None: "things"} | {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
_PHRASE = re.compile(
    rf"(a|{'|'.join(NUMBERS)})(?: ({'|'.join(SIZES)}))?(?: ({'|'.join(COLOURS)}))?"
    rf" (?:(thing|{'|'.join(SHAPES)})|({'|'.join(NOUNS.values())}))(?: in the ({'|'.join(PLACES)}))?"
)
_RELATION = re.compile(rf" ({'|'.join(RELATIONS)}) ")


@dataclass(frozen=True)
class Wanted:
    """What is said of one thing; None where nothing is.

    Args:
        colour, shape, size, place: one of `COLOURS`, `SHAPES`, `SIZES`, `PLACES`, or None.
    """

    colour: str | None = None
    shape: str | None = None
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Claim:
    """What a caption says: these things are there, and nothing else. No things: nothing is said, and every scene will do.

    Args:
        things: what is said of each.
        relation: one of `RELATIONS`, in which the first of two things stands to the second, or None.
    """

    things: tuple[Wanted, ...] = ()
    relation: str | None = None


def caption(claim: Claim) -> str:
    """Return a claim in words, such as "a big red circle left of a blue square"."""
    if claim.relation is not None:
        return f" {claim.relation} ".join(map(_one, claim.things))
    if len(claim.things) in (2, 3, 4) and len({*claim.things}) == 1:
        thing = claim.things[0]
        return " ".join(filter(None, (NUMBERS[len(claim.things) - 2], thing.size, thing.colour, NOUNS[thing.shape])))
    return " and ".join(map(_one, claim.things))


def claim(caption: str) -> Claim:
    """Return what a caption says.

    Raises:
        BadValue: it is not of the form that `caption` writes.
    """
    if not caption:
        return Claim()
    first, *rest = _RELATION.split(caption)
    if rest:
        relation, second = rest[0], rest[-1]
        things = (*_phrase(first, caption), *_phrase(second, caption))
        if len(rest) != 2 or len(things) != 2:
            raise _unclear(caption)
        return Claim(things, relation)
    return Claim(tuple(thing for phrase in caption.split(" and ") for thing in _phrase(phrase, caption)))


def _one(thing: Wanted) -> str:
    place = thing.place and f"in the {thing.place}"
    return " ".join(filter(None, ("a", thing.size, thing.colour, thing.shape or "thing", place)))


def _phrase(phrase: str, caption: str) -> tuple[Wanted, ...]:
    found = _PHRASE.fullmatch(phrase)
    if found is None:
        raise _unclear(caption)
    number, size, colour, noun, nouns, place = found.groups()
    if (number == "a") != (noun is not None):
        raise _unclear(caption)
    shape = next((shape for shape, several in NOUNS.items() if (shape and noun == shape) or nouns == several), None)
    return (Wanted(colour, shape, size, place),) * (1 if noun else NUMBERS.index(number) + 2)


def _unclear(caption: str) -> BadValue:
    return BadValue(
        f"the caption {caption!r} is not in the words of the shapes; say for instance 'a small red circle in the top left',"
        " 'a circle left of a blue square', 'a red thing and a green cross', 'three big crosses' (colours:"
        f" {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}, thing; places: {', '.join(PLACES)})"
    )
