"""Writes docs/rules.md, a page about every guidance method, from the registry: ``python docs/make_rules.py``."""

from __future__ import annotations

from pathlib import Path

from guidon.app.rule_cards import KINDS, Card, all_cards
from guidon.app.rules_command import cost_text
from guidon.guidance.citations import lookup

DOCS = Path(__file__).parent
TITLES = {"rule": "Rules", "stage": "Stages", "weight": "Weights", "when": "Intervals"}
OPENING = """<!-- written by docs/make_rules.py; do not edit -->
# Guidance methods

Each can be named in a text form: `guidon sample MODEL --rule "cfg(4) | apg"`, or `model.sample(..., rule="cfg(4) | apg")`.
In formulas D is the clean image that is believed in, c the given condition, u none, w the weight (1 is plain conditional).
On the command line the same is told by `guidon rules`, and `guidon cite "cfg(4) | apg"` prints BibTeX.
"""


def page() -> str:
    """Return the page as it should be now; pictures are shown where docs/images/rules/NAME.jpg exists."""
    cards = all_cards()
    parts = [OPENING]
    for kind, place in KINDS.items():
        of_kind = [card for card in cards if card.kind == kind]
        parts.append(f"## {TITLES[kind]}\n\n{_capital(_safe(place))}.\n")
        parts.append("| name | | cost |\n| --- | --- | --- |")
        parts += [f"| [{card.name}](#{card.name}) | {_safe(card.summary)} | {_safe(card.cost)} |" for card in of_kind]
        parts.append("")
        parts += [_section(card) for card in of_kind]
    return "\n".join(parts).rstrip() + "\n"


def _section(card: Card) -> str:
    """Return what the page says of one method."""
    blocks = [f"### {card.name}", _safe(card.summary), *map(_safe, card.details)]
    picture = f"images/rules/{card.name}.jpg"
    if (DOCS / picture).is_file():
        blocks.append(f"![{card.name}: the same noise under different settings]({picture})")
    blocks.append(f"```text\n{card.formula}\n```")
    blocks.append(f"**Cost:** {_safe(cost_text(card))}")
    if card.adds:
        blocks.append("**Place:** alone, first in a chain, or after a `|`, where it adds its pull")
    if card.only_with:
        blocks.append(f"**Solvers:** only {', '.join(f'`{name}`' for name in card.only_with)}")
    if card.parameters:
        rows = [
            f"| `{p.name}` | {'must be given' if p.default is None else f'`{p.default}`'} | {_safe(p.about)} |"
            for p in card.parameters
        ]
        blocks.append("\n".join(["| parameter | default | |", "| --- | --- | --- |", *rows]))
    if card.ranges:
        blocks.append("**Sensible:** " + "; ".join(map(_safe, card.ranges)))
    if card.notes:
        blocks.append(f"**Notes:** {_safe(card.notes)}")
    blocks.append(f'**Example:** `--rule "{card.example}"{card.needs}`')
    if card.source:
        blocks.append(f"**Source:** {_safe(card.source)}")
    if card.citations:
        blocks.append("\n".join(["**Papers:**", "", *(f"- {_paper(key)}" for key in card.citations)]))
    return "\n\n".join(blocks) + "\n"


def _paper(key: str) -> str:
    (entry,) = lookup([key])
    title = f"[{_safe(entry.title)}]({entry.link})" if entry.link else _safe(entry.title)
    return f"{title}, {entry.fields['year']} (`{key}`)"


def _safe(text: str) -> str:
    """Return text in which Markdown finds nothing but marks of code."""
    parts = text.replace("``", "`").split("`")
    for i in range(0, len(parts), 2):  # the odd ones are code
        for mark in "\\*_<[|":
            parts[i] = parts[i].replace(mark, f"\\{mark}")
    return "`".join(parts)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


if __name__ == "__main__":
    (DOCS / "rules.md").write_text(page(), encoding="utf-8")
