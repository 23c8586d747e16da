"""The demo: train on handwritten digits, sample at several weights, measure, and show what guidance does."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidon._version import __version__
from guidon.app.demo_picture import guidance_picture
from guidon.app.demo_report import report_page
from guidon.app.progress import steps_bar
from guidon.app.recipes import find_recipe
from guidon.checkpoints.atomic import write_bytes, write_text
from guidon.errors import BadValue
from guidon.measure.features import FeatureClassifier, train_classifier
from guidon.measure.judge import Judge
from guidon.model import Model, load
from guidon.training.data import MemoryData, open_data
from guidon.training.grid import png_bytes
from guidon.training.loop import train
from guidon.training.recipe import Recipe, load_recipe
from guidon.training.threads import fastest_threads

SHOWN = (0.0, 1.0, 2.0, 4.0, 8.0)  # rows of the picture
MEASURED = (0.0, 1.0, 2.0, 3.0, 4.0, 8.0)
PER_CLASS = 50  # images of each class at each weight
SEED = 0
HELD_OUT = 5  # one in so many real images tells how well the judge sees


def run_demo(out: Path, *, recipe: Recipe | None = None, per_class: int = PER_CLASS) -> dict[str, Any]:
    """Run the demo and return what ``report.json`` holds.

    Args:
        out: folder for the report, the picture and the training run.
        recipe: what to train; left out: the recipe "digits".
        per_class: images of each class at each weight, at least nine.
    """
    started = time.perf_counter()
    recipe = recipe or load_recipe(find_recipe("digits"))
    _say("1/4  training")
    model = _trained(recipe, out / "run")
    threads = torch.get_num_threads()
    torch.set_num_threads(fastest_threads(lambda: model.sample(n=100, steps=2), threads))
    try:
        facts, picture = _sampled(recipe, model, per_class)
    finally:
        torch.set_num_threads(threads)
    _say("4/4  writing the report")
    facts["seconds"] = round(time.perf_counter() - started, 1)
    write_bytes(out / "guidance.png", picture)
    write_text(out / "report.json", json.dumps(facts, indent=2) + "\n")
    write_text(out / "report.html", report_page(facts, picture))
    _say(f"done in {facts['seconds']:.0f} s: open {out / 'report.html'}; the picture is {out / 'guidance.png'}")
    _say(f"now yours: guidon sample {out / 'run'} --label 3 --n 8 --weight 4")
    return facts


def _sampled(recipe: Recipe, model: Model, per_class: int) -> tuple[dict[str, Any], bytes]:
    """Sample at every weight and measure; return the facts for the report, and the picture as a PNG file."""
    _say("2/4  the judge: a classifier trained on the real images, which never sees a generated one")
    pixels, labels = _real_images(recipe)
    classes = len(model.classes or ())
    judge, held_out = _judge(pixels, labels, classes)
    _say(f"     recognises {held_out:.1%} of real images that were kept from it")
    _say(f"3/4  sampling {per_class * classes} images at each of {len(MEASURED)} weights, and measuring")
    rows, pictures = [], {}
    for weight in MEASURED:
        row, images, recognised = _measured(model, judge, weight, per_class)
        rows.append(row)
        _say(_line(row))
        if weight in SHOWN:
            pictures[weight] = (images, recognised)
    facts = {
        "rows": rows,
        "classes": list(model.classes or ()),
        "per_class": per_class,
        "seed": SEED,
        "real_images": len(pixels),
        "judge_held_out_accuracy": held_out,
        "model": {key: getattr(model.config, key) for key in ("process", "output")}
        | {"solver": model.config.sample.solver, "grid": model.config.sample.grid, "steps": model.config.sample.steps},
        "training": model.config.training,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {"guidon": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    measures = {row["weight"]: row for row in rows}
    shown = {weight: (*pictures[weight], measures[weight]) for weight in SHOWN}
    return facts, png_bytes(guidance_picture(shown, model.classes or ()))


def _trained(recipe: Recipe, run: Path) -> Model:
    """Train, or go on, or use what is there already; raises `BadValue` where another run is in the way."""
    stored = run / "recipe.yaml"
    if run.exists() and (not stored.exists() or load_recipe(stored) != recipe):
        raise BadValue(f"{run} was not made by this recipe; delete that folder, or choose another with -o")
    if (run / "model").exists():
        _say(f"     was done before: using {run / 'model'} (delete {run} to train again)")
        return load(run / "model")
    if run.exists():
        _say(f"     going on with the run in {run}")
    model = train(recipe, run, resume=run.exists())
    account = model.config.training
    _say(f"     {account['images']:,} images in {account['seconds']:.0f} s, {account['parameters']:,} parameters")
    return model


def _real_images(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the images (N, C, H, W) uint8 and labels (N,) that the recipe trains on."""
    data = open_data(recipe.data)
    assert isinstance(data, MemoryData) and data.labels is not None
    return data.pixels, data.labels


def _judge(pixels: Tensor, labels: Tensor, classes: int) -> tuple[Judge, float]:
    """Return a judge of all real images, and the accuracy that the same training reaches on images it was not shown."""
    held = torch.arange(len(pixels)) % HELD_OUT == 0
    held_out = _classifier(pixels[~held], labels[~held], classes).accuracy(pixels[held], labels[held])
    return Judge.of(_classifier(pixels, labels, classes), pixels), held_out


def _classifier(pixels: Tensor, labels: Tensor, classes: int) -> FeatureClassifier:
    return train_classifier(pixels, labels, classes, epochs=12, flip=False, pad=1, precision="fp32")


def _measured(model: Model, judge: Judge, weight: float, per_class: int) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Sample all classes at a weight; return the measures, the images of the classes in turn, and what the judge sees in them."""
    classes = len(model.classes or ())
    wanted = torch.arange(classes).repeat(
        per_class
    )  # the classes in turn, so that one image of each shares a row of seeds
    with steps_bar(f"w = {weight:g}") as on_step:
        samples = model.sample(wanted.tolist(), rule=weight, seed=seeds(classes, per_class), on_step=on_step)
    seen = judge.classifier.predict(samples.x)
    row = {
        "weight": weight,
        **{key: round(value, 4) for key, value in judge.score(samples.x, wanted).items()},
        "classes_seen": torch.bincount(seen, minlength=classes).tolist(),
        "nfe": samples.nfe,
        "seconds": round(samples.seconds, 2),
        "seconds_per_image": round(samples.seconds / len(samples), 5),
    }
    return row, samples.x, seen


def seeds(classes: int, per_class: int) -> Sequence[int]:
    """Return a seed for each image, the classes in turn: the same at every weight, all different within one."""
    return range(SEED, SEED + classes * per_class)


def _say(text: str) -> None:
    print(text, flush=True)  # at once, also through a pipe


def _line(row: dict[str, Any]) -> str:
    return (
        f"     w = {row['weight']:g}: recognised {row['accuracy']:6.1%}, Fréchet {row['frechet']:7.2f}, precision {row['precision']:.2f}, "
        f"recall {row['recall']:.2f}, {row['nfe']} evaluations an image, {row['seconds']:.1f} s"
    )
