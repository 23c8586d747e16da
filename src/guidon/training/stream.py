"""Data larger than memory: shards read from the front, shuffled block by block, resumable at any step.

An epoch visits the shards in a random order. Its items are taken in blocks of ``buffer``; a block is shuffled, used up, and
replaced by the next. A rolling buffer mixes a little better, but what it holds depends on everything before it; a block depends
only on where it begins, so the state of a stream is four integers, and resuming re-reads at most one shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, count, islice, repeat
from typing import Any

import numpy as np
import torch

from guidon.errors import DataError, ShapeMismatch, UnknownLabel
from guidon.training.batches import SOME, Batch, TrainingData, ahead, decoding_threads, random_for
from guidon.training.captions import said
from guidon.training.columns import Item, class_id
from guidon.training.pixels import Decoder, Unreadable
from guidon.training.records import Shards


@dataclass(frozen=True)
class Cursor:
    """Where a block begins.

    Args:
        position: how many items the stream gave before it, over all processes.
        epoch: which pass over the data, from 0.
        shard: the place in this epoch's order of shards.
        row: the first row within that shard.
    """

    position: int = 0
    epoch: int = 0
    shard: int = 0
    row: int = 0


@dataclass(frozen=True)
class Block:
    """Items in the order in which they are used, and the cursor they began at."""

    start: Cursor
    items: list[Item]


class StreamData(TrainingData):
    """Data that can only be read from the front. In place of an image that cannot be read stands the next one of its block.

    All processes read the same rows and each decodes its own part of a batch, so the batches do not depend on their number.

    Args:
        shards: the rows.
        decoder: with the shape that all images must have.
        buffer: items in a block.
    """

    def __init__(self, shards: Shards, decoder: Decoder, buffer: int, **common: Any) -> None:
        super().__init__(size=None, **common)
        self.shards, self.decoder, self.buffer = shards, decoder, buffer
        self._cursor = Cursor()

    def wordings(self) -> Iterator[str]:
        some = islice(self.shards.everything(), SOME)
        return (said(wording) for item in some for wording in item.captions)

    def state_dict(self) -> dict[str, Any]:
        """Return where the block of the last batch began, and the account of skipped items."""
        return super().state_dict() | {"cursor": asdict(self._cursor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a note of `state_dict`."""
        super().load_state_dict(state)
        self._cursor = Cursor(**state.get("cursor", {}))

    def _batches(self, batch_size: int, start_step: int, part: slice) -> Iterator[Batch]:
        skip = start_step * batch_size
        begin = self._cursor if self._cursor.position <= skip else Cursor()  # no state that fits: from the start
        pending = self._blocks(begin)
        blocks = ahead(
            repeat(partial(next, pending)), workers=1, depth=1
        )  # the next block is read while this one is used
        every = chain.from_iterable(((block, i) for i in range(len(block.items))) for block in blocks)
        places = islice(every, skip - begin.position, None)

        def jobs() -> Iterator[Any]:
            step = start_step
            while True:
                chosen = list(islice(places, batch_size))
                yield partial(self._decode, step, batch_size, part, chosen)
                step += 1

        for cursor, batch in ahead(jobs(), workers := decoding_threads(), 2 * workers):
            self._cursor = cursor
            yield batch

    def _decode(self, step: int, batch_size: int, part: slice, chosen: list[tuple[Block, int]]) -> tuple[Cursor, Batch]:
        read = [self._readable(block, i) for block, i in chosen[part]]
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in read]))
        labels = torch.tensor([class_id(item.label, self.classes) for _, item in read]) if self.classes else None
        told = self.captions_of([item for _, item in read])
        return chosen[-1][0].start, self._batch(step, batch_size, part, pixels, labels, told)

    def _readable(self, block: Block, index: int) -> tuple[np.ndarray, Item]:
        """Return (pixels, item) of an item or of the first readable one after it in its block."""
        for i in range(index, index + len(block.items)):
            item = block.items[i % len(block.items)]
            try:
                return self.decoder(item), item
            except (Unreadable, ShapeMismatch) as error:
                self.skipped.add(item.name, error)
        raise DataError("no image of this block can be read")

    def _blocks(self, start: Cursor) -> Iterator[Block]:
        """Yield the blocks from a cursor on, without end; a block in which nothing can be read is left out."""
        position, place, row = start.position, start.shard, start.row
        for epoch in count(start.epoch):
            before, rows = position, self._rows(epoch, place, row)
            while taken := list(islice(rows, self.buffer)):
                cursor = Cursor(position, epoch, taken[0][0], taken[0][1])
                order = random_for("block", self.seed, epoch, cursor.shard, cursor.row).permutation(len(taken))
                block = Block(cursor, [taken[i][2] for i in order])
                if self._any_readable(block):
                    position += len(taken)
                    yield block
            if position == before and (place, row) == (0, 0):
                raise DataError(
                    f"nothing in the stream can be read: {self.skipped.report()}. Are the files still there?"
                )
            place = row = 0

    def _rows(self, epoch: int, place: int, row: int) -> Iterator[tuple[int, int, Item]]:
        """Yield (place in the order of shards, row, item) for the rest of an epoch; items whose label fits no class are left out."""
        order = random_for("shards", self.seed, epoch).permutation(len(self.shards.readers))
        for here in range(place, len(order)):
            for number, item in self.shards.read(int(order[here]), row if here == place else 0):
                try:
                    if self.classes is not None:
                        class_id(item.label, self.classes)
                    yield here, number, item
                except UnknownLabel as error:
                    self.skipped.add(item.name, error)

    def _any_readable(self, block: Block) -> bool:
        try:
            self._readable(block, 0)
        except DataError:
            return False
        return True
