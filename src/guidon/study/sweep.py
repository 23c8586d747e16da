"""Doing a sweep: which cells are still to be made, who makes them, and that each is stored as soon as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guidon.errors import BadValue, GuidonError, MissingFile, SaveFailed
from guidon.measure.observe import OnBlock
from guidon.study.bench import Bench, OnPrepare
from guidon.study.plan import Point, SweepPlan
from guidon.study.store import Cell, Store, Trial

OnCell = Callable[[Cell, int, int], None]
OnPlan = Callable[[Sequence["Job"], int], None]
OnFail = Callable[["Failure"], None]
Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")


@dataclass(frozen=True)
class Job:
    """A cell that is to be made.

    Args:
        key: of the cell.
        point: where it stands, and how its images are made.
        trial: what one image of it takes.
        done: the cell, where only figures are lacking.
    """

    key: str
    point: Point
    trial: Trial
    done: Cell | None = None


@dataclass(frozen=True)
class Failure:
    """What could not be done of a cell.

    Args:
        key: of the cell.
        point: where it stands.
        why: and what to do about it.
        figure: that could not be measured; empty: the cell could not be made.
    """

    key: str
    point: Point
    why: str
    figure: str = ""


def sweep(
    plan: SweepPlan,
    out: str | Path,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    device: str | None = None,
    cache: Path | None = None,
    on_prepare: OnPrepare | None = None,
    on_plan: OnPlan | None = None,
    on_cell: OnCell | None = None,
    on_block: OnBlock | None = None,
    on_fail: OnFail | None = None,
    bench: Bench | None = None,
) -> list[Cell]:
    """Make every cell of a plan that is not there yet, and return all of them in its order.

    A cell or a figure that fails does not keep the others from being made. Figures of another plan, which are not asked for any more,
    or are of another reference or network, are taken out: all that is in a folder can be compared.

    Args:
        plan: of the sweep.
        out: folder of the sweep; one that was begun is gone on with, and a cell in flight with the block that it had come to.
        engine: "local" makes one cell after the other in this process, "ray" several at once on all machines of a Ray cluster that
            share the folder.
        workers: of Ray; None: one for each GPU, or CPU where there are none.
        device: where the models run; None: the first GPU where there is one.
        cache: folder of what was seen of real images; None: the user's.
        on_prepare: called with (what, parts done, parts) before the first cell is made: of the bench, and of one image of each cell.
        on_plan: called with (what is to be done, cells) before the first is made.
        on_cell: called with (cell, cells done, cells) after each.
        on_block: called with (blocks done, blocks) of the cell in flight; not by Ray.
        on_fail: called with each `Failure`; None: they are raised together when all else is done.
        bench: of this plan and device, where one is there already.

    Raises:
        BadRecipe, BadValue, NotSupported: a cell cannot be made or measured; all of them are tried before the first is made. Or, without
            ``on_fail``, some could not be, and the others are there.
        CheckpointError: a model cannot be read.
        SaveFailed: the folder cannot be written.
    """
    store = Store(out)
    with store.alone():
        bench = bench or Bench(plan, device, cache, on_prepare)
        points = keyed(plan, bench)
        jobs = planned(points, bench, store)
        store.put_note("plan", bench.record())
        places = {key: point.axes for key, point in points.items()}
        store.arrange(places)
        order = list(places)
        for there in store.cells():
            current = bench.current(there)
            if current.figures.keys() != there.figures.keys():
                store.put(current, order.index(current.key))
        if on_plan is not None:
            on_plan(jobs, len(points))
        failures: list[Failure] = []
        fail, count = on_fail or failures.append, len(points) - len(jobs)
        for job, cell in _made(jobs, bench, store, engine, workers, on_block):
            if isinstance(cell, str):
                fail(Failure(job.key, job.point, cell))
                continue
            count += 1
            store.put(cell, order.index(cell.key))
            if on_cell is not None:
                on_cell(cell, count, len(points))
            for figure, why in cell.failed.items():
                fail(Failure(job.key, job.point, why, figure))
        if failures:
            raise BadValue(f"{told(failures)}\nall else is done, and is not done again")
        return store.cells()


def keyed(plan: SweepPlan, bench: Bench) -> dict[str, Point]:
    """Return every cell of a plan by its key; of two that turn out to have the same images the first."""
    points = plan.points()
    keys: dict[int, str] = {}
    for i in sorted(range(len(points)), key=lambda i: _models(points[i])):
        keys[i] = bench.key(points[i].setting)
    found: dict[str, Point] = {}
    for i, point in enumerate(points):
        found.setdefault(keys[i], point)
    return found


def planned(points: Mapping[str, Point], bench: Bench, store: Store | None) -> list[Job]:
    """Return what is to be done, those of one model together; each cell is tried with one image first.

    Args:
        points: the cells, by key.
        bench: that makes them.
        store: of finished cells and of trials; None: there are none.

    Raises:
        BadValue: some cells cannot be made or measured; a line for each kind of problem.
    """
    finished = (
        {} if store is None else {key: bench.current(cell) for key, cell in store.all_cells().items() if key in points}
    )
    pending = [
        (key, point)
        for key, point in points.items()
        if key not in finished or bench.lacks(finished[key]) or bench.lacks_images(finished[key])
    ]
    pending.sort(key=lambda item: _models(item[1]))
    jobs, wrong = [], list[Failure]()
    for count, (key, point) in enumerate(pending, 1):
        try:
            bench.check(point.setting)
            trial = None if store is None else store.trial(key)
            if trial is None:
                trial = bench.trial(point.setting)
                if store is not None:
                    store.put_trial(key, trial)
            jobs.append(Job(key, point, trial, finished.get(key)))
        except GuidonError as error:
            wrong.append(Failure(key, point, str(error)))
        bench.on_prepare("trying each cell", count, len(pending))
    if wrong:
        raise BadValue(told(wrong))
    return jobs


def made(job: Job, bench: Bench, store: Path, on_block: OnBlock | None = None) -> Cell:
    """Return the cell of a job, whose rows are kept in a sweep's folder."""
    if job.done is not None:
        return bench.remeasured(job.done, job.point.setting, on_block)
    return bench.make(job.key, job.point, Store.room_in(store, job.key), job.trial, on_block)


