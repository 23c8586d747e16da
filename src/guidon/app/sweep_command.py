"""``guidon sweep``: what guidance does, cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from guidon.errors import BadValue

if TYPE_CHECKING:
    from guidon.study.plan import SweepPlan
    from guidon.study.sweep import Failure

EXAMPLES = """Examples:

  guidon sweep sweeps/digits.yaml --dry-run        what it is, what it takes
  guidon sweep sweeps/digits.yaml                  do it, or go on with it
  guidon sweep mine.yaml -o out --set n=5000 "axes.w=[1, 2, 4]"
  guidon sweep mine.yaml -o /shared/out --engine ray      on every GPU"""


def sweep(
    plan: Path,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    sets: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative=())] = None,
    engine: Literal["local", "ray"] = "local",
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    device: str | None = None,
    dry_run: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Sample and measure a model at every setting of a plan.

    All cells have the same seeds. Each is stored as soon as it is finished:
    the same command goes on with a sweep that was stopped, however it was,
    and after a change of the plan makes what is new. Writes report.html, a
    page for a colleague, table.csv and table.json. A cell or a figure that
    fails is named at the end, and the others are made.

    Args:
        plan: a YAML file.
        out: the sweep's folder; left out: runs/sweep-NAME-OF-THE-PLAN.
        sets: changes to the plan, each key=value.
        engine: ray makes several cells at once, on all machines of a Ray cluster.
        workers: of Ray; left out: one for each GPU, or CPU where there are none.
        device: cpu, cuda, cuda:1; left out: the first GPU where there is one.
        dry_run: print the cells and what they take, and do nothing.
    """
    from guidon.app.progress import loading

    with loading("the plan"):
        from guidon.app.models import device_of
        from guidon.study.plan import SweepPlan

        read = SweepPlan.load(plan, sets or ())
        where = str(device_of(device))
    folder = out or Path("runs") / f"sweep-{plan.stem}"
    if dry_run:
        _rehearse(read, folder, where)
        return
    with loading("reports"):
        from guidon.app.sweep_bars import Bars
        from guidon.app.sweep_table import print_cells
        from guidon.study.report import write_report
        from guidon.study.sweep import sweep as do
        from guidon.study.sweep import told
        from guidon.study.table import write_tables

    failures: list[Failure] = []

    def on_fail(failure: Failure) -> None:
        failures.append(failure)
        bars.failed(failure)

    with Bars() as bars:
        try:
            cells = do(
                read,
                folder,
                engine=engine,
                workers=workers,
                device=where,
                on_prepare=bars.prepare,
                on_plan=bars.plan,
                on_cell=bars.cell,
                on_block=bars.block,
                on_fail=on_fail,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on where it stopped") from None
    if cells:
        print_cells(cells)
        paths = [write_report(folder), *write_tables(folder, cells)]
        print(f"wrote {', '.join(map(str, paths))}")
    if failures:
        raise BadValue(f"{told(failures)}\nall else is done; mend this, and the same command does the rest")


def _rehearse(plan: SweepPlan, folder: Path, device: str) -> None:
    from guidon.app.sweep_bars import Bars
    from guidon.app.sweep_table import print_jobs
    from guidon.study.bench import Bench
    from guidon.study.store import FILE, Store
    from guidon.study.sweep import keyed, planned

    store = Store(folder) if (folder / FILE).is_file() else None
    with Bars() as bars:
        bench = Bench(plan, device, on_prepare=bars.prepare)
        points = keyed(plan, bench)
        jobs = planned(points, bench, store)
    print_jobs(points, jobs, {} if store is None else store.all_cells())
