"""A command line in this process, and a tiny model to use it on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from guidon.app.cli import run
from guidon.model import Model, ModelConfig


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def guidon(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> Callable[[str], Answer]:
    """Run a command line, split as a shell does, in an empty folder; MODEL stands for the tiny model."""
    monkeypatch.chdir(tmp_path)

    def call(line: str) -> Answer:
        code = run([str(model_folder) if word == "MODEL" else word for word in shlex.split(line)])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of three classes, 12 x 12 pixels."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    architecture = {"model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "attention": (2,), "heads": 1}
    torch.manual_seed(0)
    model = Model(ModelConfig(shape=(3, 12, 12), architecture=architecture, classes=("cat", "dog", "sea lion")))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder
