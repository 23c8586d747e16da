"""``guidon rules``: the guidance methods, what each does, costs and needs, and whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console

    from guidon.app.rule_cards import Card

EXAMPLES = """Examples:

  guidon rules                     all of them, a line each
  guidon rules apg                 formula, parameters, sensible values, paper
  guidon rules "cfg(4) | apg"      each part of a rule
  guidon rules --json              for other programs"""

WIDEST = 100  # columns; longer lines are hard to read


def rules(
    name: str | None = None,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False,
) -> None:
    """Show the guidance rules, and the stages, weights and intervals that go with them.

    Args:
        name: one of them, or a whole rule such as "cfg(4) | apg"; left out: all, a line each.
        as_json: print all of it as JSON.
    """
    from guidon.app.rule_cards import all_cards, cards_of

    cards = all_cards() if name is None else cards_of(name)
    if as_json:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(card) for card in cards], indent=2, ensure_ascii=False))
        return
    from guidon.app.console import Output

    console = Output()
    console.width = min(console.width, WIDEST)
    if name is None:
        _show_all(console, cards)
        return
    for i, card in enumerate(cards):
        if i:
            console.print()
        _show(console, card)


def _show_all(console: Console, cards: list[Card]) -> None:
    """Print the groups: each method with its arguments and cost, and a line about it."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from guidon.app.rule_cards import KINDS

    for kind, place in KINDS.items():
        console.print(Text.assemble((f"{kind}s" if kind != "when" else "intervals", "bold underline"), f"  {place}"))
        for card in (card for card in cards if card.kind == kind):
            line = Table.grid(expand=True)  # long arguments and costs fold below themselves
            line.add_column(style="bold", no_wrap=True)
            line.add_column(overflow="fold", ratio=1)
            line.add_column(justify="right", style="dim", max_width=28)
            cost = card.cost.partition(";")[0].partition(":")[0] if card.cost != "nothing more" else ""
            line.add_row(f"  {card.name}", Text(card.text.removeprefix(card.name)), Padding(cost, (0, 0, 0, 2)))
            console.print(line)
            console.print(Padding(Text(plain(card.summary)), (0, 0, 0, 6), expand=False))
        console.print()
    console.print(
        "On the right: network evaluations a step. More about one: guidon rules NAME; its paper: guidon cite NAME"
    )


def _show(console: Console, card: Card) -> None:
    """Print everything about one method."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble((card.text, "bold underline"), f"  {'interval' if card.kind == 'when' else card.kind}"))
    for paragraph in (card.summary, *card.details):
        console.print(Text(plain(paragraph)))
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(style="bold", max_width=26)
    table.add_column(overflow="fold")
    table.add_row("formula", Text(card.formula))
    table.add_row("cost", Text(plain(cost_text(card))))
    if card.adds:
        table.add_row("place", "alone, first in a chain, or after a |, where it adds its pull")
    if card.only_with:
        table.add_row("solvers", f"only {', '.join(card.only_with)}: {card.why_only}")
    for i, parameter in enumerate(card.parameters):
        about = Text(plain(parameter.about))
        if parameter.here is not None:
            about = Text.assemble("here ", (parameter.here, "bold"), ": ", about)
        if i == 0:
            table.add_row("parameters", "")
        table.add_row(Text(f"  {parameter}"), about)
    for label, lines in (
        ("sensible", card.ranges),
        ("notes", (card.notes,)),
        ("source", (card.source,)),
        ("papers", tuple(f"{key}  {title}" for key, title in card.citations.items())),
        ("example", (f'guidon sample MODEL --rule "{card.example}"{card.needs}' if card.example else "",)),
    ):
        if any(lines):
            table.add_row(label, Text(plain("\n".join(lines))))
    console.print(table)


def cost_text(card: Card) -> str:
    """Return the cost with its unit."""
    return card.cost if card.cost == "nothing more" else f"{card.cost} (network evaluations a step)"


def plain(text: str) -> str:
    """Return text without the marks of code."""
    return text.replace("`", "")
