"""The papers behind the methods: references.bib, read without a BibTeX library."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from guidon.errors import BadValue, UnknownName

_ENTRY = re.compile(r"^@\w+(?=\{)", re.MULTILINE)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*(?=\{)", re.MULTILINE)


@dataclass(frozen=True)
class Citation:
    """One entry of references.bib.

    Args:
        key: what `About.sources` names.
        bibtex: the entry as it stands in the file.
        fields: title, year, eprint and so on, as BibTeX writes them, without the outer braces.
    """

    key: str
    bibtex: str
    fields: dict[str, str]

    @property
    def title(self) -> str:
        """Return the title without the braces that keep BibTeX from changing its case."""
        return re.sub(r"[{}]", "", " ".join(self.fields["title"].split()))

    @property
    def link(self) -> str | None:
        """Return where to read it; None where the entry does not say."""
        return f"https://arxiv.org/abs/{self.fields['eprint']}" if "eprint" in self.fields else None


@cache
def citations() -> dict[str, Citation]:
    """Return every entry of references.bib by its key."""
    return read_entries((files("guidon.guidance") / "references.bib").read_text(encoding="utf-8"))


def read_entries(text: str) -> dict[str, Citation]:
    """Return the entries of a BibTeX file whose values stand in braces; what stands between entries is comment.

    Raises:
        BadValue: braces do not balance, or two entries share a key.
    """
    found: dict[str, Citation] = {}
    for start in _ENTRY.finditer(text):
        body = _braced(text, start.end())
        key, _, rest = body.partition(",")
        fields = {field.group(1).lower(): _braced(rest, field.end()) for field in _FIELD.finditer(rest)}
        if key in found:
            raise BadValue(f"two BibTeX entries are called {key!r}; give one of them another key")
        found[key] = Citation(key, f"{start.group()}{{{body}}}", fields)
    return found


def lookup(keys: Iterable[str]) -> list[Citation]:
    """Return the entries with these keys, each once, in their order; raises `UnknownName`."""
    known = citations()
    for key in (keys := list(dict.fromkeys(keys))):
        if key not in known:
            raise UnknownName("BibTeX entry", key, known)
    return [known[key] for key in keys]


def bibtex(keys: Iterable[str]) -> str:
    """Return BibTeX for these keys, each once, in their order; raises `UnknownName`."""
    return "\n\n".join(entry.bibtex for entry in lookup(keys))


def titles(keys: Iterable[str]) -> dict[str, str]:
    """Return the titles by key, each once, in their order; raises `UnknownName`."""
    return {entry.key: entry.title for entry in lookup(keys)}


def _braced(text: str, start: int) -> str:
    """Return what stands between the brace at ``start`` and the one that closes it."""
    depth = 0
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start + 1 : end]
    raise BadValue(f"a brace of BibTeX is never closed: {text[start : start + 40]!r}; close it")
