"""Finding recipes: by path, or by the name of one that comes with guidon."""

from __future__ import annotations

import re
from pathlib import Path

from guidon.errors import MissingFile, UnknownName

_PACKAGE = Path(__file__).resolve().parent.parent
SUFFIXES = (".yaml", ".yml")


def bundled_recipes(kind: str | None = None) -> dict[str, Path]:
    """Return the recipes that come with guidon, by name: from the installed package, or from a checkout's ``recipes/``.

    Args:
        kind: those of this kind only, "model" or "classifier".
    """
    for folder in (_PACKAGE / "recipes", _PACKAGE.parent.parent / "recipes"):
        if folder.is_dir():
            found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
            return {name: path for name, path in found.items() if kind in (None, recipe_kind(path))}
    return {}


def recipe_kind(path: Path) -> str:
    """Return what a recipe is for, as its ``kind:`` says: "classifier", or "model" where it says nothing."""
    said = re.search(r"^kind:\s*[\"']?(\w+)", path.read_text(), re.MULTILINE)
    return said[1] if said else "model"


def resuming(folder: Path) -> str:
    """Return the command that goes on with the unfinished run in a folder."""
    command = "train-classifier" if recipe_kind(folder / "recipe.yaml") == "classifier" else "train"
    return f"guidon {command} {folder / 'recipe.yaml'} -o {folder} --resume"


def find_recipe(name: str) -> Path:
    """Return the file that a recipe's path or name stands for; a file that exists wins over a name.

    Raises:
        MissingFile: a path without a file.
        UnknownName: neither a file nor a recipe of guidon's.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        known = ", ".join(bundled_recipes()) or "none"
        raise MissingFile(
            f"there is no recipe file {name}; check the path, or name one that comes with guidon: {known}"
        )
    if name not in bundled_recipes():
        raise UnknownName("recipe", name, bundled_recipes())
    return bundled_recipes()[name]


def first_comment(path: Path) -> str:
    """Return the first line of a recipe's leading comment, or nothing."""
    lines = path.read_text().splitlines()
    return lines[0].lstrip("# ").strip() if lines and lines[0].startswith("#") else ""
