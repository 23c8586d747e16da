"""What observers have seen of the images of a cell, pass by pass, and as one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guidon.errors import MissingFile
from guidon.measure.observe import IMAGES, ROWS, ImageSet, Observer, OnBlock, Rows, digest, observe


def look(
    images: ImageSet, observers: Sequence[Observer], room: Path, keep: int, on_block: OnBlock | None = None
) -> Rows:
    """Return what all observers see of the images of a cell; those that have seen them are not asked again.

    Args:
        images: of the cell.
        observers: who must have seen them; their labels and classes are those that ``images`` has now.
        room: folder of the cell, with a folder for each pass.
        keep: so many of the first images are kept themselves; where fewer are, all are made again.
        on_block: called with (blocks done, blocks).
    """
    passes = finished_passes(room)
    seen = {item for rows in passes for item in rows.observers.items()}
    new = [observer for observer in observers if (observer.name, observer.fingerprint) not in seen]
    kept = max((rows for rows in passes if IMAGES in rows), key=_kept, default=None)
    lacking = kept is None or _kept(kept) < keep
    if new or not passes or (lacking and keep):
        whole = kept is not None and _kept(kept) == len(kept)
        looked_at = Kept(kept, images) if kept is not None and whole else images
        keep = keep if lacking else 0
        folder = room / digest(looked_at.fingerprint, {eye.name: eye.fingerprint for eye in new}, keep)
        observe(looked_at, new, folder, keep_images=keep, on_block=on_block)
    return seen_by(observers, images, room)


def seen_by(observers: Sequence[Observer], images: ImageSet, room: Path) -> Rows:
    """Return what these observers saw of the images of a cell, with the labels that ``images`` has now; raises `MissingFile`."""
    rows = seen_in(room, {observer.name: observer.fingerprint for observer in observers})
    rows.labels, rows.classes, rows.captions = images.labels, images.classes, images.captions
    return rows


def seen_in(folder: Path, wanted: Mapping[str, str] | None = None) -> Rows:
    """Return the rows of a cell, of all passes of observers over its images as one; raises `MissingFile` where there are none."""
    passes = finished_passes(folder)
    if not passes:
        raise MissingFile(f"{folder} holds no rows; do the sweep again, what is there is kept")
    return merged(passes, wanted)


def kept_images(folder: Path) -> int:
    """Return how many images of a cell are kept."""
    return max(map(_kept, finished_passes(folder)), default=0)


def finished_passes(folder: Path) -> list[Rows]:
    """Return the rows of each finished pass of observers over the images of a cell, the oldest first."""
    passes = []
    for path in sorted(folder.glob(f"*/{ROWS}"), key=lambda path: path.stat().st_mtime):
        with contextlib.suppress(MissingFile):  # a pass that was not finished
            passes.append(Rows.open(path.parent))
    return passes


def merged(passes: Sequence[Rows], wanted: Mapping[str, str] | None = None) -> Rows:
    """Return what was seen of the same images in several passes as one, with the labels of the last.

    Args:
        passes: the last one counts where two have the same aspect.
        wanted: fingerprints of observers by their names; what others of these names saw is left out.
    """
    arrays: dict[str, np.ndarray] = {}
    observers: dict[str, str] = {}
    wanted = wanted or {}
    for rows in passes:
        own = {name: mark for name, mark in rows.observers.items() if wanted.get(name, mark) == mark}
        other = rows.observers.keys() - own.keys()
        observers |= own
        arrays |= {aspect: rows[aspect] for aspect in rows.aspects if aspect.partition("/")[0] not in other}
    last = passes[-1]
    told = {name: getattr(last, name) for name in ("labels", "classes", "captions", "fingerprint")}
    return Rows(arrays, len(last), observers=observers, **told)


class Kept(ImageSet):
    """Sampled images as they were kept, all of them, for those who have not looked yet."""

    def __init__(self, rows: Rows, sampled: ImageSet) -> None:
        self._images, self.fingerprint = rows[IMAGES], sampled.fingerprint
        self.labels, self.classes, self.captions = sampled.labels, sampled.classes, sampled.captions

    def __len__(self) -> int:
        return len(self._images)

    def block(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(self._images[start:stop].copy())


def _kept(rows: Rows) -> int:
    return len(rows[IMAGES]) if IMAGES in rows else 0
