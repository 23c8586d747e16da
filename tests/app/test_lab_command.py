"""``guidon lab``: what it lists, writes, leaves alone, and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from guidon.app import cli
from guidon.app.lab_command import LIST_EXAMPLES, RUN_EXAMPLES
from guidon.lab.experiments import experiments

QUICK = "two-modes(weights=[1, 3], steps=20, samples=100, points=50)"


def run(*tokens: str) -> int:
    return cli.run(["lab", *tokens])


def test_every_experiment_is_listed_with_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, member in experiments():
        assert name in shown and member.title in shown and " ".join(member.asks.split()) in shown


def test_one_experiment_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "two-modes") == 0
    shown = capsys.readouterr().out
    assert "steps=800" in shown and "weights" in shown
    assert run("list", "two-mode") == 2
    assert "two-modes" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "examples"), [("list", LIST_EXAMPLES), ("run", RUN_EXAMPLES)])
def test_help_shows_examples(command: str, examples: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.count("\n  guidon ") == examples.count("\n  guidon ") > 0
    assert max(map(len, examples.splitlines())) <= 80


def test_findings_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "lab"
    assert run("run", QUICK, "-o", str(out)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    account = json.loads((out / "two-modes.json").read_text())
    assert account["experiment"] == account["command"].split('"')[1] and account["sees"] and account["tables"]
    for picture in account["pictures"]:
        assert Image.open(out / picture).size[0] > 400
    assert all(" ".join(sentence.split()) in shown for sentence in account["sees"])
    assert all(str(out / file) in shown for file in account["files"])
    before = (out / "two-modes.json").stat().st_mtime_ns
    assert run("run", QUICK, "-o", str(out)) == 0
    assert "done before" in capsys.readouterr().out
    assert (out / "two-modes.json").stat().st_mtime_ns == before
    assert run("run", QUICK, "-o", str(out), "--again") == 0
    assert (out / "two-modes.json").stat().st_mtime_ns > before
    assert run("run", QUICK.replace("steps=20", "steps=21"), "-o", str(out)) == 0  # other settings keep their own
    others = json.loads((out / "two-modes-2.json").read_text())
    assert "steps=21" in others["experiment"] and all(
        picture.startswith("two-modes-2") for picture in others["pictures"]
    )
    assert json.loads((out / "two-modes.json").read_text())["experiment"] == account["experiment"]


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("run",), "guidon lab list"),
        (("run", "two-mode"), "two-modes"),
        (("run", "two-modes(stops=3)"), "stops"),
        (("run", "two-modes", "--data", "digits"), "looks at images"),
        (("run", "two-modes", "-o", "/proc/nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(tokens: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*tokens) == 2
    assert said in capsys.readouterr().err
