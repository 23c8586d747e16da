"""What the commands that train have in common: where a run goes, and what is said when it stops or ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guidon.app.progress import loading
from guidon.app.recipes import find_recipe

if TYPE_CHECKING:
    from guidon.training.run_recipe import RunRecipe


def run_training(
    kind: Literal["model", "classifier"],
    recipe: str,
    out: Path | None,
    sets: Sequence[str] | None,
    budget: str | None,
    resume: bool,
) -> Path | None:
    """Train what a recipe says and print an account of it.

    Args:
        kind: of recipe.
        recipe, out, sets, budget, resume: of the command line.

    Returns:
        The run's folder; None in every process but the first, which speaks for all.
    """
    path = find_recipe(recipe)
    folder = Path("runs") / path.stem if out is None else out
    with loading("torch"):
        import guidon.training.loop  # noqa: F401
        from guidon.training.classifier_recipe import ClassifierRecipe
        from guidon.training.recipe import Recipe
    return run((Recipe if kind == "model" else ClassifierRecipe).load(path, sets or ()), folder, budget, resume)


def run(recipe: RunRecipe[Any], folder: Path, budget: str | None, resume: bool) -> Path | None:
    """Train what a recipe says in a folder, and print an account of it; returns as `run_training` does."""
    from guidon.app.validation_plot import draw_validation
    from guidon.training.loop import train
    from guidon.training.validate import LOSSES, read_validation

    try:
        account = train(recipe, folder, resume=resume, budget=budget).config.training
    except KeyboardInterrupt:
        if (folder / "checkpoint").exists():
            raise KeyboardInterrupt("to go on from the last checkpoint, give the same command with --resume") from None
        raise
    if int(os.environ.get("RANK", 0)):
        return None
    print(
        f"trained {account['parameters']:,} parameters on {account['images']:,} images in {account['seconds']:.0f} s "
        f"({account['images_per_second']:,.0f} images/s), loss {account['loss']:.4f}"
    )
    if (folder / LOSSES).is_file():
        first, last = (read_validation(folder)[place] for place in (0, -1))
        print(
            f"on images that it was not trained on the loss went from {first.loss:.4f} to {last.loss:.4f} ({draw_validation(folder)})"
        )
    return folder
