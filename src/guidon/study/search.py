"""Trials of settings, each led by those before it, and the log of them."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from guidon.checkpoints.atomic import write_text
from guidon.errors import GuidonError, MissingFile, NotSupported, SaveFailed
from guidon.measure.observe import OnBlock
from guidon.study.axes import Range, as_number
from guidon.study.bench import Bench
from guidon.study.goals import Limit, Objective, excess, value_of
from guidon.study.plan import Point, SweepPlan
from guidon.study.store import Cell, Store
from guidon.study.sweep import made, planned

LOG = "trials.jsonl"
OnTry = Callable[[int, int, Cell | None], None]


def searched(
    plan: SweepPlan,
    bench: Bench,
    store: Store,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    trials: int,
    seed: int,
    on_try: OnTry | None,
    on_block: OnBlock | None,
) -> list[Cell]:
    """Try as many settings of a plan's axes as are asked for, and return the cells; the arguments are those of `tune`.

    Raises:
        NotSupported: Optuna is not installed.
        GuidonError: no trial could be made; the last one's.
    """
    optuna = _optuna()
    store.put_note("plan", bench.record())
    store.arrange({})
    with _quiet(optuna):
        sampler = optuna.samplers.TPESampler(
            seed=seed, constraints_func=(lambda trial: (trial.user_attrs["excess"],)) if limits else None
        )
        study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(objectives))
    write_text(store.folder / LOG, "")
    cells: dict[str, Cell] = {}
    failure: GuidonError | None = None
    for number in range(trials):
        with _quiet(optuna):
            trial = study.ask()
            labels, values = _chosen(trial, plan)
        used: set[str] = set()
        cell: Cell | None = None
        losses, said = [math.nan], ""
        try:
            setting = plan.setting(values, used).plain()
            labels = {name: label for name, label in labels.items() if name in used}
            cell = _cell(Point(labels, setting), bench, store, len(cells), on_block)
            losses = [objective.loss(cell) for objective in objectives]
            cells.setdefault(cell.key, cell)
            trial.set_user_attr("excess", excess(cell, limits))
            said = "; ".join(f"{key}: {why}" for key, why in cell.failed.items())
        except (SaveFailed, MissingFile):
            raise
        except GuidonError as error:
            said, failure = str(error), error
        with _quiet(optuna):
            failed = optuna.trial.TrialState.FAIL if any(map(math.isnan, losses)) else None
            study.tell(trial, None if failed else losses, state=failed)
        with (store.folder / LOG).open("a") as log:
            log.write(log_line(number, labels, cell, objectives, limits, said))
        if on_try is not None:
            on_try(number + 1, trials, cell)
    if not cells and failure is not None:
        raise failure
    return list(cells.values())


def _cell(point: Point, bench: Bench, store: Store, place: int, on_block: OnBlock | None) -> Cell:
    """Return the cell of a trial, made unless it is there."""
    key = bench.key(point.setting)
    there = store.all_cells().get(key)
    jobs = planned({key: point}, bench, store)
    if jobs:
        cell = made(jobs[0], bench, store.folder, on_block)
    else:
        assert there is not None
        cell = bench.current(there)
    if any(other.key == key for other in store.cells()):  # tried before, by way of another name
        return cell
    cell = replace(cell, axes=point.axes)
    store.put(cell, place)
    return cell


def _chosen(trial: Any, plan: SweepPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the names and the values that a trial suggests on every axis."""
    labels, values = {}, {}
    for name, axis in plan.read_axes().items():
        if isinstance(axis, Range):
            log = axis.spacing == "log"
            if axis.whole:
                number: float = trial.suggest_int(name, math.ceil(axis.low), math.floor(axis.high), log=log)
            else:
                number = as_number(trial.suggest_float(name, axis.low, axis.high, log=log), 3)
            labels[name] = values[name] = number
        else:
            index = trial.suggest_categorical(name, range(len(axis.values)))
            labels[name], values[name] = axis.values[index]
    return labels, values


def log_line(
    number: int,
    labels: dict[str, Any],
    cell: Cell | None,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    said: str = "",
) -> str:
    """Return a line of the log: what was tried, and what came of it."""
    entry: dict[str, Any] = {"trial": number, "axes": labels}
    if cell is not None:
        values = {key: value_of(cell, key) for key in keys_of(objectives, limits)}
        entry |= {"cell": cell.key, "values": values}
        entry |= {"allowed": excess(cell, limits) == 0}
    return json.dumps(entry | ({"failed": said} if said else {})) + "\n"


def keys_of(objectives: Sequence[Objective], limits: Sequence[Limit]) -> list[str]:
    """Return the figures and costs that a search is about."""
    return list(dict.fromkeys([*(objective.key for objective in objectives), *(limit.key for limit in limits)]))


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep Optuna from writing of each trial, and of what is new in it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise NotSupported(
            "guidon tune needs Optuna; pip install 'guidon[tune]', or try every setting: --grid"
        ) from error
    return optuna
