"""Images that are kept from training, so that what was learned can be measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from guidon.errors import BadRecipe, DataError, NotSupported, ShapeMismatch
from guidon.training.batches import Batch, TrainingData, random_for
from guidon.training.columns import Item
from guidon.training.data import LazyData, MemoryData
from guidon.training.pixels import Unreadable
from guidon.training.records import Records

MOST = 2000  # images that are held out at most: enough to know an accuracy to about one per cent


def hold_out(data: TrainingData, share: float, *, seed: int) -> TrainingData:
    """Return the data without a random share of its images; those are in ``held_out``, unchanged by flips and crops.

    Args:
        data: in memory or on disk.
        share: of the images, 0 < share < 1; never more than `MOST` of them.
        seed: decides which.

    Raises:
        NotSupported: the data are a stream, of which no image can be chosen beforehand.
        BadRecipe: the share leaves nothing to measure on, or nothing to train on.
    """
    if not isinstance(data, MemoryData | LazyData):
        raise NotSupported("a stream cannot be told beforehand which images to hold out; leave data.streaming out")
    size = data.size or 0
    count = min(round(share * size), MOST)
    if not 0 < count < size:
        raise BadRecipe(
            f"data.hold_out {share} of {size} images is {count}; at least one to measure on and one to train on remain"
        )
    order = random_for("held out", seed).permutation(size)
    held, rest = np.sort(order[:count]), np.sort(order[count:])
    common: dict[str, Any] = {
        name: getattr(data, name) for name in ("shape", "classes", "skipped", "seed", "flip", "crop")
    }
    labels = data.labels[rest] if data.labels is not None else None
    kept: TrainingData
    if isinstance(data, MemoryData):
        captions = [data.captions[i] for i in rest] if data.captions is not None else None
        kept = MemoryData(data.pixels[rest], labels, captions, **common)
        shown, readable = data.pixels[held], held
    else:
        kept = LazyData(_Chosen(data.records, rest), data.decoder, labels, data.captions, **common)
        pixels = {int(i): value for i in held if (value := _pixels(data, int(i))) is not None}
        if not pixels:
            raise DataError(
                f"none of the {count} images held out can be read: {data.skipped.report()}. Are the files still there?"
            )
        shown, readable = torch.from_numpy(np.stack(list(pixels.values()))), np.array(list(pixels))
    images = shown.float().div_(127.5).sub_(1)
    kept.held_out = Batch(images, data.labels[readable] if data.labels is not None else None, None)
    return kept


def _pixels(data: LazyData, index: int) -> np.ndarray | None:
    """Return an item's pixels, or None where it cannot be read."""
    item = data.records.fetch([index])[0]
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
