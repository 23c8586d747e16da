"""``guidon cite``: BibTeX of the methods in a rule, or in the rule that made an image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from guidon.errors import BadValue, DataError

if TYPE_CHECKING:
    from guidon.app.rule_cards import Card

EXAMPLES = """Examples:

  guidon cite "cfg(4) | apg"              every paper behind a rule
  guidon cite samples/0000-3.png          behind the rule that made an image
  guidon cite apg >> paper.bib"""


def cite(what: str, /) -> None:
    """Print the BibTeX entries of the methods in a rule.

    Args:
        what: a rule such as "cfg(4) | apg", the name of a rule, stage or weight, or an image that guidon wrote.
    """
    from guidon.guidance.citations import bibtex

    is_file = re.search(r"\.\w+$", what)  # a text form ends with a name or a bracket
    cards = _of_image(Path(what)) if is_file else _of_text(what)
    for card in cards:
        if not card.citations:  # between entries, BibTeX takes it for a comment
            print(f"% {card.name}: {card.source or 'no paper to cite'}\n")
    if keys := [key for card in cards for key in card.citations]:
        print(bibtex(keys))


def _of_text(text: str) -> list[Card]:
    from guidon.app.rule_cards import cards_of

    return cards_of(text)


def _of_image(path: Path) -> list[Card]:
    """Return the cards of the rule in an image's record."""
    from guidon.app.png import read_record

    rule = read_record(path).get("rule")
    if not isinstance(rule, str):
        raise DataError(f"the guidon record of {path} names no rule; name it yourself: guidon cite 'cfg(3)'")
    try:
        return _of_text(rule)
    except BadValue as error:
        raise DataError(
            f"the rule of {path}, {rule!r}, cannot be read ({error}); it holds a function of Python's, or a method that "
            "this version of guidon does not have: name its parts yourself, as in guidon cite 'cfg(3) | apg'"
        ) from error
