"""What can be said of an image: one wording or several, of which one is drawn at random whenever the image is visited."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from guidon.errors import BadValue, DataError, nearest

Wording = tuple[str | tuple[str, ...], ...]
"""Texts in a row; a list among them gives a random part of itself."""
Captions = tuple[Wording, ...]
"""The wordings to draw from; none where nothing is said of the image."""


def said(wording: Wording, chance: random.Random | None = None) -> str:
    """Return the text of a wording; of a list in it a random part, at least one of it, in random order (without ``chance``: all of it)."""
    parts = []
    for part in wording:
        if not isinstance(part, str):
            some = part if chance is None else chance.sample(part, chance.randint(1, len(part)))
            part = ", ".join(some)
        parts.append(part)
    return "".join(parts)


def drawn(captions: Captions, number: int) -> str:
    """Return one wording's text, chosen by a random number; empty where nothing is said."""
    if not captions:
        return ""
    chance = random.Random(number)
    return said(chance.choice(captions), chance)


def wordings(value: Any, *, lines: bool = False) -> Captions:
    """Return what a column holds as wordings: a text is one, a list is several; blank ones are left out.

    Args:
        value: a text, a list of texts, or None.
        lines: whether every line of a text is a wording of its own, as in a text file beside an image.
    """
    texts = [text for part in _texts(value) for text in (part.splitlines() if lines else [part])]
    return tuple((text.strip(),) for text in texts if text.strip())


@dataclass(frozen=True)
class Field:
    """A column in a template.

    Args:
        column: its name; dots reach into records.
        names: of the classes that its numbers stand for, or None.
    """

    column: str
    names: tuple[str, ...] | None = None

    def value(self, value: Any) -> str | tuple[str, ...]:
        """Return what a row has there as a text or, of a list, as texts; empty where it has nothing."""
        names = dict(enumerate(self.names or ()))
        texts = _texts([names.get(part, part) if isinstance(part, int) else part for part in _listed(value)])
        found = tuple(one_line for text in texts if (one_line := " ".join(text.split())))
        return found if isinstance(value, list | tuple) else "".join(found)


@dataclass(frozen=True)
class Template:
    """A text over the columns of a row, such as ``{caption}, {style}``.

    Args:
        parts: texts and columns in their order.
    """

    parts: tuple[str | Field, ...]

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return [part.column for part in self.parts if isinstance(part, Field)]

    def wording(self, value: Callable[[str], Any]) -> Wording | None:
        """Return what a row says by it, given what each column holds; None where a column is empty."""
        found = tuple(part if isinstance(part, str) else part.value(value(part.column)) for part in self.parts)
        return found if all(found) else None


def template(text: str, names: Mapping[str, tuple[str, ...] | None] | None = None) -> Template:
    """Read a template.

    Args:
        text: with the names of columns in braces.
        names: every column there is, with the names of its classes or None; left out: any column will do.

    Raises:
        BadValue: the braces cannot be read.
        DataError: there is no such column.
    """
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise BadValue(
            f"cannot read the caption template {text!r} ({error}); write for instance '{{caption}}, {{style}}'"
        ) from error
    parts: list[str | Field] = []
    for literal, column, form, conversion in pieces:
        if literal:
            parts.append(literal)
        if column is None:
            continue
        if form or conversion or not column:
            raise BadValue(
                f"the caption template {text!r} holds more than names of columns in its braces; write {{column}}"
            )
        if names is not None and column not in names:
            raise DataError(
                f"the caption template {text!r} names the column {column!r}, which the data do not have{nearest(column, names)};"
                f" their columns are: {', '.join(names)}. Mend data.captions"
            )
        parts.append(Field(column, names[column] if names else None))
    if not parts:
        raise BadValue("a caption template is empty; write for instance '{caption}', or leave data.captions out")
    return Template(tuple(parts))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _texts(value: Any) -> Iterator[str]:
    for part in _listed(value):
        if isinstance(part, bytes):
            yield part.decode("utf-8", "replace")
        elif part is not None:
            yield str(part)
