"""An axis of a sweep: the values that a setting takes, or those of a name that stands in the text of settings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guidon.errors import BadValue, nearest

PLACEHOLDER = re.compile(r"\{(\w+)\}")
SPACINGS = ("linear", "log")
RANGE = ("from", "to", "count", "spacing")
COUNT = 7  # values of a range that does not say how many
WHOLE = ("steps", "seed", "n")  # axes on which only whole numbers lie


@dataclass(frozen=True)
class Axis:
    """The values of an axis, by the names under which they stand in a table.

    Args:
        name: of the axis.
        values: (name, value) of each.
    """

    name: str
    values: tuple[tuple[Any, Any], ...]

    def named(self, label: Any) -> Any:
        """Return the value of a name; what is no name stands for itself."""
        return next((value for name, value in self.values if name == label), label)


@dataclass(frozen=True)
class Range(Axis):
    """Numbers between two ends.

    Args:
        low, high: the ends.
        spacing: "linear" or "log".
    """

    low: float = 0.0
    high: float = 0.0
    spacing: str = "linear"

    @property
    def whole(self) -> bool:
        """Whether only whole numbers lie on it."""
        return self.name in WHOLE


def read_axis(name: str, given: Any) -> Axis:
    """Make an axis of what a plan says: a list, names for values, or ``{from, to, count, spacing}``.

    Raises:
        BadValue: it is none of these, or has no value.
    """
    if isinstance(given, Mapping):
        if "from" in given or "to" in given:
            return _range(name, given)
        pairs = [(str(label), value) for label, value in given.items()]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        pairs = [(value if _plain(value) else _described(value), value) for value in given]
    else:
        raise BadValue(f"axis {name} is a list of values, names for values, or {{from, to, count}}, not {given!r}")
    if not pairs:
        raise BadValue(f"axis {name} has no values; give some, or leave it out")
    return Axis(name, tuple(pairs))


def filled(template: Any, values: Mapping[str, Any], used: set[str], within: tuple[str, ...] = ()) -> Any:
    """Put values in the place of the ``{names}`` in a text, in the values too; a text that is one name becomes its value.

    Args:
        template: a text, or a list with texts.
        values: by name.
        used: gets the names that stood there.
        within: the names in whose values this stands.

    Raises:
        BadValue: a name has no value, or stands in its own.
    """
    if isinstance(template, list | tuple):
        return [filled(part, values, used, within) for part in template]
    if not isinstance(template, str):
        return template

    def value(name: str) -> Any:
        if name in within:
            raise BadValue(f"{{{name}}} stands in its own value; write something else there")
        if name not in values:
            known = f"; the axes are: {', '.join(values)}" if values else "; there are no axes"
            raise BadValue(f"{{{name}}} is no axis{nearest(name, values)}{known}")
        used.add(name)
        return filled(values[name], values, used, (*within, name))

    return _replaced(template, value)


def as_number(value: float, digits: int = 6) -> float | int:
    """Return a number as people write it: a few digits, whole where it is."""
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short


def _replaced(text: str, value: Callable[[str], Any]) -> Any:
    if alone := PLACEHOLDER.fullmatch(text):
        return value(alone[1])
    return PLACEHOLDER.sub(lambda found: _described(value(found[1])), text)


def _range(name: str, given: Mapping[str, Any]) -> Range:
    if unknown := [key for key in given if key not in RANGE]:
        raise BadValue(f"axis {name} has no {unknown[0]!r}; a range has {', '.join(RANGE)}")
    low: Any = given.get("from")
    high: Any = given.get("to")
    count, spacing = given.get("count", COUNT), given.get("spacing", "linear")
    if not (is_number(low) and is_number(high) and low < high):
        raise BadValue(f"axis {name} goes from one number to a larger one, not from {low!r} to {high!r}")
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise BadValue(f"axis {name} has a count of 2 values or more, not {count!r}")
    if spacing not in SPACINGS:
        raise BadValue(f"the spacing of axis {name} is linear or log, not {spacing!r}")
    if spacing == "log" and low <= 0:
        raise BadValue(f"axis {name} with spacing log begins above 0, not at {low}; use spacing linear")
    parts = [step / (count - 1) for step in range(count)]
    between = [low * (high / low) ** part if spacing == "log" else low + (high - low) * part for part in parts]
    numbers = dict.fromkeys(as_number(round(value) if name in WHOLE else value) for value in between)
    return Range(name, tuple((number, number) for number in numbers), low, high, spacing)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _described(value: Any) -> str:
    """Return a value as it stands in a text."""
    if isinstance(value, list | tuple):
        return ", ".join(_described(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "none" if value is None else str(value)
