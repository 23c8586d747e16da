"""What people want to know of a rule, a stage, a weight or an interval, gathered from its class and docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import guidon.guidance  # noqa: F401  registers everything told of here
from guidon import registry
from guidon.errors import UnknownName
from guidon.guidance.citations import titles
from guidon.guidance.contrast import Contrast
from guidon.guidance.rule import About, Rule
from guidon.guidance.weak import Internal

KINDS = {
    "rule": "alone, or first in a chain; some also add their pull after a |",
    "stage": "after a |, as in cfg(4) | apg",
    "weight": "in place of a number, as in cfg(linear(1, 4))",
    "when": "where to guide at all, as in cfg(4, when=interval(0.3, 3))",
}
_TEMPLATES = {"rule": "{}", "stage": "cfg(4) | {}", "weight": "cfg({})", "when": "cfg(4, when={})"}

# values for the examples: of parameters without a default, and, under "name.parameter", of one method
_VALUES: dict[str, Any] = {
    "weight": 3.0,
    "weights": (3.0, 2.0),
    "first": 1.0,
    "last": 4.0,
    "least": 2.0,
    "exponent": 2.0,
    "peak": 4.0,
    "low": 0.3,
    "interval.high": 3.0,
    "autoguidance.weight": 2.0,
    "cfgpp.weight": 0.6,
    "dynamic-scale.weight": 7.5,
    "internal.weight": 1.5,
    "rectified-cfgpp.weight": 5.5,
    "tsg.weight": 2.5,
    "two-scale.weight": 7.5,
}


@dataclass(frozen=True)
class Parameter:
    """An argument of a text form.

    Args:
        name: how it is written.
        default: in text form; None where a value must be given.
        about: what the docstring says of it.
        here: its value in the text form that was asked about; None where a name was, or where it is the default.
    """

    name: str
    default: str | None
    about: str
    here: str | None = None

    def __str__(self) -> str:
        return self.name if self.default is None else f"{self.name}={self.default}"


@dataclass(frozen=True)
class Card:
    """All about one member of the registry.

    Args:
        kind: "rule", "stage", "weight" or "when".
        name: as registered.
        text: the text form that was asked about, or the name with its arguments.
        summary: the docstring's first line.
        details: what else the docstring says, a paragraph each.
        formula, cost, ranges, notes: see `About`.
        adds: a rule that may also stand after a |.
        only_with: the solvers that can follow a rule; empty for any.
        why_only: what the others cannot do.
        parameters: in the order in which they can be written without names.
        source: the docstring's line.
        citations: titles by key of references.bib.
        example: what to write after ``guidon sample --rule``; empty where a text form was asked about.
        needs: further options that the example needs.
    """

    kind: str
    name: str
    text: str
    summary: str
    details: tuple[str, ...]
    formula: str
    cost: str
    adds: bool
    only_with: tuple[str, ...]
    why_only: str
    parameters: tuple[Parameter, ...]
    ranges: tuple[str, ...]
    notes: str
    source: str
    citations: dict[str, str]
    example: str
    needs: str


def all_cards() -> list[Card]:
    """Return a card for every rule, stage, weight and interval, kind by kind."""
    return [_card(kind, name, member) for kind in KINDS for name, member in registry.members(kind)]


def cards_of(text: str) -> list[Card]:
    """Return a card for the name, or for every part of the text form, from left to right and from outside in.

    Raises:
        UnknownName: the name, or one in the text form, does not exist.
        BadValue: the text form cannot be read.
    """
    known = {(kind, name): member for kind in KINDS for name, member in registry.members(kind)}
    text = text.strip()
    named = [(kind, name, member) for (kind, name), member in known.items() if name == text]
    if named:
        return [_card(*found) for found in named]
    first = re.split(r"[\s(|]", text, maxsplit=1)[0]
    kinds = [kind for kind, name in known if name == first]
    if not kinds:
        raise UnknownName("rule, stage or weight", first, {name for _, name in known})
    kind_and_name = {member: key for key, member in known.items()}
    value = registry.parse("rule" if "|" in text else kinds[0], text)
    return [
        _card(*kind_and_name[type(part)], type(part), part) for part in _parts(value) if type(part) in kind_and_name
    ]


def _parts(value: Any) -> Iterator[Any]:
    """Yield an object and all objects inside of it."""
    if isinstance(value, tuple):
        for item in value:
            yield from _parts(item)
    elif dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name))


def _card(kind: str, name: str, member: Any, value: Any = None) -> Card:
    """Return the card of a member; of one object of it where there is one."""
    about: About = member.about
    summary, details, arguments, source = read_docstring(inspect.getdoc(member) or "")
    parameters = tuple(_parameters(member, arguments, value))
    one = _example(name, member) if value is None else value
    return Card(
        kind=kind,
        name=name,
        text=_signature(name, parameters) if value is None else registry.to_text(one),
        summary=summary,
        details=details,
        formula=about.formula,
        cost=about.cost if kind == "rule" or about.cost != About("").cost else "nothing more",
        adds=issubclass(member, Contrast) and member.adds,
        only_with=tuple(getattr(one, "only_with", ())),
        why_only=getattr(one, "why_only", ""),
        parameters=parameters,
        ranges=about.ranges,
        notes=about.notes,
        source=source,
        citations=titles(about.sources),
        example=_TEMPLATES[kind].format(registry.to_text(one)) if value is None else "",
        needs=_needs(one) if value is None and isinstance(one, Rule) else "",
    )


def _needs(rule: Rule) -> str:
    """Return the options of ``guidon sample`` that a rule needs."""
    uses = rule.uses()
    options = [f" --{name} CLASS" for name in ("negative", "also", "partial") if name in uses]
    options += [" --weak self:0.1"] if "weak" in uses else []
    options += [" --solver rectified"] if rule.only_with == ("rectified",) else []
    options += [" --classifier runs/judge"] if "classifier" in uses else []
    options += ["  (a model trained with inner_head: true)"] if isinstance(rule, Internal) else []
    return "".join(options)


def _signature(name: str, parameters: tuple[Parameter, ...]) -> str:
    return f"{name}({', '.join(map(str, parameters))})" if parameters else name


def _parameters(member: Any, arguments: dict[str, str], value: Any) -> Iterator[Parameter]:
    for field in dataclasses.fields(member):
        if field.init:
            default = None if field.default is dataclasses.MISSING else registry.to_text(field.default)
            here = None if value is None else registry.to_text(getattr(value, field.name))
            yield Parameter(field.name, default, arguments.get(field.name, ""), None if here == default else here)


def _example(name: str, member: Any) -> Any:
    """Return an object with a value for every parameter that must have one."""
    given = {}
    for field in dataclasses.fields(member):
        if (own := f"{name}.{field.name}") in _VALUES:
            given[field.name] = _VALUES[own]
        elif field.init and field.default is dataclasses.MISSING:
            given[field.name] = _VALUES[field.name]
    return member(**given)


def read_docstring(text: str) -> tuple[str, tuple[str, ...], dict[str, str], str]:
    """Return a docstring's first line, its other paragraphs, its arguments, and its source."""
    summary, *paragraphs = text.split("\n\n")
    details, arguments, source = [], {}, ""
    for paragraph in paragraphs:
        head, _, rest = paragraph.partition(":")
        if head == "Args":
            arguments = _arguments(inspect.cleandoc(rest))
        elif head == "Source":
            source = _flowing(rest)
        elif head not in ("Raises", "Attributes"):
            details.append(_flowing(paragraph))
    return _flowing(summary), tuple(details), arguments, source


def _arguments(section: str) -> dict[str, str]:
    """Return what an Args section says of each argument; ``a, b: text`` speaks of both."""
    found = {}
    for item in re.split(r"\n(?=\S)", section):  # further lines of an item are indented
        names, _, about = item.partition(":")
        found.update({name.strip(): _flowing(about) for name in names.split(",")})
    return found


def _flowing(text: str) -> str:
    return " ".join(text.split())
