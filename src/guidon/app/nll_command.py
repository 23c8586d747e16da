"""``guidon nll``: how likely a model thinks images are."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from guidon.model import Model
    from guidon.noise import Level
    from guidon.training.batches import Batch

EXAMPLES = """Examples:

  guidon nll runs/digits digits                        256 digits
  guidon nll runs/mine photos/ --split test --n 1000   photographs kept back
  guidon nll runs/mine photos/ --steps 100             on a shorter chain
  guidon nll runs/mine photos/ --grid "log-snr(0.005, 200)" --variance large"""

Count = Annotated[int, Parameter(validator=Number(gte=1))]


def nll(
    model: str,
    data: str,
    *,
    n: Annotated[int, Parameter(name=["--n", "-n"], validator=Number(gte=1))] = 256,
    split: str = "train",
    steps: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    grid: str | None = None,
    variance: Literal["small", "large", "learned"] | None = None,
    clip: bool = True,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    max_batch: Count = 128,
    device: str | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("nll.json"),
) -> None:
    """Measure the variational bound of images under a model, in bits per dimension.

    Lower is better. The bound depends on the chain of levels: compare models on
    the same one. Writes a JSON file and, beside it, a picture of how much each noise
    level adds.

    Args:
        model: a run's folder, a model's folder, or a Hugging Face id.
        data: images, as data.source of a recipe names them: digits, a folder, Parquet files, a hub id.
        n: how many of the images, drawn with --seed.
        split: which part of the data, where they have parts.
        steps: length of the chain; left out: the whole table of the model's process, or 250.
        grid: where the levels lie; left out: respaced for a process with a table, else log-snr.
        variance: of the model's steps; left out: the learned one where there is one, else small.
        clip: keep what the model believes of the clean image in range.
        seed: decides which images are measured, and their noise.
        max_batch: images in one forward at most.
        device: cpu, cuda, cuda:1; left out: the first GPU where there is one.
        out: the JSON file to write.
    """
    from guidon.app.progress import loading, steps_bar

    started = time.perf_counter()
    with loading(model):
        from guidon import registry
        from guidon.app.models import open_model
        from guidon.app.nll_plot import write_nll
        from guidon.measure.likelihood import bits_per_dim

        loaded, digest = open_model(model, device)
        name, levels = chain(loaded, grid, steps)
    images = read_images(loaded, data, split, n, seed)
    with steps_bar("measuring") as on_step:
        found = bits_per_dim(
            loaded,
            images.images,
            images.labels,
            levels,
            variance=variance,
            seed=seed,
            clip=clip,
            batch=max_batch,
            on_step=on_step,
        )
    record: dict[str, Any] = {
        "model": loaded.name,
        "weights": digest,
        "process": registry.to_text(loaded.process),
        "data": data,
        "split": split,
        "images": len(images),
        "labels": images.labels is not None,
        "grid": name,
        "steps": len(levels) - 1,
        "variance": found.variance,
        "clip": clip,
        "seed": seed,
    }
    picture = write_nll(out, found, record)
    prior, decoder = float(found.prior.mean()), float(found.terms[:, -1].mean())
    print(
        f"{found.mean:.4f} ± {found.standard_error:.4f} bits/dim of {len(images)} images, in {len(levels) - 1} steps "
        f"(prior {prior:.4f}, decoder {decoder:.4f})"
    )
    print(f"wrote {out} and {picture}, in {time.perf_counter() - started:.1f} s with loading")


def chain(model: Model, grid: str | None, steps: int | None) -> tuple[str, tuple[Level, ...]]:
    """Return the text form of the grid, and the levels to measure on; without a wish the whole table, or 250 steps of log-snr."""
    from guidon import registry
    from guidon.model_request import as_member
    from guidon.noise import VPTable

    table = isinstance(model.process, VPTable)
    chosen = as_member("grid", grid or ("respaced" if table else "log-snr"))
    whole = model.process.steps if isinstance(model.process, VPTable) and grid is None else 250
    return registry.to_text(chosen), chosen.levels(model.process, steps or whole)


def read_images(model: Model, source: str, split: str, n: int, seed: int) -> Batch:
    """Return up to ``n`` images of the model's shape with labels among its classes, drawn with ``seed``.

    Raises:
        DataError: there is nothing there.
        UnknownLabel: a label is none of the model's classes.
        ShapeMismatch: the images have another shape.
    """
    from guidon.errors import ShapeMismatch
    from guidon.training.data import DataConfig, open_data

    channels, height, width = model.shape
    config: dict[str, Any] = {"channels": channels, "size": height if height == width else None}
    opened = open_data(DataConfig(source=source, split=split, **config), seed=seed)
    if opened.shape != model.shape:
        raise ShapeMismatch(f"the images are {opened.shape} and the model is of {model.shape}; resize them")
    batch = next(opened.batches(min(n, opened.size or n)))
    if batch.labels is None or model.classes is None or opened.classes is None:
        return replace(batch, labels=None)
    return replace(batch, labels=model.labels(opened.classes).ids[batch.labels])  # by name, or by number
