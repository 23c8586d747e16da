"""Two ways of making images on the same seeds: how far their figures are apart, and whether chance alone would do that."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guidon._version import __version__
from guidon.checkpoints.atomic import write_bytes, write_text
from guidon.errors import BadValue, ShapeMismatch
from guidon.measure.estimate import Difference, Figure, difference, estimate
from guidon.measure.metric import Wanted, check
from guidon.measure.observe import ImageSet, OnBlock, Rows
from guidon.study.bench import Bench
from guidon.study.columns import as_json
from guidon.study.plan import SweepPlan
from guidon.study.sheet import Sheet, cell_images, image_names, tiled
from guidon.study.store import Cell
from guidon.study.sweep import OnCell, keyed, sweep
from guidon.training.grid import png_bytes

PAIRS = 10  # of images in a sheet
SURE = 0.05  # below which p is said to show a difference


@dataclass(frozen=True)
class Compared:
    """A figure of both.

    Args:
        key, title: what it is called.
        better: "higher", "lower" or None.
        first, second: the figures, each with its own interval.
        difference: the second minus the first, paired.
        p: of the difference, made larger for the number of figures that are compared, by Holm's method.
    """

    key: str
    title: str
    better: str | None
    first: Figure
    second: Figure
    difference: Difference
    p: float

    @property
    def verdict(self) -> str:
        """What can be said: which of A and B is better, if p is below 0.05."""
        if not self.p < SURE:
            return "no difference shown"
        if self.better is None:
            return "B is higher" if self.difference.value > 0 else "B is lower"
        return "B is better" if (self.difference.value > 0) == (self.better == "higher") else "A is better"


@dataclass(frozen=True)
class Comparison:
    """Two cells and what sets them apart.

    Args:
        cells: A and B.
        figures: compared.
    """

    cells: tuple[Cell, Cell]
    figures: tuple[Compared, ...]


def compare(
    plan: SweepPlan,
    out: Path,
    *,
    resamples: int = 1000,
    device: str | None = None,
    cache: Path | None = None,
    on_cell: OnCell | None = None,
    on_block: OnBlock | None = None,
) -> Comparison:
    """Make the two cells of a plan, compare them, and write ``compare.json`` and ``compare.png`` into a folder.

    Args:
        plan: of two cells; if they are the same, one is compared with itself.
        out: folder; the images that are there already are not made again.
        resamples: behind each difference.
        device, cache, on_cell, on_block: as of `sweep`.

    Raises:
        BadValue: the plan has more cells, they are of other seeds, or are told other things.
        ShapeMismatch: the images are of two sizes.
    """
    points = plan.points()
    if len(points) > 2:
        raise BadValue(f"two are compared, and the plan has {len(points)} cells; sweep over them, or name two")
    if len({(point.setting.seed, point.setting.n) for point in points}) > 1:
        raise BadValue("the two are of other seeds, so their images are no pairs; give both the same seed and n")
    bench = Bench(plan, device, cache)
    settings = {key: point.setting for key, point in keyed(plan, bench).items()}
    check_pairs(*(bench.images(setting, 1) for setting in settings.values()))
    cells = sweep(plan, out, on_cell=on_cell, on_block=on_block, bench=bench)
    first, second = (bench.seen(cell, settings[cell.key]) for cell in (cells[0], cells[-1]))
    figures = compared(bench.wanted, first, second, bench.reference, resamples=resamples, draws=plan.resamples)
    found = Comparison((cells[0], cells[-1]), tuple(figures))
    write_bytes(out / "compare.png", png_bytes(side_by_side(*found.cells).picture))
    write_text(
        out / "compare.json",
        json.dumps(as_json({**account(found), "reference": bench.record()["reference"]}), indent=1, ensure_ascii=False),
    )
    return found


def check_pairs(*sets: ImageSet) -> None:
    """Refuse images that are no pairs because they were told different things; raises `BadValue`."""
    said = [_told(images) for images in sets]
    for other in said[1:]:
        if other != said[0]:
            i = next(i for i, pair in enumerate(zip(said[0], other, strict=True)) if pair[0] != pair[1])
            raise BadValue(
                f"the two are told different things (image {i + 1}: {said[0][i] or 'nothing'} and {other[i] or 'nothing'}), so their images"
                " are no pairs; tell both what both know: --label or --prompt"
            )


def _told(images: ImageSet) -> list[str | None]:
    """Return what each image is told, in words."""
    if images.captions is not None:
        return [caption or None for caption in images.captions]
    if images.labels is None:
        return [None] * len(images)
    names = images.classes
    return [None if i < 0 else str(i) if names is None else names[i] for i in images.labels.tolist()]


def compared(
    wanted: Sequence[Wanted],
    first: Rows,
    second: Rows,
    reference: Rows | None = None,
    *,
    resamples: int = 1000,
    draws: int = 200,
    seed: int = 0,
) -> list[Compared]:
    """Return the figures of two samples, whose rows belong together one by one, and how sure their differences are.

    Args:
        wanted: what to measure.
        first, second: what was seen of the samples.
        reference: what was seen of the images that they are compared with.
        resamples: behind each difference.
        draws: behind the interval of each figure.
        seed: of both.

    Raises:
        BadValue: a metric cannot be measured, the samples are not of one size, or they were seen by different networks.
    """
    if len(first) != len(second):
        raise BadValue(f"{len(first)} images are paired with {len(second)}; sample as many, from the same seeds")
    found = []
    for wish in wanted:
        network = check(wish, first, reference)
        if (other := check(wish, second, reference)) != network:
            raise BadValue(
                f"{wish.key}: the samples were seen by different networks ({network}, {other}); measure again"
            )
        one, two = (wish.metric.statistic(sample, reference, wish.network) for sample in (first, second))
        a, b = (dataclasses.replace(estimate(each, resamples=draws, seed=seed), network=network) for each in (one, two))
        apart = difference(one, two, resamples=resamples, seed=seed)
        found.append(Compared(wish.key, wish.metric.title, wish.metric.better, a, b, apart, apart.p))
    adjusted = holm([row.p for row in found])
    return [dataclasses.replace(row, p=p) for row, p in zip(found, adjusted, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values so that the chance of calling any of several equal figures different stays what one p-value says; NaN stays NaN.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).
    """
    adjusted, largest = [math.nan] * len(p), 0.0
    tested = [i for i in range(len(p)) if not math.isnan(p[i])]
    for rank, i in enumerate(sorted(tested, key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(tested) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


def side_by_side(first: Cell, second: Cell, count: int = PAIRS) -> Sheet:
    """Return pairs of images of the same seeds, A above B, spread evenly from the pair that differs most to the one that differs least."""
    kept = cell_images(first), cell_images(second)
    if kept[0].shape[1:] != kept[1].shape[1:]:
        sizes = " and ".join("x".join(map(str, images.shape[1:])) for images in kept)
        raise ShapeMismatch(f"the images are of {sizes}, so they are no pairs; compare models of one size")
    length = min(map(len, kept))
    one, two = (images[:length] for images in kept)
    apart = np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in zip(one, two, strict=True)])
    order = np.argsort(-apart, kind="stable")
    chosen = order[np.linspace(0, length - 1, min(count, length)).round().astype(int)]
    seed, names = int(first.settings["seed"]), image_names(first, length)
    labels = [names[i] if names[i].startswith("seed ") else f"{names[i]} seed\u00a0{seed + i}" for i in chosen]
    a, b = told_apart(first, second)
    title = f"A: {a}\nB: {b}\nfrom the pair that differs most to the one that differs least, of {length}"
    return tiled([[one[i] for i in chosen], [two[i] for i in chosen]], ["A", "B"], labels, title)


def told_apart(first: Cell, second: Cell) -> tuple[str, str]:
    """Return what to call two cells: the settings in which they differ, or the rule where they do not."""
    names = [
        name
        for name in ("model", "average", "rule", "weak", "steps")
        if first.settings.get(name) != second.settings.get(name)
    ]
    one, two = ("  ".join(str(cell.settings.get(name)) for name in names or ["rule"]) for cell in (first, second))
    return one, two


def account(found: Comparison) -> dict[str, Any]:
    """Return a comparison for JSON."""
    return {
        "guidon": __version__,
        **{
            name: {"settings": cell.settings, "cost": dataclasses.asdict(cell.cost)}
            for name, cell in zip("ab", found.cells, strict=True)
        },
        "correction": "Holm",
        "figures": [{**dataclasses.asdict(row), "verdict": row.verdict} for row in found.figures],
    }