def attempted(job: Job, bench: Bench, store: Path, on_block: OnBlock | None = None) -> Cell | str:
    """Return the cell of a job, or why it cannot be made; raises only what no other cell could be made with."""
    try:
        return made(job, bench, store, on_block)
    except (SaveFailed, MissingFile):
        raise
    except GuidonError as error:
        return str(error)


def told(failures: Iterable[Failure]) -> str:
    """Return a line for each kind of failure, with the first of its cells."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        kinds.setdefault((failure.figure, failure.why), []).append(where(failure.point))
    return "\n".join(
        f"{f'{figure} of ' if figure else ''}cell {places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''}: {why}"
        for (figure, why), places in kinds.items()
    )


def where(point: Point) -> str:
    """Return where a cell stands, for people."""
    return ", ".join(f"{name}={label}" for name, label in point.axes.items()) or "of no axis"


def _made(
    jobs: list[Job], bench: Bench, store: Store, engine: Engine, workers: int | None, on_block: OnBlock | None
) -> Iterator[tuple[Job, Cell | str]]:
    if engine == "local":
        return ((job, attempted(job, bench, store.folder, on_block)) for job in jobs)
    from guidon.study.ray_engine import made_by_ray

    return made_by_ray(jobs, bench, store.folder, workers)


def _models(point: Point) -> tuple[str, float, str]:
    """Return what cells are sorted by, so that each model is loaded once."""
    setting = point.setting
    return setting.model, setting.average or 0.0, setting.weak or ""
