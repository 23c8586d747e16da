"""Small wrong changes to formulas, made from the syntax tree: a flipped sign, another factor, the other space.

Only what computes is changed: not texts, checks of arguments, annotations or defaults. `mutants.py` runs the tests against each.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NO_FORMULA = ("__post_init__", "__or__", "__str__", "to_text", "checked_weight")

SIGNS: dict[type, type] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
FACTORS: dict[type, type] = {ast.Mult: ast.Div, ast.Div: ast.Mult}
COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}
VIEWS = {"x0": "eps", "eps": "x0", "v": "x0", "velocity": "x0", "score": "eps"}
SPACES = {
    "x0": ("eps", "velocity"),
    "eps": ("x0", "velocity"),
    "velocity": ("x0", "eps"),
    "v": ("x0",),
    "score": ("eps",),
}
SAME = ("x", "level", "shape", "ndim", "dtype", "device")  # at both ends
ENDS = ("given", "away", "null", "guided", "base")  # local names of beliefs; each is also tried where "given" stands


def _both_ways(*pairs: tuple[str, str]) -> dict[str, str]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


EXTREMES = _both_ways(
    ("min", "max"), ("minimum", "maximum"), ("amin", "amax"), ("clamp_min", "clamp_max"), ("argmin", "argmax")
)
METHODS = _both_ways(("add", "sub"), ("add_", "sub_"), ("mul", "div"), ("mul_", "div_"), ("addcmul", "addcdiv"))


@dataclass(frozen=True)
class Mutant:
    """One change to one file.

    Args:
        file: the file, from the package's folder.
        function: where in it, with the class.
        line: of the change, from 1.
        kind: sign, factor, number, space, end, comparison, extreme or operands.
        before, after: the expression that changed; ``[2]`` behind it is its second occurrence in the function.
        source: the whole file, changed.
    """

    file: str
    function: str
    line: int
    kind: str
    before: str
    after: str
    source: str = field(repr=False)

    @property
    def owner(self) -> str:
        """The class, or the function that stands alone."""
        return self.function.partition(".")[0]

    @property
    def name(self) -> str:
        """Identity: file, function, before and after."""
        return f"{self.file} {self.function}: {self.before} -> {self.after}"


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Return every mutant of a file, in the order of the code; no two are the same code."""
    tree = ast.parse(source)
    seen, times, found = {ast.dump(tree)}, Counter[tuple[str, str, str]](), []
    for name, function in _functions(tree):
        for node, kind, other in _changed(function, _names(tree)):
            before, after = ast.unparse(node), ast.unparse(other)
            text = _replaced(source, node, after if isinstance(node, ast.stmt) else f"({after})")
            if (dump := ast.dump(ast.parse(text))) in seen:
                continue
            seen.add(dump)
            times[name, before, after] += 1
            count = times[name, before, after]
            mark = f" [{count}]" if count > 1 else ""
            found.append(Mutant(file, name, node.lineno, kind, before + mark, after, text))
    return found


def essence(source: str) -> str:
    """Return what of a file computes: it stays the same where only what people read of it changes."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_told(part)]
    return ast.dump(tree)


def _is_told(node: ast.stmt) -> bool:
    """Return whether a statement is a docstring, or what a class says about itself."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.AnnAssign(target=ast.Name(id="about")):
            return True
    return False


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for top in tree.body:
        for node in top.body if isinstance(top, ast.ClassDef) else (top,):
            if isinstance(node, ast.FunctionDef) and node.name not in NO_FORMULA:
                yield f"{top.name}.{node.name}" if isinstance(top, ast.ClassDef) else node.name, node


def _replaced(source: str, node: Any, text: str) -> str:
    """Return the source with one node replaced; positions of nodes count bytes."""
    lines = source.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    whole = b"".join(lines)
    return (whole[:start] + text.encode() + whole[end:]).decode()


def _names(tree: ast.AST) -> set[str]:
    """Return what is bound somewhere below: imported, assigned, or a parameter."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.alias(name=name) | ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return found


def _changed(function: ast.FunctionDef, known: set[str]) -> Iterator[tuple[Any, str, Any]]:
    """Yield (node, kind of change, the node that takes its place)."""
    local = _names(function) | {name for name in ("GIVEN", "NULL") if name in known}
    for node, parent in _computing(function, None):
        for kind, other in (*_arithmetic(node, parent), *_choices(node), *_beliefs(node, parent, local)):
            yield node, kind, ast.fix_missing_locations(other)


def _computing(node: ast.AST, parent: ast.AST | None) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """Yield the nodes that compute, each with its parent, in the order of the code."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    parts: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.FunctionDef):
        parts = list(node.body)
    elif isinstance(node, ast.AnnAssign):
        parts = [node.value] if node.value else []
    elif isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
        parts = [*node.orelse]  # a check of arguments
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "column":
        parts = parts[:2]  # of the last argument it looks at the shape only
    if not isinstance(node, ast.FunctionDef):
        yield node, parent
    for part in parts:
        yield from _computing(part, node)


