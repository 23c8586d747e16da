"""The cells of a sweep, several at once, on the machines of a Ray cluster that share the folder of the sweep.

Workers write the rows of their cells into that folder; the process that began the sweep alone writes the file of cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidon.errors import GuidonError, NotSupported
from guidon.study.bench import Bench
from guidon.study.plan import SweepPlan
from guidon.study.store import Cell

if TYPE_CHECKING:
    from guidon.study.sweep import Job


class Worker:
    """Makes cells in a process of its own, with models and networks that it opens once."""

    def __init__(self, plan: SweepPlan, folder: Path, device: str | None, cache: Path | None) -> None:
        self.bench, self.folder = Bench(plan, device, cache), folder

    def make(self, job: Job) -> Cell:
        """Return the cell of a job."""
        from guidon.study.sweep import made

        return made(job, self.bench, self.folder)


def made_by_ray(jobs: Sequence[Job], bench: Bench, folder: Path, workers: int | None = None) -> Iterator[Cell]:
    """Yield the cells of jobs as they are finished; what a worker is told to refuse is raised here.

    Args:
        jobs: to do.
        bench: whose plan, device and cache every worker has.
        folder: of the sweep, the same on every machine.
        workers: at once; None: one for each GPU, or CPU where there are none.

    Raises:
        NotSupported: Ray is not installed.
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
        waiting, busy = list(jobs), dict[Any, Any]()
        for actor in actors:
            busy[actor.make.remote(waiting.pop(0))] = actor
        while busy:
            (finished,), _ = ray.wait(list(busy), num_returns=1)
            actor = busy.pop(finished)
            if waiting:
                busy[actor.make.remote(waiting.pop(0))] = actor
            try:
                yield ray.get(finished)
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
    kind = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)
    return [kind.remote(bench.plan, folder, device, bench.cache) for _ in range(count)]


def _room(ray: Any) -> int:
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) or resources.get("CPU", 1)))
