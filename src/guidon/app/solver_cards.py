"""What people want to know of a solver, gathered from its class, its docstring, and the rules that ask for certain solvers."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from guidon import registry
from guidon.app.list_command import arguments
from guidon.app.rule_cards import read_docstring
from guidon.guidance import Rule
from guidon.solvers import Solver

LIMITED = (
    "cfgpp(0.6)",
    "rectified-cfgpp(3)",
    "classifier(2, form='mean')",
)  # one of each rule that not every solver follows


@dataclass(frozen=True)
class SolverCard:
    """All about one solver, with its default settings.

    Args:
        name: as registered.
        text: the name with its arguments.
        summary: the docstring's first line.
        details: what else the docstring says, a paragraph each.
        arguments: what the docstring says of each.
        source: the docstring's line.
        order, evaluations, stochastic: see `Solver`.
        refuses: why, by the rules that it cannot follow.
    """

    name: str
    text: str
    summary: str
    details: tuple[str, ...]
    arguments: dict[str, str]
    source: str
    order: int
    evaluations: int
    stochastic: bool
    refuses: dict[str, str]


def solver_cards() -> list[SolverCard]:
    """Return a card for every solver, by name."""
    return [_card(name, member) for name, member in registry.members("solver")]


def solver_card(name: str) -> SolverCard:
    """Return the card of a solver; raises `UnknownName`."""
    name = name.partition("(")[0].strip()  # of a text form
    return _card(name, registry.lookup("solver", name))


def _card(name: str, member: type[Solver]) -> SolverCard:
    solver, said = member(), ", ".join(arguments(member))
    summary, details, about, source = read_docstring(inspect.getdoc(member) or "")
    return SolverCard(
        name=name,
        text=f"{name}({said})" if said else name,
        summary=summary.partition(" Source:")[0],
        details=details,
        arguments=about,
        source=source,
        order=solver.order,
        evaluations=solver.evaluations,
        stochastic=solver.stochastic,
        refuses=_refuses(name, solver),
    )


def _refuses(name: str, solver: Solver) -> dict[str, str]:
    limited: dict[str, Rule] = {text: registry.parse("rule", text) for text in LIMITED}
    if solver.particular:
        followed = " and ".join(_named(text) for text, rule in limited.items() if name in rule.only_with)
        return {f"every rule but {followed}": "it steps by what no other rule tells"}
    found = {_named(text): rule.why_only for text, rule in limited.items() if name not in rule.only_with}
    if not solver.asks_at_start:
        why = "it follows the path from step to step, and this solver asks elsewhere"
        found |= {rule: why for rule, member in registry.members("rule") if member.tracks}
    return found


def _named(text: str) -> str:
    """Return a text form without the weight."""
    name, _, rest = text.partition("(")
    return f"{name}(..., {rest.partition(', ')[2]}" if ", " in rest else name
