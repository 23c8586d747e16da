"""One list of everything that can be named, and one text form for all of it.

Rules, weights, solvers, grids, processes, outputs and networks register here under a kind and a name. The command line, the
recipes, the PNG metadata and the law tests all walk this list. Registered frozen dataclasses have a text form that
parses to the object and prints back from it: ``cfg(4, when=interval(0.3, 3))``, ``ddim(eta=0.5)``.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from guidon.errors import BadValue, UnknownName, nearest

T = TypeVar("T")

_members: dict[str, dict[str, Any]] = {}
_name_of: dict[Any, str] = {}


def register(kind: str, name: str) -> Callable[[T], T]:
    """Register the decorated class or function under ``kind`` and ``name`` (lower case, words joined by hyphens)."""

    def add(member: T) -> T:
        if name in _members.setdefault(kind, {}):
            raise BadValue(f"two members of kind {kind!r} are called {name!r}; give one of them another name")
        _members[kind][name] = member
        _name_of[member] = name
        return member

    return add


def kinds() -> list[str]:
    """Return every kind that has members."""
    return sorted(_members)


def names(kind: str) -> list[str]:
    """Return the names of all members of a kind."""
    return sorted(_members.get(kind, {}))


def members(kind: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, member) for every member of a kind."""
    yield from sorted(_members.get(kind, {}).items())


def lookup(kind: str, name: str) -> Any:
    """Return the member of a kind by name; raises `UnknownName` with the nearest name that exists."""
    try:
        return _members.get(kind, {})[name]
    except KeyError:
        raise UnknownName(kind, name, _members.get(kind, {})) from None


def parse(kind: str, text: str) -> Any:
    """Turn a text form such as ``cfg(4, when=interval(0.3, 3))`` into the object it stands for.

    Args:
        kind: what the outermost name must be, for instance "rule".
        text: a name, or a name with arguments. Arguments are numbers, strings, lists, or further text forms;
            ``a | b`` chains where the objects know how to.

    Raises:
        UnknownName: a name does not exist.
        BadValue: the text cannot be read, or an argument does not fit.
    """
    try:
        tree = ast.parse(_HYPHENATED.sub(lambda m: m.group().replace("-", "_"), text.strip()), mode="eval").body
    except SyntaxError as error:
        raise BadValue(
            f"cannot read {text!r} as a {kind}: write a name with arguments, for instance {_example(kind)}"
        ) from error
    return _build(tree, kind, text)


def to_text(value: Any) -> str:
    """Return the text form of a registered object; the inverse of `parse`. Fields at their default are left out."""
    if hasattr(value, "to_text"):  # chains print themselves
        return str(value.to_text())
    if isinstance(value, tuple | list):
        return "[" + ", ".join(to_text(item) for item in value) + "]"
    if type(value) not in _name_of:
        return repr(value)
    arguments, positional = [], True
    for field in dataclasses.fields(value):
        current = getattr(value, field.name)
        if field.default is not dataclasses.MISSING and current == field.default:
            positional = False
            continue
        arguments.append(to_text(current) if positional else f"{field.name}={to_text(current)}")
    name = _name_of[type(value)]
    return f"{name}({', '.join(arguments)})" if arguments else name


_HYPHENATED = re.compile(r"(?<![\w'\"])[A-Za-z_]\w*(?:-\w+)+")


def _example(kind: str) -> str:
    known = names(kind)
    return repr(known[0] if known else "name(1, key=2)")


def _build(node: ast.expr, kind: str | None, text: str) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            if kind is not None:
                raise BadValue(f"{text!r} is not a {kind}: write a name, for instance {_example(kind)}")
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if kind is None:
            return -number
        case ast.Tuple(elts=items) | ast.List(elts=items) if kind is None:
            return tuple(_build(item, None, text) for item in items)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _build(left, kind, text) | _build(right, kind, text)
        case ast.Name(id=identifier):
            return _call(kind, identifier, (), {}, text)
        case ast.Call(func=ast.Name(id=identifier), args=args, keywords=keywords):
            positional = tuple(_build(arg, None, text) for arg in args)
            named = {k.arg: _build(k.value, None, text) for k in keywords if k.arg is not None}
            return _call(kind, identifier, positional, named, text)
    raise BadValue(f"cannot read {ast.unparse(node)!r} in {text!r}: use names, numbers, strings and lists only")


def _call(kind: str | None, identifier: str, positional: tuple[Any, ...], named: dict[str, Any], text: str) -> Any:
    if kind is None and identifier in ("inf", "true", "false", "none"):
        return {"inf": float("inf"), "true": True, "false": False, "none": None}[identifier]
    name = identifier.replace("_", "-")
    searched = [kind] if kind is not None else kinds()
    found = [_members[k][name] for k in searched if name in _members.get(k, {})]
    if not found:
        known = {n for k in searched for n in _members.get(k, {})}
        raise UnknownName(kind or "thing", name, known)
    member: Any = found[0]
    if not (isinstance(member, type) and dataclasses.is_dataclass(member)):
        raise BadValue(f"{name!r} has no text form; it can only be named")
    fields = [field.name for field in dataclasses.fields(member) if field.init]
    for key in named:
        if key not in fields:
            raise BadValue(f"{name} takes no {key!r}{nearest(key, fields)}; it takes: {', '.join(fields) or 'nothing'}")
    try:
        return member(*positional, **named)
    except TypeError as error:
        raise BadValue(f"cannot make {text!r}: {name} takes {', '.join(fields) or 'no arguments'} ({error})") from error
