"""``guidon train``: from a recipe to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

EXAMPLES = """Examples:

  guidon train digits                        a recipe that comes with guidon
  guidon train my.yaml -o runs/mine          a recipe of your own
  guidon train digits --set train.lr=5e-4 model.output=eps
  guidon train digits --budget 20m           a finished model after 20 minutes
  guidon train digits --resume               go on where it stopped

Recipes that come with guidon: guidon list recipes."""


def train(
    recipe: str,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    sets: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative=())] = None,
    budget: str | None = None,
    resume: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Train a model from a recipe.

    The run's folder gets checkpoints, sample grids (samples/), logs for TensorBoard
    (logs/) and in the end the model (model/). A run that was stopped, however it
    was, continues exactly with --resume.

    Args:
        recipe: a YAML file, or the name of a recipe that comes with guidon.
        out: the run's folder; left out: runs/NAME-OF-THE-RECIPE.
        sets: changes to the recipe, each section.key=value.
        budget: stop after this much time, for instance 90s, 20m, 1h30m.
        resume: go on with the run that is in the folder.
    """
    from guidon.app.training_run import run_training

    folder = run_training("model", recipe, out, sets, budget, resume)
    if folder is not None:
        print(f"the model is in {folder / 'model'}; now: guidon sample {folder}")
