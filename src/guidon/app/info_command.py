"""``guidon info``: how an image was made, what a model is, how far a run has come."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from guidon.errors import DamagedCheckpoint, DataError, MissingFile

EXAMPLES = """Examples:

  guidon info samples/0000-3.png            the record of an image
  guidon info runs/digits                   a run and its model
  guidon info samples/sheet.png --json      for other programs"""


def info(
    path: Path, *, as_json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False
) -> None:
    """Show how an image was made, or what a model or a training run is.

    Args:
        path: an image that guidon wrote, a model's folder, or a run's folder.
        as_json: print all of it as JSON.
    """
    facts = _facts(path)
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    from guidon.app.console import Output

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        _add(table.add_row, Text, key, value)
    Output().print(table)


def _facts(path: Path) -> dict[str, Any]:
    """Return what is known about an image, a model or a run."""
    if not path.exists():
        raise MissingFile(f"there is no {path}; give an image, a model's folder or a run's folder")
    if path.is_file():
        from guidon.app.png import read_record

        return read_record(path)
    if (path / "config.json").is_file():
        return _model(path)
    inside = path / "model"
    if (inside / "config.json").is_file():
        return {"run": str(path), **_model(inside)}
    if (path / "recipe.yaml").is_file():
        from guidon.app.recipes import resuming

        return {"run": str(path), "state": f"unfinished; go on: {resuming(path)}"}
    raise DataError(
        f"{path} is neither a model (config.json, model.safetensors) nor a run (recipe.yaml); name a folder that is one"
    )


def _model(folder: Path) -> dict[str, Any]:
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise MissingFile(f"{folder} has no {weights.name}; copy the whole folder again")
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise DamagedCheckpoint(f"{folder / 'config.json'} is not readable JSON ({error}); copy it again") from error
    if not isinstance(config, dict):
        raise DamagedCheckpoint(f"{folder / 'config.json'} does not hold a model's config; copy it again")
    return {"model": str(folder), "parameters": _parameters(weights), **config}


def _parameters(weights: Path) -> int:
    """Return how many numbers a safetensors file holds, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        raise DamagedCheckpoint(
            f"{weights} is cut short or is not a safetensors file ({error}); copy it again"
        ) from error
    return sum(math.prod(shape) for shape in shapes)


def _add(add_row: Any, text: Any, key: str, value: Any, depth: int = 0) -> None:
    indent = "  " * depth
    if isinstance(value, Mapping) and value:
        add_row(text(f"{indent}{key}"), "")
        for inner, part in value.items():
            _add(add_row, text, str(inner), part, depth + 1)
        return
    add_row(text(f"{indent}{key}"), text(_shown(value)))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return _list(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 100_000:
        return f"{value:,}"
    return "-" if value is None else str(value)


def _list(values: list[Any]) -> str:
    """Return a list for people: numbers that count up as "7 to 22", repetitions as "cat (8 times)"."""
    if len(values) > 2 and isinstance(values[0], int) and values == list(range(values[0], values[0] + len(values))):
        return f"{values[0]} to {values[-1]}"
    parts: list[str] = []
    for value, same in itertools.groupby(values):
        count = len(list(same))
        parts += [f"{_shown(value)} ({count} times)"] if count > 2 else [_shown(value)] * count
    return ", ".join(parts)
