"""What a training loop is given: batches that depend on the seed and the step alone, whatever came before."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from guidon.errors import BadValue, DataError
from guidon.training.captions import Captions, drawn
from guidon.training.columns import Item
from guidon.training.crops import moved, resized
from guidon.training.records import Skipped, Uncaptioned

T = TypeVar("T")
SOME = 20_000  # captions that tell enough of a language
FEW = 10  # images that are shown where none are held out


@dataclass(frozen=True)
class Batch:
    """Images with what is known about them.

    Args:
        images: (B, C, H, W) float32 in [-1, 1].
        labels: (B,) int64 class ids, or None where the data have no classes.
        captions: B texts, empty where nothing is said of an image, or None where the data have no captions.
    """

    images: Tensor
    labels: Tensor | None
    captions: list[str] | None

    def __len__(self) -> int:
        return len(self.images)


class TrainingData(ABC):
    """An endless, shuffled supply of batches.

    Args:
        shape: (C, H, W) of every image.
        classes: class names in the order of their ids, or None where the data have no classes.
        size: how many items an epoch has; None where nobody knows (streams).
        skipped: what could not be read so far; ``skipped.report(...)`` tells it in a line.
        seed: decides the order, the flips and which of its captions an image has at a visit.
        flip: mirror a random half of the images.
        crop: move every image by up to so many pixels.
        uncaptioned: the images without a caption found so far; None where the data have no captions.

    Attributes:
        held_out: images that no batch holds, to measure on; see `guidon.training.holdout`.

    Raises:
        BadValue: a crop as large as the images.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        classes: list[str] | None,
        size: int | None,
        skipped: Skipped,
        seed: int,
        flip: bool,
        crop: int = 0,
        uncaptioned: Uncaptioned | None = None,
    ) -> None:
        if crop >= min(shape[1:]):
            raise BadValue(
                f"data.crop {crop} moves images of {shape[1]}x{shape[2]} out of sight; a few pixels are enough"
            )
        self.shape, self.classes, self.size, self.skipped = shape, classes, size, skipped
        self.seed, self.flip, self.crop, self.uncaptioned = seed, flip, crop, uncaptioned
        self.held_out: Batch | None = None

    def batches(self, batch_size: int, start_step: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Return the endless batches from ``start_step`` on.

        Step k takes items ``k * batch_size ...`` of the shuffled epochs laid end to end, so a batch may span two epochs. Process
        ``rank`` of ``world`` gets its consecutive part of that batch: the parts of all ranks joined are the batch of one process.

        Args:
            batch_size: images per step over all processes together; a multiple of ``world``.
            start_step: the first step; resuming at step k gives what an uninterrupted run would have got.
            rank, world: this process and how many there are.

        Raises:
            BadValue: the batch cannot be split, or a number is out of its range.
        """
        if batch_size < 1 or world < 1 or batch_size % world or not 0 <= rank < world or start_step < 0:
            raise BadValue(
                f"cannot give process {rank} of {world} its part of a batch of {batch_size} at step {start_step}:"
                " the batch size must be a positive multiple of the number of processes, the step not negative"
            )
        part = batch_size // world
        return self._batches(batch_size, start_step, slice(rank * part, (rank + 1) * part))

    def wordings(self) -> Iterator[str]:
        """Yield the texts that the captions are made of, to learn a vocabulary from; of endless data the first `SOME` or a few more."""
        return iter(())

    @cached_property
    def shown(self) -> Batch:
        """A few images to show along a run: those held out, or else the first that are trained on."""
        if self.held_out is not None:
            return self.held_out
        state = self.state_dict()
        with closing(self.batches(FEW)) as batches:  # type: ignore[type-var]
            first = next(batches)
        self.load_state_dict(state)  # how far a stream was read is not changed by that
        return first

    def check_captions(self) -> None:
        """Refuse data without a single caption, where a model is to learn from texts; raises `DataError`."""
        if self.uncaptioned is None or not any(self.wordings()):
            raise DataError(
                f"the model is told texts, but {'the data have no captions' if self.uncaptioned is None else 'every caption is empty'}:"
                " put a text file beside each image (a.png, a.txt), name the column of captions in data.caption_column, or write"
                " templates over the columns in data.captions"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return a JSON-able note that makes resuming cheap and keeps the accounts of items; save it with a checkpoint."""
        bare = {} if self.uncaptioned is None else {"uncaptioned": self.uncaptioned.items()}
        return {"skipped": self.skipped.items()} | bare

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a note of `state_dict`; `batches` called with the step after it then continues where it was made."""
        for account, found in ((self.skipped, "skipped"), (self.uncaptioned, "uncaptioned")):
            for name, reason in state.get(found, ()):
                if account is not None:
                    account.add(name, reason)

    @abstractmethod
    def _batches(self, batch_size: int, start_step: int, part: slice) -> Iterator[Batch]:
        """Yield ``part`` of the batch of every step from ``start_step`` on."""

    def captions_of(self, items: Sequence[Item]) -> list[Captions] | None:
        """Return what is said of items, None where the data have no captions; those of which nothing is said are noted."""
        if self.uncaptioned is None:
            return None
        for item in items:
            if not item.captions:
                self.uncaptioned.add(item.name)
        return [item.captions for item in items]

    def _batch(
        self,
        step: int,
        batch_size: int,
        part: slice,
        pixels: Tensor,
        labels: Tensor | None,
        captions: Sequence[Captions] | None,
    ) -> Batch:
        """Return uint8 pixels, (B, C, H, W) or larger, and the rest as a `Batch`: cut out, mirrored, moved and worded by chance.

        All are already ``part`` of the batch.
        """
        if pixels.shape[1:] != self.shape:
            chance = random_for("zooms", self.seed, step).random((batch_size, 3))[part]
            pixels = resized(pixels, self.shape[-1], torch.from_numpy(chance))
        if self.flip:
            mirrored = random_for("flips", self.seed, step).random(batch_size)[part] < 0.5
            pixels = torch.where(torch.from_numpy(mirrored)[:, None, None, None], pixels.flip(-1), pixels)
        if self.crop:
            by = random_for("crops", self.seed, step).integers(-self.crop, self.crop + 1, (batch_size, 2))[part]
            pixels = moved(pixels, torch.from_numpy(by))
        texts = None
        if captions is not None:
            numbers = random_for("captions", self.seed, step).integers(2**63, size=batch_size)[part]
            texts = [drawn(each, int(number)) for each, number in zip(captions, numbers, strict=True)]
        return Batch(pixels.float().div_(127.5).sub_(1), labels, texts)


def decoding_threads() -> int:
    """Return how many threads decode: the cores beyond the one that trains, at most four."""
    return min(4, max(1, (os.cpu_count() or 1) - 1))


def random_for(purpose: str, *key: int) -> np.random.Generator:
    """Return the random generator of one purpose and key, for instance ("flips", seed, step), independent of all others."""
    digest = hashlib.sha256(repr((purpose, *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the order (size,) int64 in which an epoch visits its items."""
    order = random_for("order", seed, epoch).permutation(size)
    order.flags.writeable = False  # shared by whoever asks
    return order


def step_indices(seed: int, step: int, batch_size: int, size: int) -> np.ndarray:
    """Return which items (batch_size,) int64 a step uses, out of ``size``; every epoch has each item once."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // size
    return np.concatenate([epoch_order(seed, int(e), size)[positions[epochs == e] % size] for e in np.unique(epochs)])


def ahead(jobs: Iterator[Callable[[], T]], workers: int, depth: int) -> Iterator[T]:
    """Yield the results of jobs in their order, while ``workers`` threads work on the next ``depth`` of them."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="guidon-data")
    waiting: deque[Future[T]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=False)
