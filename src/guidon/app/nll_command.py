"""``guidon nll``: how likely a model thinks images are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from guidon.errors import BadValue, ShapeMismatch, UnknownLabel

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
    the same one. Writes a JSON file and, beside it, a picture of how much each
    noise level adds; nothing is overwritten.

    Images are resized to the model's shape. A model of classes is told the labels
    of the data, each as its class of that name, or of that number where the data
    have numbers for names; without labels it is told no class. A model of texts is
    told the captions of the data.

    Args:
        model: a run's folder, a model's folder, or a Hugging Face id.
        data: images, as data.source of a recipe names them: digits, a folder, Parquet files, a hub id.
        n: how many of the images, drawn with --seed.
        split: which part of the data, where they have parts.
        steps: length of the chain; left out: the whole table of the model's process (respaced takes no more), or 250 without a table.
        grid: where the levels lie; left out: respaced for a process with a table, else log-snr.
        variance: of the model's steps; left out: the learned one where there is one, else small.
        clip: keep what the model believes of the clean image in range.
        seed: decides which images are measured, and their noise.
        max_batch: images in one forward at most.
        device: cpu, cuda, cuda:1; left out: the first GPU where there is one.
        out: the JSON file to write; where it is taken, nll-2.json and so on.
    """
    if out.suffix == ".png":
        raise BadValue(f"--out {out} is the JSON file, the picture goes beside it; call it {out.with_suffix('.json')}")
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
    tokenizer, captions = loaded.tokenizer, images.captions
    texts = None if tokenizer is None or captions is None else tokenizer.encode(captions)
    with steps_bar("measuring") as on_step:
        found = bits_per_dim(
            loaded,
            images.images,
            images.labels if texts is None else texts,
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
        "captions": texts is not None,
        "grid": name,
        "steps": len(levels) - 1,
        "variance": found.variance,
        "clip": clip,
        "seed": seed,
    }
    alone = loaded.has_null and images.labels is None and texts is None
    written, picture = write_nll(out, found, record)
    prior, decoder = float(found.prior.mean()), float(found.terms[:, -1].mean())
    print(
        f"{found.mean:.4f} ± {found.standard_error:.4f} bits/dim of {len(images)} images{', told nothing of them' if alone else ''}, "
        f"in {len(levels) - 1} steps "
        f"(prior {prior:.4f}, decoder {decoder:.4f})"
    )
    print(f"wrote {written} and {picture}, in {time.perf_counter() - started:.1f} s with loading")


def chain(model: Model, grid: str | None, steps: int | None) -> tuple[str, tuple[Level, ...]]:
    """Return the text form of the grid, and the levels to measure on; without a wish the whole table, or 250 steps of log-snr.

    Raises:
        BadValue: the table of the model's process has fewer steps than are asked for.
    """
    from guidon import registry
    from guidon.model_request import as_member
    from guidon.noise import VPTable
    from guidon.noise.grids import Respaced

    table = model.process.steps if isinstance(model.process, VPTable) else None
    chosen = as_member("grid", grid or ("log-snr" if table is None else "respaced"))
    if table is None or chosen != Respaced():
        return registry.to_text(chosen), chosen.levels(model.process, steps or 250)
    if steps is not None and steps > table:
        raise BadValue(f"the model's chain has {table} steps, {steps} are asked for; ask for --steps 1 to {table}")
    return registry.to_text(chosen), chosen.levels(model.process, steps or table)


def read_images(model: Model, source: str, split: str, n: int, seed: int) -> Batch:
    """Return up to ``n`` images of the model's shape with labels among its classes, drawn with ``seed``.

    Raises:
        DataError: there is nothing there.
        ShapeMismatch: the images have another shape.
        UnknownLabel: the data have classes that are none of the model's.
    """
    import torch

    from guidon.training.data import DataConfig, open_data

    channels, height, width = model.shape
    config: dict[str, Any] = {"channels": channels, "size": height if height == width else None}
    opened = open_data(DataConfig(source=source, split=split, **config), seed=seed)
    if opened.shape != model.shape:
        raise ShapeMismatch(f"the images are {opened.shape} and the model is of {model.shape}; resize them")
    batch = next(opened.batches(min(n, opened.size or n)))
    if batch.labels is None or model.classes is None or opened.classes is None:
        return replace(batch, labels=None)
    ids = _class_ids(opened.classes, model.classes)
    return replace(batch, labels=torch.tensor(ids)[batch.labels])


def _class_ids(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return which of a model's classes those of the data are, by name or by number; raises `UnknownLabel`."""
    from guidon.model_request import class_id

    ids, strange = [], []
    for name in names:
        try:
            ids.append(class_id(name, classes))
        except UnknownLabel:
            strange.append(name)
    if strange:
        raise UnknownLabel(
            f"{len(strange)} of the data's {len(names)} classes are none of the model's: {_some(strange)}; it knows {_some(classes)}."
            " Give data of those classes, or images without labels (a folder without sub-folders), which are measured without a class"
        )
    return ids


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
