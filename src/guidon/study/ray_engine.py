"""The cells of a sweep, several at once, on the machines of a Ray cluster that share the folder of the sweep.

Workers write the rows of their cells into that folder; the process that began the sweep alone writes the file of cells. It also
trains the classifier that ``auto`` stands for, once, and puts it there: figures of two classifiers could not be compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidon.errors import BadValue, GuidonError, NotSupported
from guidon.study.bench import Bench
from guidon.study.plan import CLASSIFIER, SweepPlan
from guidon.study.store import Cell

if TYPE_CHECKING:
    from guidon.study.sweep import Job


class Worker:
    """Makes cells in a process of its own, with models and networks that it opens once."""

    def __init__(
        self, plan: SweepPlan, folder: Path, device: str | None, cache: Path | None, classifier: Path | None
    ) -> None:
        self.bench, self.folder = Bench(plan, device, cache, classifier=classifier), folder

    def make(self, job: Job) -> Cell | str:
        """Return the cell of a job, or why it cannot be made."""
        from guidon.study.sweep import attempted

        return attempted(job, self.bench, self.folder)


def made_by_ray(
    jobs: Sequence[Job], bench: Bench, folder: Path, workers: int | None = None
) -> Iterator[tuple[Job, Cell | str]]:
    """Yield jobs as they are finished, each with its cell, or with why that cannot be made.

    Args:
        jobs: to do.
        bench: whose plan, device and cache every worker has.
        folder: of the sweep, the same on every machine.
        workers: at once; None: one for each GPU, or CPU where there are none.

    Raises:
        NotSupported: Ray is not installed.
        BadValue: a worker measured with another reference or network than this process has.
    """
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ImportError as error:
        raise NotSupported("--engine ray needs Ray; pip install 'guidon[ray]', or leave --engine out") from error
    began = not ray.is_initialized()
    if began:
        ray.init(log_to_driver=False)
    try:
        actors = _workers(ray, bench, folder.resolve(), min(len(jobs), workers or _room(ray)))
        waiting = list(jobs)
        busy: dict[Any, tuple[Any, Job]] = {}

        def give(actor: Any) -> None:
            job = waiting.pop(0)
            busy[actor.make.remote(job)] = actor, job

        for actor in actors:
            give(actor)
        while busy:
            (finished,), _ = ray.wait(list(busy), num_returns=1)
            actor, job = busy.pop(finished)
            if waiting:
                give(actor)
            try:
                yield job, _alike(ray.get(finished), bench)
            except RayTaskError as error:
                if isinstance(error.cause, GuidonError):
                    raise error.cause from error
                raise
    finally:
        if began:
            ray.shutdown()


def _workers(ray: Any, bench: Bench, folder: Path, count: int) -> list[Any]:
    gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / count) if count else 0
    device = None if gpus else str(bench.device)
    classifier = None if bench.classifier is None else folder / CLASSIFIER
    if bench.classifier is not None and classifier is not None:
        shutil.copytree(bench.classifier.folder, classifier, dirs_exist_ok=True)
    kind = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)
    return [kind.remote(bench.plan, folder, device, bench.cache, classifier) for _ in range(count)]


def _alike(cell: Cell | str, bench: Bench) -> Cell | str:
    """Return a cell whose figures can stand beside those of this process."""
    if isinstance(cell, Cell):
        other = [wish.key for wish in bench.wanted if cell.against.get(wish.key, "") not in ("", bench.against(wish))]
        if other:
            raise BadValue(
                f"a worker measured {', '.join(other)} with another reference or network than the process that began the sweep has; give"
                " all machines the same files, and do the sweep again"
            )
    return cell


def _room(ray: Any) -> int:
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) or resources.get("CPU", 1)))
