"""``guidon compare``: two rules or two models on the same seeds."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from guidon.errors import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from guidon.study.compare import Comparison

EXAMPLES = """Examples:

  guidon compare runs/digits --rule "cfg(3)" "cfg(3) | apg" --reference digits
  guidon compare runs/a runs/b --reference data/cats     two models
  guidon compare runs/a runs/b --rule "cfg(2)" "cfg(4)"  each its own rule
  guidon compare runs/shapes --rule 2 6 --prompt "a red circle" "a blue square"
  guidon compare runs/a runs/b --metrics fid kid recall --features inception

What can be measured: guidon list metrics."""

ALONE = ("saturation", "contrast", "clipping")
BESIDE_REAL = ("fid", "precision", "recall")


def compare(
    model: str,
    other: str | None = None,
    *,
    rule: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    label: Annotated[
        list[str] | None, Parameter(name=["--label", "--class", "--prompt"], consume_multiple=True, negative=())
    ] = None,
    n: Annotated[int, Parameter(name=["--n", "-n"], validator=Number(gte=2))] = 500,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    solver: str | None = None,
    grid: str | None = None,
    steps: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    nfe: Annotated[float | None, Parameter(validator=Number(gte=1))] = None,
    negative: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    weak: str | None = None,
    metrics: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    reference: str | None = None,
    split: str = "train",
    features: str = "auto",
    resamples: Annotated[int, Parameter(validator=Number(gte=20))] = 1000,
    device: str | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("compare"),
) -> None:
    """Compare two rules or two models on the same seeds.

    Every image of A has a twin of B from the same noise, told the same. Each figure
    is measured on both; both are then drawn anew together, pair by pair, to see how
    large a difference chance makes. Writes compare.json and the sheet compare.png.
    Images that are in the folder already are not made again.

    Args:
        model: A, or with two rules both: a run's folder, a model's folder, or a Hugging Face id.
        other: B; left out: the same model under the second rule.
        rule: of A and of B, or one for both; left out: the model's own. A number w stands for cfg(w).
        label: classes or texts, repeated in turn; left out: every class in turn.
        n: images of each.
        seed: of the first image; the others count on from it.
        solver: how to go from noise to image; left out: the model's own.
        grid: where the steps lie; left out: the model's own.
        steps: number of steps; left out: the model's own.
        nfe: in place of steps: as many of them as take at most so many network evaluations an image.
        negative: classes or texts to steer away from.
        weak: a worse model to steer away from: a folder, a hub id, or self:0.1.
        metrics: what to measure, for instance fid, fid@dinov2, precision(5). Left out: saturation, contrast and
            clipping, and with a reference fid, precision and recall.
        reference: real images, as data.source of a recipe names them: digits, a folder, Parquet files, a hub id.
        split: which part of the reference, where it has parts.
        features: network that metrics see with: inception, dinov2, "classifier('folder')"; auto: one trained on the reference.
        resamples: behind each difference; p is 1 / (resamples + 1) at least.
        device: cpu, cuda, cuda:1; left out: the first GPU where there is one.
        out: folder to write into.
    """
    rules = [_weight(text) for text in rule] if rule else [None]
    if len(rules) > 2:
        raise BadValue(f"two are compared, not {len(rules)} rules; name two, or use guidon sweep")
    if other is None and len(rules) == 1:
        raise BadValue("name what to compare: a second model, or two rules, --rule 'cfg(3)' 'cfg(3) | apg'")
    started = time.perf_counter()
    from guidon.app.console import Output
    from guidon.app.models import device_of, find_model
    from guidon.app.progress import loading

    with loading(model):
        from guidon.study.compare import compare as compare_cells
        from guidon.study.plan import SweepPlan
    sides = [
        {"model": find_model(model), "rule": rules[0]},
        {"model": find_model(other or model), "rule": rules[-1]},
    ]
    content: dict[str, Any] = {
        **sides[0],
        "told": label,
        "n": n,
        "seed": seed,
        "solver": solver,
        "grid": grid,
        "steps": steps,
        "nfe": nfe,
        "negative": negative,
        "weak": weak,
        "metrics": metrics or (*ALONE, *(BESIDE_REAL if reference is not None else ())),
        "reference": None if reference is None else {"source": reference, "split": split},
        "features": features,
        "cells": [{name: value for name, value in side.items() if value is not None} for side in sides],
    }
    plan = SweepPlan.read({name: value for name, value in content.items() if value is not None}, "compare")
    where = str(device_of(device))
    with _bar() as on_block:
        found = compare_cells(plan, out, resamples=resamples, device=where, on_block=on_block)
    console = Output()
    for name, text in zip("AB", names(found), strict=True):
        console.print(f"{name}  {text}", soft_wrap=True)
    console.print(table(found))
    count = len(found.figures)
    note = f"; p is corrected for {count} figures by Holm's method" if count > 1 else ""
    console.print(f"{n} pairs of images, drawn anew {draws(found)} times{note}", soft_wrap=True)
    wrote = f"{out / 'compare.json'} and {out / 'compare.png'}"
    console.print(f"wrote {wrote}, in {time.perf_counter() - started:.1f} s", soft_wrap=True)


def names(found: Comparison) -> list[str]:
    """Return what A and B are, and what they cost, in a line each."""
    return [
        f"{cell.settings['model']}, {cell.settings['rule']}, {cell.settings['steps']} steps: "
        f"{cell.cost.nfe:g} network evaluations and {cell.cost.seconds / cell.cost.images:.3g} s an image"
        for cell in found.cells
    ]


def draws(found: Comparison) -> str:
    """Return how often the images were drawn anew, for each figure where that differs."""
    counts = {row.key: row.difference.resamples for row in found.figures}
    if len(set(counts.values())) == 1:
        return str(next(iter(counts.values())))
    return ", ".join(f"{count} ({key})" for key, count in counts.items())


def table(found: Comparison) -> Table:
    """Return what was found as a table."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for head in ("figure", "A", "B", "B - A", "95 % interval", "p", ""):
        made.add_column(head, justify="left" if head in ("figure", "") else "right", no_wrap=head != "")
    for row in found.figures:
        apart = row.difference
        made.add_row(
            row.title,
            f"{row.first.value:.4g}",
            f"{row.second.value:.4g}",
            f"{apart.value:+.3g}",
            f"{apart.low:+.3g} to {apart.high:+.3g}",
            f"{row.p:.3g}",
            row.verdict,
        )
    return made


def _weight(rule: str) -> str | float:
    """Return a rule as it is, or the number that stands for CFG of that weight."""
    try:
        return float(rule)
    except ValueError:
        return rule


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show the blocks of the images that are made."""
    from guidon.app.progress import steps_bar

    with steps_bar("sampling and measuring, blocks of images") as on_step:
        yield lambda done, blocks: on_step(done, blocks, None)
