"""What a newcomer meets first: help, version, and what happens when a word is wrong."""

from __future__ import annotations

import importlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from guidon._version import __version__
from guidon.app import sample_command
from guidon.errors import SaveFailed

COMMANDS = (
    "train",
    "train-classifier",
    "finetune",
    "sample",
    "convert",
    "measure",
    "nll",
    "sweep",
    "tune",
    "compare",
    "report",
    "info",
    "list",
    "rules",
    "solvers",
    "cite",
    "demo",
)


def test_help_comes_fast_and_without_torch():
    code = (
        "import sys; from guidon.app.cli import run; run(['--help']); assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1  # CPU seconds: 0.3; torch takes 3


def test_python_m_guidon_is_the_command():
    done = subprocess.run([sys.executable, "-m", "guidon", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples_and_explains_every_parameter(guidon, command):
    answer = guidon(f"{command} --help")
    assert answer.code == 0 and f"  guidon {command}" in answer.out
    assert "--debug" in answer.out
    rows = [line for line in answer.out.splitlines() if line.startswith("│ ")]
    assert rows
    for row in rows:
        name, _, about = row.strip("│ ").partition("  ")
        assert about.strip() or row.startswith("│   "), f"{name} is not explained"


def test_examples_fit_a_narrow_terminal_unwrapped(guidon):
    for command in ("", *COMMANDS):
        help_text = guidon(f"{command} --help").out
        assert help_text.count("\n  guidon ") == _examples(command).count("\n  guidon ") > 0
        assert max(map(len, _examples(command).splitlines())) <= 80


def _examples(command):
    return importlib.import_module(
        f"guidon.app.{f'{command}_command'.replace('-', '_') if command else 'cli'}"
    ).EXAMPLES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("smaple", "sample"),
        ("sample x --stesp 3", "--steps"),
        ("sample x --steps -1", ">= 1"),
        ("sample x --steps many", "many"),
        ("sample x --n 0", ">= 1"),
        ("sample x --seed -3", ">= 0"),
        ("sample x --batching jiont", "joint"),
        ("sample", "guidon sample MODEL"),
        ("train", "RECIPE"),
        ("train x y", "y"),
        ("--debgu list", "--debgu"),
    ],
)
def test_wrong_words_end_with_one_message_and_exit_code_2(guidon, words, message):
    answer = guidon(words)
    assert answer.code == 2
    assert message.lower() in answer.err.lower()
    assert answer.err.startswith("guidon: ") and answer.err.count("\n") == 1
    assert "Traceback" not in answer.err and answer.out == ""


def test_debug_shows_the_traceback(guidon):
    with pytest.raises(Exception, match="there is no model folder nowhere"):
        guidon("sample nowhere --debug")


def test_interrupted_training_says_how_to_go_on(guidon, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("guidon.training.loop.train", interrupt)
    Path("mine.yaml").write_text("train: {steps: 1}\n")
    answer = guidon("train mine.yaml -o run")
    assert answer.code == 130 and answer.err == "guidon: interrupted\n"
    Path("run/checkpoint").mkdir(parents=True)
    answer = guidon("train mine.yaml -o run")
    assert answer.code == 130 and "--resume" in answer.err


def test_a_full_disk_is_told_in_one_message(guidon, monkeypatch):
    def full(*_, **__):
        raise SaveFailed("could not write out/0000-cat.png (No space left on device)")

    monkeypatch.setattr(sample_command, "write_samples", full)
    answer = guidon("sample MODEL --steps 1")
    assert answer.code == 2 and "No space left" in answer.err
