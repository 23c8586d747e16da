"""Texts in which brackets say how much a word counts, as users of Stable Diffusion web UIs write them."""

from __future__ import annotations

import math
import re
from itertools import groupby
from typing import NamedTuple

from guidon.errors import BadValue

MORE = 1.1  # what one pair of round brackets multiplies by, and one pair of square ones divides by
PARTNERS = {")": "(", "]": "["}
PIECES = re.compile(
    r"\\(?P<escaped>[()\[\]\\])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?[.\d]+)\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<plain>[^\\()\[\]:]+|.)",
    re.DOTALL,
)


class Part(NamedTuple):
    """A piece of a text, and how much it counts."""

    text: str
    weight: float


def parse(text: str) -> tuple[Part, ...]:
    r"""Return the parts of a text in their order, none of them empty, neighbours of different weights.

    ``(x)`` counts 1.1 times, ``[x]`` 1 / 1.1 times, ``(x:1.3)`` 1.3 times; brackets within brackets multiply. A ``\``
    before ``(``, ``)``, ``[``, ``]`` or ``\`` makes it a letter; before anything else it is one itself. What only some
    web UIs read is text here: ``BREAK``, ``AND``, ``[x:y:5]``.

    Args:
        text: what a user wrote.

    Raises:
        BadValue: a bracket without a partner, or a weight that is no number.

    Source: AUTOMATIC1111/stable-diffusion-webui, modules/prompt_parser.py, parse_prompt_attention; which closes at the
    end what was left open.
    """
    pieces: list[Part] = []
    opened: list[tuple[str, int, int]] = []  # the bracket, its place in the text, the pieces before it
    for found in PIECES.finditer(text):
        place, kind = found.start() + 1, found.lastgroup
        if kind == "open":
            opened.append((found["open"], place, len(pieces)))
        elif kind == "close" or (kind == "weight" and opened and opened[-1][0] == "("):
            bracket = found[0][-1]
            if not opened or opened[-1][0] != PARTNERS[bracket]:
                raise _lonely(bracket, found.end(), text)
            first = opened.pop()[2]
            by = _weight(found["weight"], place, text) if kind == "weight" else MORE if bracket == ")" else 1 / MORE
            pieces[first:] = [Part(piece, weight * by) for piece, weight in pieces[first:]]
        elif kind == "weight":
            raise _lonely(")", found.end(), text)
        else:
            pieces.append(Part(found["escaped"] or found["plain"], 1.0))
    if opened:
        raise _lonely(opened[-1][0], opened[-1][1], text)
    exact = [Part(piece, round(weight, 12)) for piece, weight in pieces]  # ([x]) is 1, not 1.0000000000000002
    return tuple(
        Part("".join(part.text for part in same), weight) for weight, same in groupby(exact, lambda part: part.weight)
    )


def _weight(number: str, place: int, text: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise BadValue(f"{number!r:.30} after letter {place} of {text!r:.60} is no weight; write (word:1.3)")
    return weight


def _lonely(bracket: str, place: int, text: str) -> BadValue:
    return BadValue(
        f"the {bracket!r} at letter {place} of {text!r:.60} has no partner; write \\{bracket} for a bracket that is text"
    )
