"""The report of a sweep: one HTML file with its data, its images and the script that draws them, which needs nothing but itself."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import inspect
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

from guidon._version import __version__
from guidon.checkpoints.atomic import write_text
from guidon.errors import DataError
from guidon.measure.metric import Wanted
from guidon.study.axes import is_number
from guidon.study.columns import Column, along, as_json, axes, best, coloured, columns, common, lines, shown
from guidon.study.pareto import COLORS, WIDE, trades
from guidon.study.sprites import data_url, sprites
from guidon.study.store import Cell, Store

REPORT = "report.html"
FIRST = 8  # images that a command makes again where each is told something else
METHOD = (
    "The range beside a figure is the middle part of what bootstrap samples give, images drawn from the cell's own with replacement, "
    "shifted by what drawing some of them twice adds on average. The reference is not drawn anew. A range says how sure a figure is of "
    "these weights and this reference, not how another training run would do. Distances to a reference grow as images get fewer: "
    "compare figures of one n only."
)
SAME = "Images are of the same seeds in every cell: what differs is what the axes say."


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a sweep and return where it is; strips in it (``film*.png``) are put in.

    Raises:
        MissingFile: the folder holds no sweep.
        DataError: no cell is finished.
        SaveFailed: it cannot be written.
    """
    store = Store.existing(folder)
    cells = store.cells()
    if not cells:
        raise DataError(f"{folder} has no finished cell; go on with the sweep first")
    films = [
        {"about": path.stem.removeprefix("film-"), "image": data_url("png", path.read_bytes())}
        for path in sorted(Path(folder).glob("film*.png"), key=lambda path: path.stem)
    ]
    write_text(Path(folder) / REPORT, page(report_data(cells, store.note("plan") or {}, films)))
    return Path(folder) / REPORT


