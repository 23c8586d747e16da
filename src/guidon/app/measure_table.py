"""What ``guidon measure`` shows and writes: every figure with all that it depends on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from guidon._version import __version__
from guidon.app.console import Output
from guidon.app.pictures import free_paths
from guidon.checkpoints.atomic import write_text
from guidon.measure.estimate import Figure
from guidon.measure.metric import Wanted
from guidon.measure.metrics import Frechet
from guidon.measure.observe import Rows

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


def table(wanted: Sequence[Wanted], figures: Mapping[str, Figure], record: Mapping[str, Any]) -> None:
    """Print figures with their intervals, how many images they are of, and what saw them."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    columns: dict[str, list[str]] = {
        title: [] for title in ("", "figure", "interval", "images", "reference", "network")
    }
    for wish in wanted:
        figure = figures[wish.key]
        row = (
            wish.key + ARROWS[wish.metric.better],
            f"{figure.value:.4g}",
            "" if math.isnan(figure.low) else f"{figure.low:.4g} to {figure.high:.4g}",
            f"{figure.n:,}",
            f"{figure.n_reference:,}" if figure.n_reference else "",
            f"{wish.network} {figure.network[:6]}".strip(),
        )
        for column, text in zip(columns.values(), row, strict=True):
            column.append(text)
    filled = {title: texts for title, texts in columns.items() if any(texts)}
    for title in filled:
        shown.add_column(
            title, justify="left" if title in ("", "network") else "right", no_wrap=title != "network", overflow="fold"
        )
    for texts in zip(*filled.values(), strict=True):
        shown.add_row(*texts)
    output = Output()
    output.print(shown)
    for name in ("images", "reference"):
        if (told := record.get(name, {}).get("skipped")) is not None:
            output.print(f"{name}: {told}")


def too_few(figures: Mapping[str, Figure], rows: Rows) -> list[str]:
    """Return a line for each distance of covariances that is of fewer images than its network has features."""
    lines = []
    for key, figure in figures.items():
        name = next((name for name, mark in rows.observers.items() if mark and mark == figure.network), "")
        if isinstance(Wanted.parse(key, name).metric, Frechet) and f"{name}/features" in rows:
            width = rows[f"{name}/features"].shape[1]
            if figure.n < width:
                lines.append(
                    f"{figure.n:,} images are fewer than the {width:,} features: {key} says little; take 1000 or more"
                )
    return lines


def write_measured(
    folder: Path, wanted: Sequence[Wanted], figures: Mapping[str, Figure], record: Mapping[str, Any]
) -> Path:
    """Write figures and how they were measured to ``measure.json``, or ``measure-2.json`` where that is taken; return where."""
    (path,) = free_paths(folder, ["measure"], ".json")
    content = {
        wish.key: {"title": wish.metric.title, "better": wish.metric.better}
        | {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(figures[wish.key]).items()
        }
        | {"seen_by": wish.network or None}
        for wish in wanted
    }
    write_text(
        path, json.dumps({"guidon": __version__, "figures": content, **record}, indent=1, ensure_ascii=False) + "\n"
    )
    return path
