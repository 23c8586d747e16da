"""`guidon rules` and `guidon cite`, and the cards that they show."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from guidon import registry
from guidon.app.png import write_png
from guidon.app.rule_cards import KINDS, all_cards, cards_of, read_docstring
from guidon.guidance import Rule
from guidon.guidance.citations import citations

CARDS = all_cards()
RECORD = {
    "guidon": "0.1.0",
    "model": "m",
    "solver": "ddim",
    "grid": "trailing",
    "steps": 2,
    "labels": [None],
    "seeds": [0],
    "size": [2, 2],
    "image": None,
}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{card.kind}-{card.name}")
def test_every_card_is_whole(card):
    assert card.summary.endswith(".") and card.formula and card.cost
    for parameter in card.parameters:
        assert parameter.about, f"the docstring of {card.name} has no line about {parameter.name} among its Args"
    assert isinstance(registry.parse("rule", card.example), Rule)
    assert card.name in card.example


def test_all_of_the_registry_has_a_card():
    assert [(card.kind, card.name) for card in CARDS] == [(k, n) for k in KINDS for n in registry.names(k)]


def test_the_cost_of_what_asks_nothing_is_told_as_nothing():
    cost = {card.name: card.cost for card in CARDS}
    assert [cost[name] for name in ("icg", "interval")] == ["2", "1 outside"]
    assert [cost[name] for name in ("apg", "linear")] == ["nothing more"] * 2


def test_the_list_names_everything_and_fits(guidon, monkeypatch):
    for columns in (60, 80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = guidon("rules").out.splitlines()
        assert max(map(len, lines)) <= min(columns, 100)
        assert "\x1b" not in "".join(lines)
        for card in CARDS:
            assert any(line.startswith((f"  {card.name}(", f"  {card.name} ")) for line in lines), card.name


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_card_tells_all_of_it_and_fits(guidon, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for card in CARDS:
        out = guidon(f"rules {card.name}").out
        assert max(map(len, out.splitlines())) <= columns
        words = " ".join(out.split())
        for part in (card.formula, *card.ranges, card.notes, card.source, *card.citations, *card.citations.values()):
            assert " ".join(part.replace("`", "").split()) in words
        for parameter in card.parameters:
            assert str(parameter) in out.replace("\n", "")
        assert f'guidon sample MODEL --rule "{card.example}"' in words


def test_a_name_shows_its_parameters_and_where_it_stands(guidon):
    out = guidon("rules apg").out
    assert out.startswith("apg(eta=0, ") and "radius=inf" in out and "longest difference" in out
    assert "nothing more" in out and "adds its pull" not in out
    assert "adds its pull" in guidon("rules pag").out


def test_a_text_form_shows_its_parts_with_their_values(guidon):
    cards = cards_of("cfg(linear(1, 4), when=interval(0.3, 3)) | apg(radius=5)")
    assert [card.name for card in cards] == ["cfg", "linear", "interval", "apg"]
    assert [parameter.here for parameter in cards[0].parameters] == ["linear(1, 4)", "interval(0.3, 3)"]
    assert [parameter.here for parameter in cards[3].parameters] == [None, "5", None, None, None]
    out = guidon("rules 'cfg(4)|apg(radius=5)'").out
    assert "here 5: the longest difference" in out and "here 4" in out and "--rule" not in out
    assert [card.kind for card in cards_of("apg(0.5)")] == ["stage"]
    assert [card.text for card in cards_of("linear(1, 4)")] == ["linear(1, 4)"]


def test_json_holds_the_cards(guidon):
    (apg,) = json.loads(guidon("rules apg --json").out)
    assert apg["kind"] == "stage" and apg["parameters"][0]["name"] == "eta" and apg["parameters"][0]["default"] == "0"
    assert len(json.loads(guidon("rules --json").out)) == len(CARDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rules apgg", "did you mean 'apg'"),
        ("rules 'lineer(1, 2)'", "did you mean 'linear'"),
        ("rules 'cfg(4) | rescal'", "did you mean 'rescale'"),
        ("rules 'cfg(wieght=4)'", "did you mean 'weight'"),
        ("rules 'threshold | cfg(3)'", "threshold is a stage"),
        ("rules ''", "there is no rule, stage or weight"),
        ("cite rescal", "did you mean 'rescale'"),
        ("cite nowhere.png", "there is no image nowhere.png"),
        ("cite", "WHAT"),
    ],
)
def test_mistakes_are_told_in_one_line(guidon, words, message):
    answer = guidon(words)
    assert answer.code == 2 and message in answer.err and answer.err.count("\n") == 1 and answer.out == ""


def test_cite_gives_each_entry_once_in_order(guidon):
    out = guidon("cite 'cfg(4, when=interval(0.3, 3)) | apg() | pag(2, when=interval(0.3, 3))'").out
    keys = ["ho2022classifier", "kynkaanniemi2024interval", "sadat2025eliminating", "ahn2024perturbed"]
    assert out == "\n\n".join(citations()[key].bibtex for key in keys) + "\n"
    assert guidon("cite apg").out == citations()["sadat2025eliminating"].bibtex + "\n"


def test_cite_says_where_there_is_no_paper(guidon, monkeypatch):
    from guidon.guidance import CFG, About

    monkeypatch.setattr(CFG, "about", About("D"))
    out = guidon("cite 'cfg(3) | apg'").out
    assert out.startswith("% cfg: ") and out.count("@") == 1


def test_cite_reads_the_rule_of_an_image(guidon, tmp_path):
    image = Image.new("L", (2, 2))
    write_png(tmp_path / "a.png", image, RECORD | {"rule": "cfg(3) | apg"})
    assert guidon("cite a.png").out == guidon("cite 'cfg(3) | apg'").out != ""
    write_png(tmp_path / "b.png", image, RECORD | {"rule": "cfg(<lambda>)"})
    answer = guidon("cite b.png")
    assert answer.code == 2 and "b.png" in answer.err and "'cfg(<lambda>)'" in answer.err
    image.save(tmp_path / "c.png")
    assert "carries no guidon record" in guidon("cite c.png").err


def test_reading_a_docstring():
    text = (
        "Does it.\n\nMore\nof it.\n\nArgs:\n    a, b: two: of\n        them.\n    c: one.\n\nRaises:\n    E: no.\n\n"
        "Source: A, eq. 1;\n    B."
    )
    arguments = {"a": "two: of them.", "b": "two: of them.", "c": "one."}
    assert read_docstring(text) == ("Does it.", ("More of it.",), arguments, "A, eq. 1; B.")
