"""One list of everything that can be named, and one text form for all of it.

Rules, weights, solvers, grids, processes, outputs and networks register here under a kind and a name. The command line, the
recipes, the PNG metadata and the law tests all walk this list. Registered frozen dataclasses have a text form that
parses to the object and prints back from it: ``cfg(4, when=interval(0.3, 3))``, ``ddim(eta=0.5)``.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import re
import types
from collections.abc import Callable, Iterator
from keyword import iskeyword
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

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
        tree = ast.parse(_WORD.sub(_as_identifier, text.strip()), mode="eval").body
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
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else repr(value)
    arguments, positional = [], True
    for field in dataclasses.fields(value):
        current = getattr(value, field.name)
        if field.default is not dataclasses.MISSING and current == field.default:
            positional = False
            continue
        number = isinstance(current, int | float) and not isinstance(current, bool)
        positional &= number or field.default is dataclasses.MISSING  # what is no number reads better with its name
        arguments.append(to_text(current) if positional else f"{field.name}={to_text(current)}")
    name = _name_of[type(value)]
    return f"{name}({', '.join(arguments)})" if arguments else name


# quoted strings come first so that hyphens inside of them stay
_WORD = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?<![\w.])[A-Za-z_]\w*(?:-\w+)*""")


def _as_identifier(found: re.Match[str]) -> str:
    """Return a word as Python can read it: hyphens as underscores, and one more after a word of its own, such as "is"."""
    word = found.group()
    if word[0] in "'\"" or word in ("True", "False", "None"):
        return word
    return f"{word}_" if iskeyword(word) else word.replace("-", "_")


def _name(identifier: str) -> str:
    return identifier.removesuffix("_").replace("_", "-")


def _example(kind: str) -> str:
    known = names(kind)
    return repr("cfg(3)" if kind == "rule" else known[0] if known else "name(1, key=2)")


def _build(node: ast.expr, kind: str | None, text: str, hint: Any = Any) -> Any:
    """Build what a node says: a member of ``kind``, or, inside of a call, anything that fits the field's type."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            if kind is not None:
                raise BadValue(f"{text!r} is not a {kind}: write a name, for instance {_example(kind)}")
            return node.value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand) if kind is None:
            number = _build(operand, None, text, float)
            if isinstance(number, int | float):
                return -number if isinstance(sign, ast.USub) else number
        case ast.Tuple(elts=items) | ast.List(elts=items) if kind is None:
            inside = [get_args(part)[0] for part in _alternatives(hint) if get_origin(part) is tuple]
            return tuple(_build(item, None, text, Union[tuple(inside)] if inside else Any) for item in items)  # noqa: UP007
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            first, second = _build(left, kind, text, hint), _build_link(right, kind, text, hint)
            try:
                return first | second
            except TypeError:
                raise BadValue(
                    f"cannot read {text!r}: {to_text(first)} does not chain with |; write one of them"
                ) from None
        case ast.Name(id=word) if kind is None and word in _WORDS:
            return _WORDS[word]
        case ast.Name(id=identifier):
            return _make(_find(kind, _name(identifier), hint), [], [], text)
        case ast.Call(func=ast.Name(id=identifier), args=args, keywords=keywords):
            return _make(_find(kind, _name(identifier), hint), args, keywords, text)
    raise BadValue(
        f"cannot read {ast.unparse(node)!r} in {text!r}: use names, numbers, words in quotes and lists, and | to chain"
    )


_WORDS = {"inf": math.inf, "nan": math.nan, "true": True, "false": False, "none": None}

# what else may stand right of a | in a text of a kind
_LINKS = {"rule": "stage"}


def _build_link(node: ast.expr, kind: str | None, text: str, hint: Any) -> Any:
    """Build what stands right of a |: a member of the kind, or of the kind that may follow it."""
    follows = _LINKS.get(kind or "")
    name = node.func if isinstance(node, ast.Call) else node
    if follows and isinstance(name, ast.Name):
        spelled = _name(name.id)
        if spelled not in _members.get(str(kind), {}) and spelled not in _members.get(follows, {}):
            raise UnknownName(f"{kind} or {follows}", spelled, {*names(str(kind)), *names(follows)})
        if spelled in _members.get(follows, {}):
            return _build(node, follows, text, hint)
    return _build(node, kind, text, hint)


def _find(kind: str | None, name: str, hint: Any) -> Any:
    """Return the member that a name means here; two kinds may share a name where the field's type tells them apart."""
    follows = _LINKS.get(kind or "")
    if follows and name in _members.get(follows, {}):
        raise BadValue(f"{name} is a {follows}: it stands right of a {kind}, for instance 'cfg(3) | {name}'")
    if kind is not None:
        return lookup(kind, name)
    known = {n: member for k in kinds() for n, member in members(k) if _is(member, hint)}
    if name not in known and _fits("", hint):
        raise BadValue(f"a word stands in quotes: '{name}'")
    if not known:
        raise BadValue(f"{name} stands where {_described(hint)} is expected; write that")
    if name not in known:
        kinds_here = {k for k in kinds() for _, member in members(k) if _is(member, hint)}
        raise UnknownName(kinds_here.pop() if len(kinds_here) == 1 else "argument", name, known)
    return known[name]


