"""references.bib is well formed, and every registered method says what it is and whose."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from guidon import registry
from guidon.errors import BadValue, UnknownName
from guidon.guidance import About
from guidon.guidance.citations import bibtex, citations, lookup, read_entries, titles

METHODS = [(kind, *member) for kind in ("rule", "stage", "weight", "when") for member in registry.members(kind)]
IDS = [f"{kind}-{name}" for kind, name, _ in METHODS]
OURS = {"dynamic-scale"}  # no paper behind it


@pytest.mark.parametrize(("kind", "name", "member"), METHODS, ids=IDS)
def test_every_method_says_what_it_is_and_whose(kind, name, member):
    about = member.about
    assert isinstance(about, About) and about.formula and about.cost
    assert kind == "weight" or about.ranges, f"{name} has no sensible ranges"
    assert name in OURS or about.sources, f"{name} cites nothing"
    assert set(about.sources) <= citations().keys()
    assert len(set(about.sources)) == len(about.sources)


def test_every_entry_is_well_formed():
    text = (files("guidon.guidance") / "references.bib").read_text(encoding="utf-8")
    assert len(citations()) == text.count("\n@") > 20
    for key, entry in citations().items():
        assert re.fullmatch(r"[a-z]+\d{4}[a-z0-9]+", key)
        assert entry.bibtex.count("{") == entry.bibtex.count("}") and entry.bibtex in text
        assert {"title", "author", "year"} <= entry.fields.keys()
        assert re.fullmatch(r"\d{4}", entry.fields["year"]) and key.startswith(re.split(r"\d", key)[0])
        assert entry.fields["year"] in key
        assert entry.title and not set(entry.title) & set("{}\\\n")
        assert "eprint" not in entry.fields or re.fullmatch(r"\d{4}\.\d{5}", entry.fields["eprint"])
        assert "eprint" in entry.fields or "howpublished" in entry.fields, f"{key} says not where to read it"


def test_no_two_entries_are_of_one_paper():
    eprints = [entry.fields["eprint"] for entry in citations().values() if "eprint" in entry.fields]
    assert len(set(eprints)) == len(eprints)


def test_entries_come_once_in_the_order_asked_for():
    keys = ["sadat2025eliminating", "ho2022classifier", "sadat2025eliminating"]
    assert [entry.key for entry in lookup(keys)] == keys[:2]
    assert bibtex(keys).count("@") == 2 and bibtex(keys).index("sadat2025") < bibtex(keys).index("ho2022")
    assert titles(["ho2022classifier"]) == {"ho2022classifier": "Classifier-Free Diffusion Guidance"}
    with pytest.raises(UnknownName, match="did you mean 'ho2022classifier'"):
        bibtex(["ho2022clasifier"])


def test_reading_bibtex():
    entries = read_entries(
        "% note\n@misc{a2020b,\n  title = {The {GAN},\n  again},\n  year = {2020},\n}\n@misc{c, title={}}"
    )
    assert list(entries) == ["a2020b", "c"]
    assert entries["a2020b"].title == "The GAN, again" and entries["a2020b"].link is None
    with pytest.raises(BadValue, match="two BibTeX entries are called 'a'"):
        read_entries("@misc{a, x={}}\n@misc{a, x={}}")
    with pytest.raises(BadValue, match="never closed"):
        read_entries("@misc{a, title={b}")
