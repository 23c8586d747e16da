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
  guidon info out/latents.safetensors       the record of latents
  guidon info runs/digits                   a run and its model
  guidon info samples/sheet.png --json      for other programs"""


def info(
    path: Path, *, as_json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False
) -> None:
    """Show how an image was made, or what a model or a training run is.

    Args:
        path: an image or latents that guidon wrote, a model's folder, or a run's folder.
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
    if "accuracy" in facts:
        facts["accuracy"] = _accuracy(facts["accuracy"])
    for key, value in facts.items():
        _add(table.add_row, Text, key, value)
    Output().print(table)


def _facts(path: Path) -> dict[str, Any]:
    """Return what is known about an image, latents, a model or a run."""
    if not path.exists():
        raise MissingFile(f"there is no {path}; give an image, a model's folder or a run's folder")
    if path.suffix == ".safetensors" and path.is_file():
        return _latents(path)
    if path.is_file():
        from guidon.app.png import read_record

        return read_record(path)
    if (path / "config.json").is_file():
        return _model(path)
    inside = path / "model"
    if (inside / "config.json").is_file():
        report = path / "accuracy.json"
        return {"run": str(path), **_model(inside), **({"accuracy": _json(report)} if report.is_file() else {})}
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
    shapes, _ = _header(weights)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return {"model": str(folder), "parameters": parameters, **_json(folder / "config.json")}


def _latents(path: Path) -> dict[str, Any]:
    """Return the record of latents, and their shape (N, C, H, W)."""
    shapes, notes = _header(path)
    if "guidon" not in notes or "x" not in shapes:
        raise DataError(
            f"{path} carries no guidon record; give latents that `guidon sample` wrote, or a model's folder"
        )
    return {"latents": shapes["x"], **json.loads(notes["guidon"])}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise DamagedCheckpoint(f"{path} is not readable JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"{path} is a JSON file of another kind; copy it again")
    return content


def _header(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return the shape of each tensor of a safetensors file, and its notes, without reading a tensor."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  it is no mapping
            return shapes, file.metadata() or {}
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{path} is cut short or is not a safetensors file ({error}); copy it again") from error


def _accuracy(report: dict[str, Any]) -> str:
    """Return what a classifier's accuracy.json says, in a line."""
    said = ", ".join(f"{100 * row['accuracy']:.0f} at {_shown(row['noise_level'])}" for row in report["rows"])
    return f"{said} (% at a noise level; chance {100 * report['chance']:.0f})"


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
    if isinstance(value, float):  # one written with few digits as it is
        return (
            f"{value:g}" if float(f"{value:g}") == value else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        )
    return "-" if value is None else str(value)


def _list(values: list[Any]) -> str:
    """Return a list for people: numbers, or names that are, that count up as "7 to 22", repetitions as "cat (8 times)"."""
    if len(values) > 2 and str(values[0]).isdecimal():
        numbers = range(int(values[0]), int(values[0]) + len(values))
        if values in ([*numbers], [*map(str, numbers)]):
            return f"{values[0]} to {values[-1]}"
    parts: list[str] = []
    for value, same in itertools.groupby(values):
        count = len(list(same))
        parts += [f"{_shown(value)} ({count} times)"] if count > 2 else [_shown(value)] * count
    return ", ".join(parts)