def page(data: Mapping[str, Any]) -> str:
    """Return the page of some data; nothing in it is taken for markup."""
    template = resources.files("guidon.study").joinpath(REPORT).read_text()
    script = template[template.rindex("<script>") + len("<script>") : template.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = json.dumps(as_json(data), allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    parts = {"title": escape(str(data["title"])), "digest": f"sha256-{digest}", "data": text}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def report_data(
    cells: Sequence[Cell], plan: Mapping[str, Any], films: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    """Return all that the page shows.

    Args:
        cells: of a sweep, at least one.
        plan: what was asked for.
        films: strips, each an ``about`` and an ``image``, a data URL.
    """
    cells = [cell if cell.axes else dataclasses.replace(cell, axes={"cell": "the only one"}) for cell in cells]
    found, ways = columns(cells), axes(cells)
    drawn, index = lines(cells), {id(cell): i for i, cell in enumerate(cells)}
    names = list(dict.fromkeys(line.name for line in drawn))
    hues = {index[id(cell)]: names.index(line.name) for line in drawn for cell in line.cells}
    tile, pictures = sprites(cells)
    models = sorted({str(cell.settings.get("model")) for cell in cells})
    spread = " × ".join(f"{name} ({len(values)})" for name, values in ways.items() if len(values) > 1)
    run = along(cells)
    return {
        "title": f"Guidance of {', '.join(models)}",
        "lead": f"{len(cells)} cell{'s' if len(cells) > 1 else ''}{f': {spread}' if spread else ''}.",
        "paired": SAME if common([(cell.settings.get("seed"), cell.settings.get("n")) for cell in cells]) else "",
        "facts": _facts(cells, plan, found),
        "axes": [
            {
                "name": name,
                "values": [shown(value) for value in values],
                "numbers": list(values) if all(is_number(value) for value in values) else None,
            }
            for name, values in ways.items()
        ],
        "columns": [{"key": c.key, "title": c.title, "label": c.label, "better": c.better} for c in found],
        "cells": [
            {
                "axes": [values.index(cell.axes[name]) if name in cell.axes else None for name, values in ways.items()],
                "values": [_values(column, cell) for column in found],
                "n": max((figure.n for figure in cell.figures.values()), default=cell.cost.images),
                "hue": hues[i],
                "command": command(cell),
                "images": pictures[i],
                "count": tile["count"] if tile is not None and pictures[i] else 0,
            }
            for i, cell in enumerate(cells)
        ],
        "lines": [[index[id(cell)] for cell in line.cells] for line in drawn],
        "names": names,
        "colors": COLORS,
        "wide": WIDE,
        "along": None if run is None else f"a{list(ways).index(run)}",
        "pair": _first_pair(found, run, list(ways)),
        "sheet": _first_sheet(cells, list(ways)),
        "tile": tile,
        "films": list(films),
        "best": _best(cells, found),
        "metrics": [_described(column, cells, plan) for column in found if not column.cost],
        "caption": _caption(cells),
        "method": METHOD,
        "made": f"Made by guidon {__version__}. This page is one file and loads nothing.",
    }


def command(cell: Cell) -> str:
    """Return the command line that makes the images of a cell again, or the first of them where each is told something else."""
    settings = cell.settings
    words = ["guidon", "sample", str(settings["model"])]
    for name in ("rule", "solver", "grid", "steps", "temperature", "weak", "seed"):
        if settings.get(name) is not None:
            words += [f"--{name}", str(settings[name])]
    notes = []
    if settings.get("average") is not None:
        notes.append(f"with the average of relative length {settings['average']:g} of the run's weights")
    if settings.get("precision") not in (None, "fp32"):
        words += ["--precision", str(settings["precision"])]
    n, told = int(settings.get("n") or cell.cost.images), settings.get("told")
    first = list(takewhile(lambda text: text is not None, told or ()))[: min(FIRST, n)]
    if told and not first:
        notes.append("told nothing, which a model of classes can be asked for in Python only: told=[None]")
    if first:
        words += ["--prompt" if any(" " in str(text) for text in first) else "--label", *map(str, first), "--n", "1"]
        if len(first) < n:
            notes.append(f"the first {len(first)} of its {n:,} images")
    else:
        words += ["--n", str(n)]
    if negative := [str(text) for text in settings.get("negative") or () if text is not None]:
        words += ["--negative", *negative]
    if None in (settings.get("negative") or ()):
        notes.append("nothing to steer away from for some of them, which can be asked for in Python only")
    return shlex.join(words) + (f"  # {', '.join(notes)}" if notes else "")


def best_cells(cells: Sequence[Cell], found: Sequence[Column]) -> list[tuple[Cell, list[Column]]]:
    """Return the cells that are best in a figure, each once, and in which; the first cell where no figure tells a better one."""
    wins: dict[str, tuple[Cell, list[Column]]] = {}
    for column in found:
        for top in [] if column.cost else best(cells, column)[:1]:
            wins.setdefault(top.key, (top, []))[1].append(column)
    return list(wins.values()) or [(cells[0], [])]


def place(cell: Cell) -> str:
    """Return where a cell stands on its axes."""
    return ", ".join(f"{name}={shown(value)}" for name, value in cell.axes.items()) or "the only cell"


def _best(cells: Sequence[Cell], found: Sequence[Column]) -> list[dict[str, str]]:
    found_best = []
    for cell, won in best_cells(cells, found):
        values = ", ".join(
            f"{column.title} {point.value:.4g}" for column in won if (point := column.of(cell)) is not None
        )
        why = f"{place(cell)}: best of {len(cells)} in {values}" if won else place(cell)
        found_best.append({"why": why, "command": command(cell)})
    return found_best


def _values(column: Column, cell: Cell) -> list[float | None] | None:
    point = column.of(cell)
    if point is None:
        return None
    return [point.value, None, None] if column.cost else [point.value, point.low, point.high]


def _facts(cells: Sequence[Cell], plan: Mapping[str, Any], found: Sequence[Column]) -> dict[str, str]:
    facts = {}
    for name in dict.fromkeys(name for cell in cells for name in cell.settings):
        value = common([cell.settings.get(name) for cell in cells])
        if value not in (None, [], ()):
            facts[name] = _listed(value)
    reference = plan.get("reference")
    if reference:
        facts["reference"] = ", ".join(f"{name} {value}" for name, value in reference.items() if value is not None)
    networks = {figure.network for cell in cells for figure in cell.figures.values() if figure.network}
    if networks:
        facts["features"] = f"{plan.get('features', 'network')} (fingerprint {', '.join(sorted(networks))})"
    return facts


def _listed(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return ", ".join(map(str, value[:4])) + (f", ... ({len(value):,} in all)" if len(value) > 4 else "")


def _described(column: Column, cells: Sequence[Cell], plan: Mapping[str, Any]) -> list[str]:
    """Return the row of a figure in the table of how it was measured."""
    metric = Wanted.parse(column.key, "").metric
    about, _, source = (inspect.getdoc(type(metric)) or "").partition("Source:")
    figures = [cell.figures[column.key] for cell in cells if column.key in cell.figures]
    n, real, network = (
        sorted({getattr(figure, name) for figure in figures}) for name in ("n", "n_reference", "network")
    )
    name = column.network or (str(plan.get("features", "")) if any(network) else "")
    return [
        column.title,
        column.better or "neither",
        " ".join(about.split("\n\n")[0].replace("``", "").split()),
        f"{name} ({', '.join(network)})" if any(network) else "none",
        ", ".join(f"{count:,}" for count in n),
        ", ".join(f"{count:,}" for count in real) if any(real) else "none",
        " ".join(source.split()),
    ]


def _caption(cells: Sequence[Cell]) -> str:
    figures = [figure for cell in cells for figure in cell.figures.values()]
    if not figures:
        return "Nothing was measured; costs only."
    counts, sure, draws = (sorted({getattr(f, name) for f in figures}) for name in ("n", "confidence", "resamples"))
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    made = f"{draws[0]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
    return (
        f"n = {n} images a cell. Bars and ranges: {sure[0]:.0%} intervals of {made} bootstrap draws. Dashed and ringed: the front, "
        "cells that no other equals in both and beats in one; it is of the figures as they stand, and where intervals overlap "
        "chance may have chosen."
    )


def _first_pair(found: Sequence[Column], run: str | None, ways: Sequence[str]) -> list[str]:
    """Return the scales that the plot begins with: the first trade, or else a figure along an axis."""
    keys = [column.key for column in found]
    if pairs := trades(found):
        return [f"c{keys.index(column.key)}" for column in pairs[0]]
    return [f"a{ways.index(run)}" if run is not None else f"c{keys.index('nfe')}", "c0"]


def _first_sheet(cells: Sequence[Cell], ways: Sequence[str]) -> list[str]:
    name = along(cells) or coloured(cells) or next(iter(ways), None)
    return ["images" if name is None else str(ways.index(name)), "images"]
