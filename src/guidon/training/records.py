"""Items that can be reached by number, items that can only be read from the front, and the account of those that could not be read."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from guidon.training.captions import Captions
from guidon.training.columns import Columns, Item

CHUNK = 256


class Account(ABC):
    """Counts items that something is the matter with, each once, with the reason; safe to use from several threads.

    Where several processes decode their own part of every batch, each counts what it met itself; the first one's is reported.

    Args:
        total: how many items there are in all; None where nobody knows.
    """

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, name: str, error: Exception | str = "") -> None:
        """Note an item."""
        with self._lock:
            self.reasons.setdefault(name, str(error))

    def __len__(self) -> int:
        return len(self.reasons)

    def items(self) -> list[tuple[str, str]]:
        """Return (name, reason) of everything noted so far."""
        with self._lock:
            return list(self.reasons.items())

    @abstractmethod
    def report(self, show: int = 5) -> str:
        """Return one line with how many there are; ``show`` are named."""

    @property
    def _of(self) -> str:
        return f" of {self.total:,}" if self.total is not None else ""

    def _named(self, show: int) -> str:
        named = ", ".join(f"{name} ({reason})" if reason else name for name, reason in self.items()[:show])
        more = f", and {len(self) - show:,} more" if len(self) > show else ""
        return named + more


class Skipped(Account):
    """The items that could not be read."""

    def report(self, show: int = 5) -> str:
        """Return one line such as ``3 of 50,000 images could not be read: a.png (image file is truncated), ...``; ``show`` are named."""
        if not self.reasons:
            return f"all{self._of} images could be read"
        return f"{len(self):,}{self._of} images could not be read: {self._named(show)}"


class Uncaptioned(Account):
    """The images of data with captions that have none of their own."""

    def report(self, show: int = 5) -> str:
        """Return one line such as ``3 of 50,000 images have no caption and train the null: a.png, b.png, c.png``; ``show`` are named."""
        if not self.reasons:
            return f"all{self._of} images have captions"
        return f"{len(self):,}{self._of} images have no caption and train the null: {self._named(show)}"


class Records(ABC):
    """Items that can be reached by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, indices: Sequence[int]) -> list[Item]:
        """Return the items with these numbers, in this order."""

    @abstractmethod
    def labels(self) -> list[int | str | None]:
        """Return the label of every item."""

    def captions(self) -> Iterator[Captions]:
        """Yield what is said of every item."""
        return (item.captions for item in self.everything())

    def everything(self) -> Iterator[Item]:
        """Yield all items in their order."""
        for start in range(0, len(self), CHUNK):
            yield from self.fetch(range(start, min(start + CHUNK, len(self))))


@dataclass(frozen=True)
class ListRecords(Records):
    """Items held in memory, still encoded."""

    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    def fetch(self, indices: Sequence[int]) -> list[Item]:
        return [self.items[i] for i in indices]

    def labels(self) -> list[int | str | None]:
        return [item.label for item in self.items]


@dataclass(frozen=True)
class TableRecords(Records):
    """Items of a memory-mapped `datasets.Dataset`."""

    table: Any
    columns: Columns

    def __len__(self) -> int:
        return len(self.table)

    def fetch(self, indices: Sequence[int]) -> list[Item]:
        found = rows([self.table[list(indices)]])
        return [self.columns.item(row, f"row {i}") for i, row in zip(indices, found, strict=True)]

    def labels(self) -> list[int | str | None]:
        table = self.table.select_columns(
            [c for c in self.columns.top if c == str(self.columns.label).partition(".")[0]]
        )
        labels_only = Columns(image="", label=self.columns.label, names=self.columns.names)
        return [labels_only.item(row, "").label for row in rows(table.iter(CHUNK))]

    def captions(self) -> Iterator[Captions]:
        table = self.table.select_columns(list(dict.fromkeys(c.partition(".")[0] for c in self.columns.told)))
        return (self.columns.captions(row) for row in rows(table.iter(CHUNK)))


@dataclass(frozen=True)
class Shards:
    """Items that can only be read from the front, in shards that can be visited in any order.

    Args:
        readers: one per shard; called, it starts a new pass over the rows of the shard.
        columns: what a row means.
        skipped: is told where and why a shard breaks off.
    """

    readers: Sequence[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]
    columns: Columns
    skipped: Skipped

    def read(self, shard: int, start: int = 0) -> Iterator[tuple[int, Item]]:
        """Yield (row number, item) of one shard from row ``start`` on; one that breaks off (a truncated file, say) ends there."""
        row = start - 1
        try:
            for row, (name, values) in islice(enumerate(self.readers[shard]()), start, None):
                yield row, self.columns.item(values, name)
        except Exception as error:
            self.skipped.add(f"the rest of shard {shard} after row {row}", error)

    def everything(self) -> Iterator[Item]:
        """Yield the items of all shards, one shard after the other."""
        for shard in range(len(self.readers)):
            yield from (item for _, item in self.read(shard))


def readers(dataset: Any, chunk: int, limit: int | None) -> list[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]:
    """Return a reader of (name, row) for every shard of a `datasets.IterableDataset`.

    Args:
        dataset: already reduced to the columns that matter.
        chunk: rows to read at once.
        limit: give the first so many rows only, as one shard, so that every epoch has the same ones.
    """
    count = dataset.num_shards

    def reader(i: int) -> Callable[[], Iterator[tuple[str, dict[str, Any]]]]:
        def read() -> Iterator[tuple[str, dict[str, Any]]]:
            part = dataset.shard(num_shards=count, index=i)  # anew: two passes over one of these would share its state
            for number, row in enumerate(rows(part.iter(chunk))):
                url, key = row.get("__url__"), row.get("__key__")
                yield (f"{Path(url).name} {key}" if url and key else f"shard {i} row {number}"), row

        return read

    readers = [reader(i) for i in range(count)]
    if limit is None:
        return readers
    return [lambda: islice(chain.from_iterable(read() for read in readers), limit)]  # the same items in every epoch


def rows(chunks: Iterable[dict[str, list[Any]]]) -> Iterator[dict[str, Any]]:
    """Yield one dictionary per row from chunks that hold a list per column."""
    for columns in chunks:
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))