def _with(node: Any, **fields: Any) -> Any:
    other = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _sequence(*nodes: ast.expr) -> bool:
    return any(isinstance(node, ast.List | ast.Tuple | ast.ListComp | ast.JoinedStr) for node in nodes)


def _arithmetic(node: ast.AST, parent: ast.AST | None) -> Iterator[tuple[str, ast.AST]]:
    """Yield changed signs, factors and numbers."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if not _sequence(left, right):
            if type(op) in SIGNS:
                yield "sign", _with(node, op=SIGNS[type(op)]())
            if type(op) in FACTORS:
                yield "factor", _with(node, op=FACTORS[type(op)]())
                within = isinstance(parent, ast.BinOp) and (type(parent.op) in FACTORS or parent.right is node)
                if not within and not isinstance(parent, ast.UnaryOp):  # there a sign outside says the same
                    yield "sign", ast.UnaryOp(ast.USub(), copy.deepcopy(node))
            if type(op) in FACTORS or isinstance(op, ast.Pow):
                yield "factor", copy.deepcopy(left)
        case ast.AugAssign(op=op, value=value) if not _sequence(value):
            if type(op) in SIGNS | FACTORS:
                yield "sign" if type(op) in SIGNS else "factor", _with(node, op=(SIGNS | FACTORS)[type(op)]())
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield "sign", copy.deepcopy(operand)
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if isinstance(parent, ast.UnaryOp) and isinstance(number, int):
                return  # the last of something; its sign is changed already
            yield "number", ast.Constant(number + 1)


def _choices(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield changed comparisons, extremes and operands of functions."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for flipped in COMPARISONS.get(type(op), ()):
                    yield "comparison", _with(node, ops=[*ops[:i], flipped(), *ops[i + 1 :]])
        case ast.Call(func=ast.Name(id=name)) if name in EXTREMES:
            yield "extreme", _with(node, func=ast.Name(EXTREMES[name], ast.Load()))
        case ast.Call(func=ast.Attribute(attr=name) as func, args=args, keywords=keywords):
            if name in EXTREMES:
                yield "extreme", _with(node, func=_with(func, attr=EXTREMES[name]))
            if name in METHODS:
                yield (
                    "sign" if "add" in (name[:3], METHODS[name][:3]) else "factor",
                    _with(node, func=_with(func, attr=METHODS[name])),
                )
            if name == "lerp" and len(args) == 3:
                yield "operands", _with(node, args=[args[1], args[0], args[2]])
            elif name in ("lerp", "lerp_"):
                yield "operands", _with(node, func=_with(func, value=args[0]), args=[func.value, *args[1:]])
            for i, keyword in enumerate(keywords):
                if keyword.arg in ("min", "max"):
                    other = _with(keyword, arg=EXTREMES[keyword.arg])
                    yield "extreme", _with(node, keywords=[*keywords[:i], other, *keywords[i + 1 :]])


def _beliefs(node: ast.AST, parent: ast.AST | None, local: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """Yield other spaces, and the other end of a difference."""
    if isinstance(parent, ast.Attribute) and parent.attr in SAME:
        return
    match node:
        case ast.Attribute(value=ast.Call()):
            return  # torch.finfo(...).eps is no belief
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in VIEWS:
            yield "space", _with(node, attr=VIEWS[name])
        case ast.Attribute(value=ast.Name(id=whose), attr="given" | "away" as name) if whose != "self":
            yield "end", _with(node, attr="away" if name == "given" else "given")
        case ast.Constant(value=str() as space) if space in SPACES:
            for other in SPACES[space]:
                yield "space", ast.Constant(other)
        case ast.Name(id="GIVEN" | "NULL" as name, ctx=ast.Load()) if {"GIVEN", "NULL"} <= local:
            yield "end", _with(node, id="NULL" if name == "GIVEN" else "GIVEN")
        case ast.Name(id=name, ctx=ast.Load()) if name in ENDS and "given" in local:
            for other in ENDS[1:] if name == "given" else ENDS[:1]:
                if other in local:
                    yield "end", _with(node, id=other)
