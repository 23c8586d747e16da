"""``guidon train-classifier``: from a recipe to a classifier of noisy images, which can guide a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from guidon.training.calibrate import Report

EXAMPLES = """Examples:

  guidon train-classifier digits-classifier      a recipe that comes with guidon
  guidon train-classifier my.yaml -o runs/eyes   a recipe of your own
  guidon train-classifier my.yaml --set model.base=runs/mine model.process=null
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
    from guidon.app.training_run import run_training

    folder = run_training("classifier", recipe, out, sets, budget, resume)
    if folder is None:
        return
    from guidon.app.classifier_plot import draw_report
    from guidon.app.console import Output
    from guidon.training.calibrate import read_report

    report = read_report(folder)
    print(
        f"on {report.images:,} images that it was not trained on (chance is {100 * report.chance:.0f} %; "
        f"{draw_report(report, folder)}):"
    )
    Output().print(_table(report))
    print(f"the classifier is in {folder / 'model'}; now: guidon sample MODEL --classifier {folder}")


def _table(report: Report) -> Table:
    """Return how often a classifier is right at each noise level, and the temperature that fits it there."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("noise level", "accuracy", "temperature"):
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(f"{row.noise_level:.3g}", f"{100 * row.accuracy:.0f} %", f"{row.temperature:.3g}")
    return table
