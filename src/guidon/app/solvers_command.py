"""``guidon solvers``: ways from noise to images."""

from __future__ import annotations

EXAMPLES = """Examples:

  guidon solvers            all of them in a table
  guidon solvers dpmpp-2m   one of them in full"""


def solvers(name: str | None = None) -> None:
    """Show the solvers: their order, network evaluations, whether they draw noise, and which rules they refuse.

    Args:
        name: of a solver; left out: all.
    """
    from rich.table import Table
    from rich.text import Text

    from guidon.app.console import Output
    from guidon.app.solver_cards import solver_card, solver_cards

    console = Output()
    if name is None:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for column in ("solver", "order", "evaluations", "noise"):
            table.add_column(column, no_wrap=True)
        table.add_column("")
        for card in solver_cards():
            facts = str(card.order), str(card.evaluations), "fresh" if card.stochastic else "none"
            table.add_row(Text(card.name, "bold"), *facts, Text(card.summary))
        console.print(table)
        console.print(
            "\nOrder on the probability-flow ODE, 1 with fresh noise; evaluations a step, guided. Default settings."
        )
        console.print("guidon solvers NAME tells which rules a solver refuses and why.")
        return
    card = solver_card(name)
    console.print(Text(card.text, "bold underline"))
    for paragraph in (card.summary, *card.details):
        console.print(Text(paragraph.replace("``", "")))
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(style="bold", max_width=26)
    table.add_column(overflow="fold")
    table.add_row("order", f"{card.order}")
    table.add_row("evaluations", f"{card.evaluations} a step")
    table.add_row("noise", "fresh in every step" if card.stochastic else "none after the start")
    for argument, about in card.arguments.items():
        table.add_row(Text(f"  {argument}"), Text(about))
    for rule, why in card.refuses.items():
        table.add_row("refuses", Text(f"{rule}: {why}"))
    table.add_row("source", Text(card.source))
    console.print(table)
