"""Where the cells of a sweep are kept: one SQLite file of settings, figures and costs, and beside it a folder of rows for each cell.

A cell is entered when its rows are complete, in one transaction: what is in the file is whole, whatever ended the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guidon.errors import BadValue, DamagedCheckpoint, MissingFile, SaveFailed
from guidon.measure.estimate import Figure
from guidon.measure.observe import Rows
from guidon.study.passes import seen_in

FILE, FOLDER, LOCK = "cells.sqlite", "cells", ".lock"
FORMAT = 1  # of the file
TABLES = """
CREATE TABLE IF NOT EXISTS cells (
  key TEXT PRIMARY KEY, place INTEGER, axes TEXT NOT NULL, settings TEXT NOT NULL, cost TEXT NOT NULL, figures TEXT NOT NULL,
  against TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS trials (key TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, content TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Cost:
    """What the images of a cell took.

    Args:
        nfe: network evaluations an image, counted.
        seconds: of sampling all of them, without measuring.
        peak_memory: bytes at the most: of the GPU, or of the process where there is none; 0: unknown.
        images: how many.
    """

    nfe: float
    seconds: float
    peak_memory: int
    images: int


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep.

    Args:
        key: of everything that decides its images.
        axes: where it stands on each axis.
        settings: how its images were made, everything resolved; JSON-able.
        figures: what was measured.
        cost: what that took.
        folder: of its rows.
        against: what each figure was measured with, network and reference, as a fingerprint.
        failed: why figures are lacking that were asked for; it is not kept.
    """

    key: str
    axes: dict[str, Any]
    settings: dict[str, Any]
    figures: dict[str, Figure]
    cost: Cost
    folder: Path = field(compare=False)
    against: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict, compare=False)

    def rows(self) -> Rows:
        """Return what was seen of its images, by all networks; raises `MissingFile` where the folder is gone."""
        return seen_in(self.folder)


@dataclass(frozen=True)
class Trial:
    """What one image of a cell took, before the cell was made.

    Args:
        steps: of its run.
        nfe: network evaluations.
        seconds: of its sampling.
    """

    steps: int
    nfe: float
    seconds: float


class Store:
    """The cells of a sweep.

    Args:
        folder: of the sweep; made where it is missing.

    Raises:
        SaveFailed: it cannot be written.
        DamagedCheckpoint: the file in it is none of a sweep.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveFailed(f"cannot make the folder {folder} ({error.strerror}); choose another") from error
        with self._open() as file:
            file.executescript(TABLES)
            if not self._note(file, "format"):
                file.execute("INSERT OR IGNORE INTO notes VALUES ('format', ?)", (json.dumps(FORMAT),))
        if (found := self.note("format")) != FORMAT:
            raise DamagedCheckpoint(
                f"{self.folder / FILE} is of another format ({found}); update guidon, or choose another folder"
            )

    @classmethod
    def existing(cls, folder: str | Path) -> Store:
        """Open the store of a sweep that was begun; raises `MissingFile`."""
        if not (Path(folder) / FILE).is_file():
            raise MissingFile(f"{folder} holds no sweep ({FILE} is missing); give the folder that `guidon sweep` wrote")
        return cls(folder)

    def cells(self) -> list[Cell]:
        """Return the finished cells of the plan, in its order."""
        return self._cells("WHERE place IS NOT NULL ORDER BY place, rowid")

    def all_cells(self) -> dict[str, Cell]:
        """Return every finished cell by its key, those that the plan does not want any more as well."""
        return {cell.key: cell for cell in self._cells("ORDER BY rowid")}

    def put(self, cell: Cell, place: int | None = None) -> None:
        """Enter a finished cell, or its further figures."""
        row = (cell.key, place, *map(_json, (cell.axes, cell.settings, cell.cost, cell.figures, cell.against)))
        with self._open() as file:
            file.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def arrange(self, places: Mapping[str, Mapping[str, Any]]) -> None:
        """Put the finished cells into the order of a plan; those that it does not have are kept, but are no cells of it.

        Args:
            places: by key, where each cell of the plan stands on its axes.
        """
        rows = [(place, _json(axes), key) for place, (key, axes) in enumerate(places.items())]
        with self._open() as file:
            file.execute("UPDATE cells SET place = NULL")
            file.executemany("UPDATE cells SET place = ?, axes = ? WHERE key = ?", rows)

    def room(self, key: str) -> Path:
        """Return the folder of a cell's rows."""
        return self.room_in(self.folder, key)

    @staticmethod
    def room_in(folder: Path, key: str) -> Path:
        """Return the folder of a cell's rows in that of a sweep."""
        return folder / FOLDER / key

    def trial(self, key: str) -> Trial | None:
        """Return what one image of a cell took, where that is known."""
        with self._open() as file:
            found = file.execute("SELECT content FROM trials WHERE key = ?", (key,)).fetchone()
        return None if found is None else Trial(**json.loads(found[0]))

    def put_trial(self, key: str, trial: Trial) -> None:
        """Keep what one image of a cell took."""
        with self._open() as file:
            file.execute("INSERT OR REPLACE INTO trials VALUES (?, ?)", (key, _json(trial)))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from making cells here at the same time; raises `BadValue` where one does."""
        with (self.folder / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BadValue(
                    f"another sweep is at work in {self.folder}; wait for it, or choose another folder"
                ) from error
            yield

    def note(self, name: str) -> Any:
        """Return something about the whole sweep, such as its "plan"; None where there is none."""
        with self._open() as file:
            return self._note(file, name)

    def put_note(self, name: str, content: Any) -> None:
        """Keep something about the whole sweep, that JSON can hold."""
        with self._open() as file:
            file.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, _json(content)))

    def _note(self, file: sqlite3.Connection, name: str) -> Any:
        found = file.execute("SELECT content FROM notes WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def _cells(self, which: str) -> list[Cell]:
        with self._open() as file:
            rows = file.execute(f"SELECT key, axes, settings, cost, figures, against FROM cells {which}").fetchall()
        return [self._cell(key, *map(json.loads, parts)) for key, *parts in rows]

    def _cell(self, key: str, axes: Any, settings: Any, cost: Any, figures: Any, against: Any) -> Cell:
        read = {name: Figure(**figure) for name, figure in figures.items()}
        return Cell(key, axes, settings, read, Cost(**cost), self.room(key), against)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give a connection; what is changed is kept when the block ends well."""
        path = self.folder / FILE
        try:
            file = sqlite3.connect(path, timeout=60)
            try:
                with file:
                    yield file
            finally:
                file.close()
        except sqlite3.OperationalError as error:
            raise SaveFailed(f"cannot use {path} ({error}); free space, or choose another folder") from error
        except sqlite3.DatabaseError as error:
            raise DamagedCheckpoint(f"{path} is no file of a sweep ({error}); choose another folder") from error


def _json(content: Any) -> str:
    return json.dumps(content, default=dataclasses.asdict)
