"""``guidon report``: the pictures and the page of a sweep."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from guidon.study.store import Cell

EXAMPLES = """Examples:

  guidon report sweeps/rules                 report.html, plots and sheets
  guidon report sweeps/rules --film 3        and how the 3 best cells came about

report.html is one file that loads nothing else: send it, or keep it in git."""


def report(
    folder: Path,
    *,
    film: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    device: str | None = None,
) -> None:
    """Write the report of a sweep anew: an interactive page, plots and sheets.

    report.html holds everything: a plot of any figure or cost against any other
    with the front and the intervals, every cell in a table, sheets of images, and
    the commands that make the best cells again. Beside it, for papers and slides:
    pareto-*.png and .svg, sheet-*.png. A sweep that is not finished has one, too.

    Args:
        folder: of the sweep, which guidon sweep wrote.
        film: sample so many of the best cells again, and show what the model believed of the images on the way, how far the
            branches were apart, and what guidance added; needs the models.
        device: of --film: cpu, cuda, cuda:1; left out: the first GPU where there is one.
    """
    started = time.perf_counter()
    from guidon.app.progress import loading

    with loading(str(folder)):
        from guidon.app.models import device_of
        from guidon.study.columns import columns
        from guidon.study.pareto import write_pareto
        from guidon.study.report import best_cells, write_report
        from guidon.study.sheet import write_sheets
        from guidon.study.store import Store

        cells = Store.existing(folder).cells()
        where = str(device_of(device))
    if film:
        for old in folder.glob("film-*.png"):
            old.unlink()
        for number, (cell, _) in enumerate(best_cells(cells, columns(cells))[:film], 1):
            write_film(cell, folder, number, where)
    page = write_report(folder)
    pictures = [*write_pareto(cells, folder), *write_sheets(cells, folder)]
    print(f"wrote {page} of {len(cells)} cells ({page.stat().st_size / 1e6:.1f} MB)")
    print(f"wrote {len(pictures)} pictures beside it, in {time.perf_counter() - started:.1f} s")


def write_film(cell: Cell, folder: Path, number: int, device: str) -> None:
    """Sample the first images of a cell again, and write how they came about: ``film-1-*.png``, the strip and the trace."""
    import io

    from guidon.app.models import open_model, open_weak
    from guidon.app.trace_plot import trace_figure
    from guidon.checkpoints.atomic import write_bytes
    from guidon.study.columns import slug
    from guidon.study.film import Film, film_sheet
    from guidon.study.report import place
    from guidon.training.grid import png_bytes
    from guidon.training.snapshots import reconstruct_model

    settings, strip = cell.settings, Film()
    if settings.get("average") is None:
        model, _ = open_model(settings["model"], device)
    else:
        model = reconstruct_model(settings["model"], settings["average"]).to(device)
    request = {
        name: settings[name]
        for name in ("rule", "solver", "grid", "steps", "temperature", "precision")
        if settings.get(name)
    }
    if settings.get("negative"):
        request["negative"] = list(settings["negative"])
    if settings.get("weak"):
        request["weak"] = open_weak(settings["weak"], model, device)
    told = settings.get("told")
    first = {"told": list(told)[: strip.images], "n": 1} if told else {"told": None, "n": strip.images}
    samples = model.sample(**first, seed=settings["seed"], trace=True, on_step=strip.on_step, **request)
    assert samples.trace is not None
    names = [label or f"seed {seed}" for label, seed in zip(samples.record["labels"], samples.seeds, strict=True)]
    title = f"{place(cell)}: the clean image that the model believed in, step by step"
    stem = f"film-{number}-{slug(place(cell))}"
    write_bytes(folder / f"{stem}.png", png_bytes(film_sheet({"": strip}, names, title).picture))
    stream = io.BytesIO()
    trace_figure(samples.trace.rows, place(cell)).savefig(stream, dpi=110)
    write_bytes(folder / f"{stem}-trace.png", stream.getvalue())
