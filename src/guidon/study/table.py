"""The table of a sweep, as files: a row for each cell."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guidon.checkpoints.atomic import write_text
from guidon.study.columns import as_json, axes, columns, shown
from guidon.study.store import Cell

CSV, JSON = "table.csv", "table.json"


def write_tables(folder: Path, cells: Sequence[Cell]) -> tuple[Path, Path]:
    """Write the cells of a sweep as ``table.csv`` and ``table.json`` and return where they are; raises `SaveFailed`."""
    stream = io.StringIO()
    rows = list(table(cells))
    writer = csv.DictWriter(stream, list(rows[0]) if rows else ["key"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / CSV, stream.getvalue())
    accounts = [account(cell) for cell in cells]
    write_text(folder / JSON, json.dumps(as_json(accounts), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return folder / CSV, folder / JSON


def table(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return a row for each cell: its place on the axes, each figure with its interval, its costs, its settings' key."""
    found, ways = columns(cells), list(axes(cells))
    rows = []
    for cell in cells:
        row: dict[str, Any] = {name: shown(cell.axes[name]) if name in cell.axes else "" for name in ways}
        for column in found:
            point = column.of(cell)
            row[column.key] = "" if point is None else point.value
            if not column.cost:
                row |= {f"{column.key} low": "", f"{column.key} high": ""}
                row |= {} if point is None else {f"{column.key} low": point.low, f"{column.key} high": point.high}
        rows.append({**row, "images": cell.cost.images, "steps": cell.settings.get("steps"), "cell": cell.key})
    return rows


def account(cell: Cell) -> dict[str, Any]:
    """Return everything about a cell that JSON can hold."""
    figures = {key: dataclasses.asdict(figure) for key, figure in cell.figures.items()}
    cost = dataclasses.asdict(cell.cost)
    return {"cell": cell.key, "axes": cell.axes, "settings": cell.settings, "figures": figures, "cost": cost}
