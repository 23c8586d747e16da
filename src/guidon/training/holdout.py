"""Images that are kept from training, so that what was learned can be measured on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from guidon.errors import BadRecipe, DataError, NotSupported, ShapeMismatch
from guidon.training.batches import Batch, TrainingData, random_for
from guidon.training.captions import Captions, said
from guidon.training.columns import Item
from guidon.training.crops import resized
from guidon.training.data import DataConfig, LazyData, MemoryData, open_data
from guidon.training.pixels import Unreadable
from guidon.training.records import Records

MOST = 2000  # images that are held out at most: enough to know an accuracy to about one per cent


def open_divided(config: DataConfig, *, seed: int) -> TrainingData:
    """Open data, and keep from training what the config says: another part of the source, or a share of the images.

    Args:
        config: the ``data:`` section; without ``validation`` and ``hold_out`` nothing is kept back.
        seed: decides the order, and what is held out.

    Raises:
        NotSupported, BadRecipe: as `hold_out`.
        DataError, UnknownLabel, ShapeMismatch: as `open_data`, of either part.
    """
    data = open_data(config, seed=seed)
    if config.validation is not None:
        data.held_out = _other_part(config, data, seed)
    elif config.hold_out is not None and data.held_out is None:
        return hold_out(data, config.hold_out, seed=seed)
    return data


def _other_part(config: DataConfig, data: TrainingData, seed: int) -> Batch:
    """Return images of the part to measure on, in the shape and the classes of those to train on."""
    _, height, width = data.shape
    fitted = {"size": height} if height == width else {}
    plain = {
        "split": config.validation,
        "classes": data.classes,
        "channels": data.shape[0],
        "flip": False,
        "crop": 0,
        "zoom": 1.0,
    }
    other = open_data(config.model_copy(update=plain | fitted), seed=seed)
    size = MOST if other.size is None else min(MOST, other.size)
    batches = list(islice(other.batches(some := min(size, 50)), math.ceil(size / some)))
    labels = torch.cat([b.labels for b in batches if b.labels is not None])[:size] if data.classes else None
    captions = [text for b in batches for text in b.captions or ()][:size] if data.uncaptioned is not None else None
    return Batch(torch.cat([batch.images for batch in batches])[:size], labels, captions)


def hold_out(data: TrainingData, share: float, *, seed: int) -> TrainingData:
    """Return the data without a random share of its images; those are in ``held_out``, unchanged by flips and crops.

    An image held out has the first of its captions, lists in it whole.

    Args:
        data: in memory or on disk.
        share: of the images, 0 < share < 1; never more than `MOST` of them.
        seed: decides which.

    Raises:
        NotSupported: the data are a stream, of which no image can be chosen beforehand.
        BadRecipe: the share leaves nothing to measure on, or nothing to train on.
    """
    if not isinstance(data, MemoryData | LazyData):
        raise NotSupported(
            "a stream cannot be told beforehand which images to hold out; leave data.streaming out, name another part of"
            " the source in data.validation, or hold out none with data.hold_out=null"
        )
    size = data.size or 0
    count = min(round(share * size), MOST)
    if not 0 < count < size:
        raise BadRecipe(
            f"data.hold_out {share} of {size} images is {count}; at least one to measure on and one to train on remain"
        )
    order = random_for("held out", seed).permutation(size)
    held, rest = np.sort(order[:count]), np.sort(order[count:])
    common: dict[str, Any] = {
        name: getattr(data, name) for name in ("shape", "classes", "skipped", "seed", "flip", "crop", "uncaptioned")
    }
    labels = data.labels[rest] if data.labels is not None else None
    kept: TrainingData
    captions: list[Captions] | None = None
    if isinstance(data, MemoryData):
        if data.captions is not None:
            captions = [data.captions[i] for i in held]
            common["captions"] = [data.captions[i] for i in rest]
        kept = MemoryData(data.pixels[rest], labels, **{"captions": None} | common)
        shown, readable = data.pixels[held], held
    else:
        kept = LazyData(_Chosen(data.records, rest), data.decoder, labels, **common)
        items = {int(i): data.records.fetch([int(i)])[0] for i in held}
        pixels = {i: value for i, item in items.items() if (value := _pixels(data, item)) is not None}
        if not pixels:
            raise DataError(
                f"none of the {count} images held out can be read: {data.skipped.report()}. Are the files still there?"
            )
        shown, readable = torch.from_numpy(np.stack(list(pixels.values()))), np.array(list(pixels))
        captions = data.captions_of([items[i] for i in pixels])
    shown = resized(shown, data.shape[-1]) if shown.shape[1:] != data.shape else shown
    images = shown.float().div_(127.5).sub_(1)
    texts = None if captions is None else [said(each[0]) if each else "" for each in captions]
    kept.held_out = Batch(images, data.labels[readable] if data.labels is not None else None, texts)
    return kept


def _pixels(data: LazyData, item: Item) -> np.ndarray | None:
    """Return an item's pixels, or None where it cannot be read."""
    try:
        return data.decoder(item)
    except (Unreadable, ShapeMismatch) as error:
        data.skipped.add(item.name, error)
        return None


@dataclass(frozen=True)
class _Chosen(Records):
    """Some of the items of other records, by their numbers there."""

    records: Records
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def fetch(self, indices: Sequence[int]) -> list[Item]:
        return self.records.fetch([int(self.chosen[i]) for i in indices])

    def labels(self) -> list[int | str | None]:
        every = self.records.labels()
        return [every[i] for i in self.chosen]
