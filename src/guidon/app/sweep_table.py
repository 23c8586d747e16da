"""The tables of sweeps on a terminal: what was found, and what is to be done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from guidon.app.console import Output
from guidon.app.measure_table import too_few
from guidon.errors import MissingFile
from guidon.study.columns import Point as Value
from guidon.study.columns import axes, best, columns, shown
from guidon.study.goals import value_of
from guidon.study.plan import Point
from guidon.study.store import Cell
from guidon.study.sweep import Job
from guidon.study.tune import Tuned

WIDTH = 240  # of a table that is piped


def print_cells(cells: Sequence[Cell]) -> None:
    """Print every cell with its figures and costs, the best of each column with a star."""
    found, ways = columns(cells), [name for name, values in axes(cells).items() if len(values) > 1]
    table = _table([*ways, *(column.title if not column.cost else _short(column.key) for column in found)])
    stars = {column.key: {cell.key for cell in best(cells, column)} for column in found}
    for cell in cells:
        texts = [Text(shown(cell.axes[name]) if name in cell.axes else "") for name in ways]
        for column in found:
            star = cell.key in stars[column.key] and not column.cost
            texts.append(Text(said(column.of(cell), column.cost) + (" *" if star else "  "), "bold" if star else ""))
        table.add_row(*texts)
    _print(table)
    print(
        f"{len(cells)} cells of {_counts(cells)} images each; ±: half of the 95 % interval; *: the best of its column"
    )
    for line in dict.fromkeys(line for cell in cells for line in _too_few(cell)):
        print(line)


def _too_few(cell: Cell) -> list[str]:
    try:
        return too_few(cell.figures, cell.rows())
    except MissingFile:  # its rows were deleted
        return []


def print_jobs(points: Mapping[str, Point], jobs: Sequence[Job], finished: Mapping[str, Cell]) -> None:
    """Print every cell with its steps and evaluations, and how long those that are to be made will take at the most."""
    trials = {job.key: job for job in jobs}
    ways = list(dict.fromkeys(name for point in points.values() for name in point.axes))
    table = _table([*ways, "rule in full", "steps", "evaluations", ""])
    for key, point in points.items():
        job, cell = trials.get(key), finished.get(key)
        steps = cell.settings["steps"] if cell is not None else job.trial.steps if job is not None else ""
        nfe = cell.cost.nfe if cell is not None else job.trial.nfe if job is not None else math.nan
        state = "to make" if cell is None else "done" if job is None else "to measure"
        places = [shown(point.axes[name]) if name in point.axes else "" for name in ways]
        table.add_row(*places, point.setting.rule or "the model's", str(steps), f"{nfe:g}", state)
    _print(table)
    new = [job for job in jobs if job.done is None]
    work = sum(job.trial.nfe * job.point.setting.n for job in new)
    rates = [cell.cost.seconds / (cell.cost.nfe * cell.cost.images) for cell in finished.values() if cell.cost.nfe]
    alone = [job.trial.seconds / job.trial.nfe for job in new if job.trial.nfe]
    print(f"{len(points)} cells: {len(points) - len(jobs)} done, {len(new)} to make, {len(jobs) - len(new)} to measure")
    if new and (rates or alone):
        by = "by the cells that are done" if rates else "at the most, by the time of one image alone"
        seconds = work * (sum(rates) / len(rates) if rates else min(alone))
        print(
            f"sampling takes about {duration(seconds)} ({by}), {work:,.0f} network evaluations; measuring comes on top"
        )


def said(value: Value | None, cost: bool = False) -> str:
    """Return a number with half of its interval."""
    if value is None:
        return "-"
    if cost or not math.isfinite(value.high - value.low):
        return f"{value.value:.4g}"
    half = (value.high - value.low) / 2
    digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
    return f"{value.value:.{digits}f} ±{half:.{digits}f}"


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _short(key: str) -> str:
    return {"nfe": "evaluations", "seconds": "s/image", "peak_memory": "GiB"}[key]


def _counts(cells: Sequence[Cell]) -> str:
    return " or ".join(f"{n:,}" for n in sorted({cell.cost.images for cell in cells}))


def _table(names: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name)
    return table


def _print(table: Table) -> None:
    console = Output()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)


def print_front(found: Tuned) -> None:
    """Print what a search found, in words."""
    goals = ", ".join(
        f"{objective.key} as {'high' if objective.better == 'higher' else 'low'} as possible"
        for objective in found.objectives
    )
    within = f" within {', '.join(map(str, found.limits))}" if found.limits else ""
    print(f"{len(found.cells)} different settings tried: {goals}{within}")
    for cell in found.best:
        values = ", ".join(f"{key} {value_of(cell, key):.4g}" for key in found.keys)
        settings = cell.settings
        how = f"{settings['rule']}, {settings['solver']} in {settings['steps']} steps on {settings['grid']}"
        print(f"{'best' if len(found.best) == 1 else 'on the front'}: {how}: {values}")
