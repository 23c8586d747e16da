"""``guidon train-classifier`` from a tiny recipe to a classifier, its report and its picture."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

from guidon.app.classifier_plot import report_figure
from guidon.app.recipes import bundled_recipes
from guidon.app.train_classifier_command import EXAMPLES
from guidon.classifier_request import load_classifier
from guidon.model import Model
from guidon.training.calibrate import Report, Row, read_report

RECIPE = {
    "kind": "classifier",
    "data": {"source": "digits", "limit": 300, "hold_out": 0.2},
    "model": {
        "process": "cosine",
        "architecture": {
            "model_channels": 8,
            "channel_mult": [1, 2],
            "num_res_blocks": 1,
            "attention": [],
            "head_channels": 8,
        },
    },
    "train": {"steps": 12, "batch_size": 32, "threads": 1, "trackers": [], "warmup": 2},
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "eyes.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_from_a_recipe_to_a_classifier(guidon, recipe, tmp_path):
    answer = guidon("train-classifier eyes.yaml")
    assert answer.code == 0, answer.err
    run = tmp_path / "runs" / "eyes"
    report, classifier = read_report(run), load_classifier(run)
    assert classifier.config.calibration == report.calibration
    assert report.images == 60
    assert "on 60 images that it was not trained on (chance is 10 %;" in answer.out
    said = re.findall(r"^ *(\S+) +(\d+) % +(\S+) *$", answer.out, re.MULTILINE)
    assert [float(level) for level, _, _ in said] == pytest.approx([row.noise_level for row in report.rows], rel=1e-2)
    assert [int(right) for _, right, _ in said] == [round(100 * row.accuracy) for row in report.rows]
    assert [float(heat) for _, _, heat in said] == pytest.approx([row.temperature for row in report.rows], rel=1e-2)
    shown = guidon("info runs/eyes").out
    first, last = report.rows[0], report.rows[-1]
    assert f"{100 * first.accuracy:.0f} at 0.01, " in shown and f"{100 * last.accuracy:.0f} at 100" in " ".join(
        shown.split()
    )
    assert "chance 10)" in shown and f"{first.temperature:.3g}, " in shown and str(first.temperature) not in shown
    facts = json.loads(guidon("info runs/eyes --json").out)
    assert facts["accuracy"]["rows"][0]["accuracy"] == first.accuracy
    assert facts["calibration"]["temperatures"][0] == first.temperature
    assert "384 images" in answer.out
    assert f"the classifier is in {run.relative_to(tmp_path) / 'model'}" in answer.out
    assert Image.open(run / "accuracy.png").size == (1089, 319)
    # going on: more steps, exactly those
    assert guidon("train-classifier eyes.yaml --resume --set train.steps=15").code == 0
    assert json.loads((run / "train.json").read_text())["steps"] == 15


@pytest.mark.parametrize("vector", ["embedding", None])
def test_a_base_with_and_without_classes(guidon, recipe, tmp_path, vector):
    from training.tiny import tiny_recipe

    made = tiny_recipe({"vector": vector})
    made = made.model_copy(update={"model": made.model.model_copy(update={"process": "flow", "output": "velocity"})})
    torch.manual_seed(0)
    made.build((1, 8, 8), tuple("0123456789")).save_pretrained(tmp_path / "base/model")
    line = "train-classifier eyes.yaml -o run --set model.base=base model.process=null train.steps=2"
    assert guidon(line).code == 0
    classifier, base = load_classifier(tmp_path / "run"), Model.from_pretrained(tmp_path / "base")
    assert classifier.process == base.process
    assert classifier.shape == base.shape
    assert base.classes in (None, classifier.classes)


def test_errors_say_what_to_do(guidon, recipe):
    no_labels = guidon("train-classifier eyes.yaml -o a --set data.label_column=none data.source=nowhere/at/all")
    assert no_labels.code == 2
    wrong_kind = guidon("train eyes.yaml -o b")
    assert wrong_kind.code == 2
    assert "is the recipe of a classifier; give it to `guidon train-classifier`" in wrong_kind.err
    other_kind = guidon("train-classifier digits -o c")
    assert other_kind.code == 2
    assert "is the recipe of a model; give it to `guidon train`" in other_kind.err
    both = guidon("train-classifier eyes.yaml -o d --set model.base=somewhere")
    assert both.code == 2
    assert "give either the base" in both.err and "drop cosine: --set model.process=null" in both.err
    little = guidon("train-classifier eyes.yaml -o e --set data.hold_out=0.001")
    assert little.code == 2
    assert "data.hold_out 0.001 of 300 images is 0" in little.err


def test_examples_fit_a_narrow_terminal():
    assert max(map(len, EXAMPLES.splitlines())) <= 80


def test_the_picture_shows_the_numbers_of_the_report():
    rows = tuple(Row(0.1 * 10**i, 0.9 - 0.3 * i, 1.0, 0.2 + i / 10, 1.5 + i, 0.9, 0.01) for i in range(3))
    figure = report_figure(Report(500, 0.1, rows))
    assert isinstance(figure, Figure)
    right, sure, heat = figure.axes
    lines = {line.get_label(): line for axes in (right, sure, heat) for line in axes.get_lines()}
    assert right.get_lines()[0].get_ydata() == pytest.approx([90, 60, 30])
    assert right.get_lines()[0].get_xdata() == pytest.approx([0.1, 1, 10])
    assert list(lines["chance"].get_ydata()) == pytest.approx([10, 10])
    assert list(sure.get_lines()[0].get_ydata()) == pytest.approx([20, 30, 40])
    assert list(lines["with temperatures"].get_ydata()) == pytest.approx([1, 1, 1])
    assert list(lines["fitted"].get_ydata()) == pytest.approx([1.5, 2.5, 3.5])
    assert "500 images" in right.get_title()


def test_recipes_that_come_along_are_told_apart_by_kind():
    assert {"digits", "cifar10-cpu"} <= bundled_recipes("model").keys()
    assert {"digits-classifier", "cifar10-classifier-cpu"} <= bundled_recipes("classifier").keys()
    assert bundled_recipes() == bundled_recipes("model") | bundled_recipes("classifier")
