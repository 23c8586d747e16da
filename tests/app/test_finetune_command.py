"""``guidon finetune`` from a model and a folder to another model, told in numbers; what it cannot do, it says."""

from __future__ import annotations

import json
import re

import pytest
from matplotlib.figure import Figure
from PIL import Image
from support import pictures

from guidon.app.finetune_command import BUDGET
from guidon.app.validation_plot import validation_figure
from guidon.model import load
from guidon.training.validate import Validation, read_validation

QUICK = "--set train.batch_size=8 train.threads=1 train.trackers=[] train.sample_every=none train.warmup=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images with a text file beside each, and a model of texts."""
    from training.tiny_finetune import base_of_texts

    root = tmp_path_factory.mktemp("app-finetune")
    base_of_texts(root, steps=2)
    pictures.folder(root / "photos", 20)
    for image in (root / "photos").rglob("*.png"):
        if image.stem != "0003":
            image.with_suffix(".txt").write_text(f"a photo of a {image.parent.name[-1]}\na photo")
    return root


def test_from_a_model_and_a_folder_to_a_model(guidon, folder, tmp_path):
    answer = guidon(
        f"finetune {folder}/base --data {folder}/photos --steps 6 {QUICK} data.hold_out=0.2 train.validate_every=2"
    )
    assert answer.code == 0, answer.err
    run = tmp_path / "runs" / "base-on-photos"
    entries = read_validation(run)
    assert [entry.step for entry in entries] == [0, 2, 4, 6]
    first, last = entries[0].loss, entries[-1].loss
    assert f"on images that it was not trained on the loss went from {first:.4f} to {last:.4f}" in answer.out
    assert "trained 100 % of the model's weights" in answer.out
    assert "the model is in runs/base-on-photos/model; now: guidon sample runs/base-on-photos" in answer.out
    assert Image.open(run / "validation.png").size == (506, 319)
    account = json.loads((run / "train.json").read_text())
    assert account["uncaptioned"]["count"] == 1
    assert "1 of 20 images have no caption" in " ".join(answer.err.split())
    assert load(run).tokenizer is not None
    # going on: more steps, exactly those
    more = guidon(
        f"finetune {folder}/base --data {folder}/photos --steps 8 --resume {QUICK} data.hold_out=0.2 train.validate_every=2"
    )
    assert more.code == 0, more.err
    assert [entry.step for entry in read_validation(run)] == [0, 2, 4, 6, 8]
    # the run's own recipe makes the same again
    assert guidon(f"finetune --recipe {run}/recipe.yaml -o again --steps 6").code == 0
    assert read_validation(tmp_path / "again") == entries


def test_lora_says_what_it_trained_and_where_it_is(guidon, folder, tmp_path):
    answer = guidon(
        f"finetune {folder}/base --data {folder}/photos --steps 2 -o tuned {QUICK} adapt.lora.rank=2 data.hold_out=null"
    )
    assert answer.code == 0, answer.err
    share = float(re.findall(r"trained (\S+) % as many", answer.out, re.MULTILINE)[0])
    assert 0 < share < 5
    assert "by themselves they are in tuned/lora.safetensors" in answer.out
    assert "the loss went from" not in answer.out


def test_without_an_end_it_takes_ten_minutes(guidon, folder, monkeypatch):
    from guidon.app import training_run

    asked = []
    monkeypatch.setattr(training_run, "run", lambda recipe, *_: asked.append(recipe.train))
    for more, wanted in (
        ("", (None, BUDGET)),
        ("--steps 3", (3, None)),
        ("--budget 2h", (None, "2h")),
        ("--set train.steps=4", (4, None)),
    ):
        assert guidon(f"finetune {folder}/base --data {folder}/photos {more}").code == 0
        assert (asked[-1].steps, asked[-1].budget) == wanted


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("finetune", "guidon finetune MODEL --data FOLDER"),
        ("finetune {folder}/base", "guidon finetune MODEL --data FOLDER"),
        ("finetune nowhere --data {folder}/photos --steps 1", "nowhere"),
        ("finetune {folder}/base --data {folder}/photos --set adapt.lora.rnk=2", "did you mean 'rank'"),
        ("finetune {folder}/base --data {folder}/photos --set adapt.freeze=unet", "adapt.freeze"),
        ("finetune {folder}/base --data digits --steps 1", "told texts, but the data have no captions"),
        ("finetune {folder}/base --recipe {folder}/empty.yaml", "data is a section, not None"),
        ("train {folder}/tuning.yaml", "give it to `guidon finetune --recipe`"),
    ],
)
def test_errors_say_what_to_do(line, said, guidon, folder):
    (folder / "tuning.yaml").write_text("kind: finetune\nbase: x\ntrain: {steps: 1}\n")
    (folder / "empty.yaml").write_text("kind: finetune\ndata:\ntrain: {steps: 1}\n")
    answer = guidon(line.format(folder=folder))
    assert answer.code == 2
    assert said in " ".join(answer.err.split())


def test_the_picture_shows_the_loss_and_where_it_began():
    entries = [Validation(0, 0.9), Validation(50, 0.7), Validation(100, 0.6)]
    figure = validation_figure(entries)
    assert isinstance(figure, Figure)
    measured, start = figure.axes[0].get_lines()
    assert [tuple(point) for point in measured.get_xydata()] == [(0, 0.9), (50, 0.7), (100, 0.6)]
    assert set(start.get_ydata()) == {0.9}
