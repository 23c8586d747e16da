"""``guidon train``: from a recipe to a model."""

from __future__ import annotations

import os
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
    from guidon.app.progress import loading
    from guidon.app.recipes import find_recipe

    path = find_recipe(recipe)
    folder = Path("runs") / path.stem if out is None else out
    with loading("torch"):
        from guidon.training.loop import train as run
        from guidon.training.recipe import load_recipe
    try:
        account = run(load_recipe(path, sets or ()), folder, resume=resume, budget=budget).config.training
    except KeyboardInterrupt:
        if (folder / "checkpoint").exists():
            raise KeyboardInterrupt("to go on from the last checkpoint, give the same command with --resume") from None
        raise
    if int(os.environ.get("RANK", 0)):  # one process of several speaks for all
        return
    print(
        f"trained {account['parameters']:,} parameters on {account['images']:,} images in {account['seconds']:.0f} s "
        f"({account['images_per_second']:,.0f} images/s), loss {account['loss']:.4f}\n"
        f"the model is in {folder / 'model'}; now: guidon sample {folder}"
    )
