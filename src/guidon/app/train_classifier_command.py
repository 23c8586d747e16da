"""``guidon train-classifier``: from a recipe to a classifier of noisy images, which can guide a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

EXAMPLES = """Examples:

  guidon train-classifier digits-classifier      a recipe that comes with guidon
  guidon train-classifier my.yaml -o runs/eyes   a recipe of your own
  guidon train-classifier my.yaml --set model.base=runs/mine
  guidon train-classifier my.yaml --budget 20m   a classifier after 20 minutes
  guidon train-classifier my.yaml --resume       go on where it stopped

Recipes that come with guidon: guidon list recipes."""


def train_classifier(
    recipe: str,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    sets: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative=())] = None,
    budget: str | None = None,
    resume: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Train a classifier of noisy images from a recipe.

    The run's folder gets checkpoints, logs for TensorBoard (logs/) and in the end the
    classifier (model/), with how often it is right at each noise level and how sure
    it is (accuracy.json, accuracy.png), on images that it was not trained on.

    Args:
        recipe: a YAML file, or the name of a recipe that comes with guidon.
        out: the run's folder; left out: runs/NAME-OF-THE-RECIPE.
        sets: changes to the recipe, each section.key=value.
        budget: stop after this much time, for instance 90s, 20m, 1h30m.
        resume: go on with the run that is in the folder.
    """
    from guidon.app.progress import loading
    from guidon.app.recipes import find_recipe

    path = find_recipe(recipe)
    folder = Path("runs") / path.stem if out is None else out
    with loading("torch"):
        from guidon.app.classifier_plot import draw_report
        from guidon.training.calibrate import read_report, sentence
        from guidon.training.classifier_recipe import ClassifierRecipe
        from guidon.training.loop import train as run
    try:
        config = run(ClassifierRecipe.load(path, sets or ()), folder, resume=resume, budget=budget).config
    except KeyboardInterrupt:
        if (folder / "checkpoint").exists():
            raise KeyboardInterrupt("to go on from the last checkpoint, give the same command with --resume") from None
        raise
    if int(os.environ.get("RANK", 0)):  # one process of several speaks for all
        return
    account, report = config.training, read_report(folder)
    picture = draw_report(report, folder)
    print(
        f"trained {account['parameters']:,} parameters on {account['images']:,} images in {account['seconds']:.0f} s "
        f"({account['images_per_second']:,.0f} images/s), loss {account['loss']:.4f}\n"
        f"{sentence(report)} ({report.images:,} images that it was not trained on; {picture})\n"
        f"the classifier is in {folder / 'model'}"
    )
