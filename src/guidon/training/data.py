"""Training data: images of one shape with labels and captions, in memory, on disk, or as a stream.

`open_data` decides by size. What fits is decoded once into one uint8 tensor; larger data whose items can be reached by number are
decoded as they are needed, ahead of the training step; what can only be read from the front is `guidon.training.stream`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guidon.errors import BadRecipe, DataError, ShapeMismatch
from guidon.training.batches import Batch, TrainingData, ahead, decoding_threads, step_indices
from guidon.training.captions import Captions, said
from guidon.training.columns import Item, class_ids, class_names
from guidon.training.pixels import Decoder, Unreadable
from guidon.training.records import Records, Shards, Skipped, Uncaptioned
from guidon.training.sources import DataConfig, locate, open_source
from guidon.training.stream import StreamData

__all__ = ["Batch", "DataConfig", "LazyData", "MemoryData", "StreamData", "TrainingData", "open_data"]

MEMORY_LIMIT = 2 << 30  # bytes of decoded uint8 pixels that are held in memory
PROBES = 64  # items that must agree in size before a run starts, where not all are looked at
PATIENCE = 10_000  # items that may be unreadable before the first readable one
CHUNK = 256
SCENE = 32  # pixels of a scene's side where data.size does not say
HELD_SCENES = 512  # of them, where some are held out: they are drawn, so no share of them can be


def open_data(config: DataConfig, *, seed: int = 0) -> TrainingData:
    """Open the data that a recipe names.

    Args:
        config: the ``data:`` section of a recipe.
        seed: decides the order of the items and the flips.

    Raises:
        DataError: nothing is there, no item can be read, a column is missing.
        UnknownLabel: labels that fit no class.
        ShapeMismatch: images of differing sizes, and no size to bring them to.
    """
    if locate(config)[0] == "shapes":
        from guidon.training.scene_data import SceneData

        return SceneData(config.size or SCENE, seed=seed, held_out=HELD_SCENES if config.hold_out else 0)
    skipped = Skipped()
    columns, items = open_source(config, skipped)
    skipped.total = None if isinstance(items, Shards) else len(items)
    found = items.labels() if columns.label and not isinstance(items, Shards) else None
    classes = class_names(config.classes, columns, found) if columns.label else None
    decoder = _settle_shape(config, items.everything(), skipped)
    assert decoder.shape is not None
    common: dict[str, Any] = {
        "shape": decoder.shape if config.size is None else (decoder.shape[0], config.size, config.size),
        "classes": classes,
        "skipped": skipped,
        "seed": seed,
        "flip": config.flip,
        "crop": config.crop,
        "uncaptioned": Uncaptioned(skipped.total) if columns.told else None,
    }
    if isinstance(items, Shards):
        return StreamData(items, decoder, config.buffer, **common)
    labels = torch.tensor(class_ids(found, classes)) if found is not None and classes is not None else None
    if config.streaming or len(items) * math.prod(decoder.shape) > MEMORY_LIMIT:
        return LazyData(items, decoder, labels, **common)
    pixels, kept, captions = _decode_all(items, decoder, skipped, common["uncaptioned"])
    if common["uncaptioned"] is not None:
        common["uncaptioned"].total = len(kept)
    labels = labels[kept] if labels is not None else None
    return MemoryData(pixels, labels, captions if columns.told else None, **common)


class MemoryData(TrainingData):
    """Data decoded beforehand.

    Args:
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64, or None.
        captions: what is said of each of the N, or None.
    """

    def __init__(
        self, pixels: Tensor, labels: Tensor | None, captions: Sequence[Captions] | None, **common: Any
    ) -> None:
        super().__init__(size=len(pixels), **common)
        self.pixels, self.labels, self.captions = pixels, labels, captions

    def wordings(self) -> Iterator[str]:
        return (said(wording) for captions in self.captions or () for wording in captions)

    def _batches(self, batch_size: int, start_step: int, part: slice) -> Iterator[Batch]:
        for step in count(start_step):
            chosen = step_indices(self.seed, step, batch_size, len(self.pixels))[part]
            rows = torch.from_numpy(chosen)
            labels = self.labels[rows] if self.labels is not None else None
            captions = [self.captions[i] for i in chosen] if self.captions is not None else None
            yield self._batch(step, batch_size, part, self.pixels[rows], labels, captions)


class LazyData(TrainingData):
    """Data decoded as they are needed, some steps ahead. In place of an item that cannot be read stands the next one that can.

    Args:
        records: the items.
        decoder: with the shape that all must have.
        labels: (N,) int64, or None.
    """

    def __init__(self, records: Records, decoder: Decoder, labels: Tensor | None, **common: Any) -> None:
        super().__init__(size=len(records), **common)
        self.records, self.decoder, self.labels = records, decoder, labels

    def wordings(self) -> Iterator[str]:
        return (said(wording) for captions in self.records.captions() for wording in captions)

    def _batches(self, batch_size: int, start_step: int, part: slice) -> Iterator[Batch]:
        jobs = (partial(self._decode, step, batch_size, part) for step in count(start_step))
        return ahead(jobs, workers := decoding_threads(), 2 * workers)

    def _decode(self, step: int, batch_size: int, part: slice) -> Batch:
        chosen = [int(i) for i in step_indices(self.seed, step, batch_size, len(self.records))[part]]
        read = [self._readable(i, item) for i, item in zip(chosen, self.records.fetch(chosen), strict=True)]
        labels = self.labels[torch.tensor([i for i, _, _ in read])] if self.labels is not None else None
        pixels = torch.from_numpy(np.stack([pixels for _, pixels, _ in read]))
        return self._batch(step, batch_size, part, pixels, labels, self.captions_of([item for _, _, item in read]))

    def _readable(self, index: int, item: Item) -> tuple[int, np.ndarray, Item]:
        """Return (index, pixels, item) of an item or of the first readable one after it."""
        for i in range(index, index + len(self.records)):
            i %= len(self.records)
            if i != index:
                item = self.records.fetch([i])[0]
            try:
                return i, self.decoder(item), item
            except (Unreadable, ShapeMismatch) as error:
                self.skipped.add(item.name, error)
        raise DataError(f"no image can be read any more: {self.skipped.report()}. Are the files still there?")


def _decoded_side(config: DataConfig) -> int | None:
    """Return the side of what is decoded: no part of it that is shown has fewer pixels than are wanted."""
    if config.zoom == 1:
        return config.size
    if config.size is None:
        raise BadRecipe("data.zoom resizes what it cuts out; set data.size to the size that is wanted")
    return math.ceil(config.size / math.sqrt(config.zoom))


def _settle_shape(config: DataConfig, items: Iterator[Item], skipped: Skipped) -> Decoder:
    """Return a decoder for the shape of the first readable items; raises where there are none, or where they do not agree."""
    decoder = Decoder(_decoded_side(config), config.channels)
    for looked_at, item in enumerate(items):
        if looked_at >= (PATIENCE if decoder.shape is None else PROBES):
            break
        try:
            if decoder.shape is None:
                channels, height, width = decoder(item).shape
                decoder = replace(decoder, channels=channels, shape=(channels, height, width))
            else:
                decoder(item)
        except Unreadable as error:
            skipped.add(item.name, error)
        except ShapeMismatch as error:
            raise ShapeMismatch(f"{item.name}: {error}") from error
    if decoder.shape is None:
        raise DataError(
            f"{config.source!r} (split {config.split!r}) holds no readable image: {skipped.report()}."
            " Check data.source and data.image_column"
        )
    return decoder


def _decode_all(
    records: Records, decoder: Decoder, skipped: Skipped, uncaptioned: Uncaptioned | None
) -> tuple[Tensor, Tensor, list[Captions]]:
    """Return pixels (N, C, H, W) uint8, which items they are (N,), and the captions, of all that can be read."""
    assert decoder.shape is not None
    pixels = np.empty((len(records), *decoder.shape), np.uint8)
    kept: list[int] = []
    captions: list[Captions] = []
    for start in progress(range(0, len(records), CHUNK), "reading images"):
        chunk = range(start, min(start + CHUNK, len(records)))
        for i, item in zip(chunk, records.fetch(chunk), strict=True):
            try:
                pixels[len(kept)] = decoder(item)
            except Unreadable as error:
                skipped.add(item.name, error)
                continue
            except ShapeMismatch as error:
                raise ShapeMismatch(f"{item.name}: {error}") from error
            kept.append(i)
            captions.append(item.captions)
            if uncaptioned is not None and not item.captions:
                uncaptioned.add(item.name)
    return torch.from_numpy(pixels[: len(kept)]), torch.tensor(kept), captions


def progress(steps: range, text: str, patience: float = 1.5) -> Iterator[int]:
    """Yield the steps; on a terminal, show a bar once they have taken longer than ``patience`` seconds."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(file=sys.stderr), transient=True)
    task, begun, shown = bar.add_task(text, total=len(steps)), time.monotonic(), False
    try:
        for done, step in enumerate(steps):
            if not shown and bar.console.is_terminal and time.monotonic() - begun > patience:
                bar.start()
                shown = True
            yield step
            bar.update(task, completed=done + 1)
    finally:
        if shown:
            bar.stop()