def _make(member: Any, args: list[ast.expr], keywords: list[ast.keyword], text: str) -> Any:
    """Call a member's class with arguments that fit its fields."""
    name = _name_of[member]
    try:
        declared = [field for field in dataclasses.fields(member) if field.init]
    except TypeError:
        raise BadValue(f"{name!r} has no text form; it can only be named") from None
    fields, hints = [field.name for field in declared], get_type_hints(member)
    for keyword in keywords:
        if keyword.arg not in fields:
            raise BadValue(
                f"{name} takes no {keyword.arg!r}{nearest(str(keyword.arg), fields)}; it takes: {', '.join(fields) or 'nothing'}"
            )
    if len(args) > len(fields):
        raise BadValue(f"cannot make {text!r}: {name} takes {', '.join(fields) or 'no arguments'}")
    nodes = [*zip(fields, args, strict=False), *((str(keyword.arg), keyword.value) for keyword in keywords)]
    given: dict[str, Any] = {}
    for field, node in nodes:
        if field in given:
            raise BadValue(f"{name} is given {field} twice in {text!r}; leave one of them out")
        given[field] = _build(node, None, text, hints[field])
        if not _fits(given[field], hints[field]):
            raise BadValue(f"{name} takes {field} as {_described(hints[field])}, not {to_text(given[field])}")
    missing = [
        field.name
        for field in declared
        if field.name not in given and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise BadValue(f"{name} needs {' and '.join(missing)}; it takes: {', '.join(fields)}")
    return member(**given)


def _described(hint: Any) -> str:
    """Return what fits a field, in words."""
    words = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "a word in quotes",
        type(None): "none",
    }
    found = []
    for part in _alternatives(hint):
        if get_origin(part) is tuple:
            found.append(f"a list, each {_described(get_args(part)[0])}")
        elif part in words:
            found.append(words[part])
        else:
            found.append(" or ".join(n for k in kinds() for n, member in members(k) if _is(member, part)))
    return ", or ".join(dict.fromkeys(found))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, types.UnionType) or get_origin(hint) is Union else (hint,)


def _is(member: Any, hint: Any) -> bool:
    """Return whether objects of a member are what a field takes."""
    return isinstance(member, type) and any(
        part is Any or (isinstance(part, type) and issubclass(member, part)) for part in _alternatives(hint)
    )


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a field's type; a whole number is a number too."""
    for part in _alternatives(hint):
        origin, inside = get_origin(part), get_args(part)
        if origin is tuple:
            fits = isinstance(value, tuple) and all(_fits(item, inside[0]) for item in value)
        elif part in (int, float):
            fits = isinstance(value, int if part is int else int | float) and not isinstance(value, bool)
        else:
            fits = part is Any or isinstance(value, origin or part)
        if fits:
            return True
    return False
