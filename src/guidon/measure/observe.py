"""Looking at a set of images once: what is seen is a row for each image, kept on disk, from which everything is measured.

Blocks of images are looked at in turn, or shared out over processes; which images stand in a block never depends on that, so
the rows do not either. Memory does not grow with the number of images, and what was seen before a run broke off is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from torch import Tensor

from guidon.checkpoints.atomic import write_text
from guidon.errors import BadValue, DataError, SaveFailed
from guidon.measure.processes import alone, leave_team, team
from guidon.measure.rows import DONE, IMAGES, ROWS, Rows, about_of

__all__ = ["IMAGES", "ROWS", "ImageSet", "Observer", "OnBlock", "Rows", "digest", "leave_team", "observe", "team"]

OnBlock = Callable[[int, int], None]


class ImageSet(ABC):
    """Images that can be asked for by number, the same ones each time and in every process.

    Attributes:
        fingerprint: of their content, and of what was done to them before they are given.
        labels: (N,) int64, -1 where an image has none; None where none has.
        classes: the names of the labels, or None.
        captions: what is said of each, or None.
    """

    fingerprint: str
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    captions: tuple[str, ...] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def block(self, start: int, stop: int) -> Tensor:
        """Return the images from ``start`` up to ``stop``, uint8 (B, C, H, W)."""


class Observer(ABC):
    """Turns images into numbers, each image on its own.

    Attributes:
        name: what the names of its aspects begin with.
        fingerprint: of its weights, and of how it prepares images.
    """

    name: str
    fingerprint: str

    @abstractmethod
    def look(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, np.ndarray]:
        """Return aspects, as "inception/features", of images uint8 (B, C, H, W) and their captions: each (B, ...)."""


def observe(
    images: ImageSet,
    observers: Sequence[Observer],
    folder: str | Path,
    *,
    block: int = 250,
    keep_images: int = 0,
    on_block: OnBlock | None = None,
) -> Rows:
    """Look at all images and return the rows; what a folder holds already is not looked at again.

    Every process of a distributed run calls this and gets all rows; they share the folder. Of two commands that look at the same
    images the second waits for the first.

    Args:
        images: what to look at.
        observers: who looks.
        folder: where the rows are kept.
        block: images that are looked at together; rows that are there keep theirs.
        keep_images: so many of the first images are kept themselves.
        on_block: called with (blocks done, blocks) after each.

    Raises:
        BadValue: the folder holds rows of other images or observers.
        DataError: there are no images.
        SaveFailed: the folder cannot be written.
    """
    folder = Path(folder)
    if not len(images):
        raise DataError("there are no images to look at; give at least one")
    names = {observer.name: observer.fingerprint for observer in observers}
    if len(names) < len(observers):
        raise BadValue(
            f"two of the networks are called alike ({', '.join(o.name for o in observers)}); take one of each kind"
        )
    rank, processes, wait = team()
    asked = {
        "n": len(images),
        "fingerprint": images.fingerprint,
        "observers": names,
        "keep_images": min(keep_images, len(images)),
    }
    with alone(folder):
        if rank == 0:
            _prepare(images, observers, folder, asked, block)
        wait()
        about = about_of(folder)
        assert about is not None
        with _written(folder):
            arrays = {aspect: open_memmap(folder / name, mode="r+") for aspect, name in about["aspects"].items()}
            done = open_memmap(folder / DONE, mode="r+")
        left = np.flatnonzero(done == 0)
        wait()  # nobody marks a block before all have counted
        for finished, number in enumerate(left[rank::processes].tolist(), 1):
            seen = _seen(images, observers, number, about["block"])
            with _written(folder):
                _keep(seen, number * about["block"], arrays)
                done[number] = 1
                done.flush()
            if on_block is not None:
                on_block(min(len(done), len(done) - len(left) + finished * processes), len(done))
        wait()
    rows = Rows.open(folder)
    rows.classes = images.classes  # the fingerprint is of labels, whatever they are called
    return rows


def digest(*parts: Any) -> str:
    """Return a fingerprint of bytes, and of anything that JSON can hold, in 16 letters."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        total.update(b"\0")
    return total.hexdigest()[:16]


def _seen(images: ImageSet, observers: Sequence[Observer], number: int, block: int) -> dict[str, np.ndarray]:
    """Return everything that is seen of a block, and the block itself."""
    start, stop = number * block, min((number + 1) * block, len(images))
    pixels = images.block(start, stop)
    captions = None if images.captions is None else images.captions[start:stop]
    seen = {IMAGES: pixels.cpu().numpy()}
    for observer in observers:
        seen |= observer.look(pixels, captions)
    return seen


def _keep(seen: Mapping[str, np.ndarray], start: int, arrays: Mapping[str, np.memmap[Any, Any]]) -> None:
    """Put what was seen of a block into its place; of the images themselves those that are kept."""
    for aspect, array in arrays.items():
        room = array[start : start + len(seen[aspect])]
        room[:] = seen[aspect][: len(room)]
        array.flush()


def _prepare(images: ImageSet, observers: Sequence[Observer], folder: Path, asked: dict[str, Any], block: int) -> None:
    """Make the arrays, unless they are there; the first block tells what there is to be seen, and is in its place then."""
    about = about_of(folder)
    if about is not None:
        told = {key: about[key] for key in asked}
        if told != asked:
            other = ", ".join(key for key in asked if told[key] != asked[key])
            raise BadValue(
                f"{folder} holds rows of another measurement (other {other}); choose another folder, or delete it"
            )
        return
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
    seen = _seen(images, observers, 0, block)
    lengths = {aspect: asked["keep_images"] if aspect == IMAGES else len(images) for aspect in seen}
    files = {aspect: aspect.replace("/", ".") + ".npy" for aspect, rows in lengths.items() if rows}
    shapes = {aspect: (lengths[aspect], *seen[aspect].shape[1:]) for aspect in files}
    done = np.zeros(-(-len(images) // block), np.uint8)
    done[0] = 1
    told = {"labels": images.labels is not None, "classes": images.classes, "captions": images.captions}
    with _written(folder):
        arrays = {
            aspect: open_memmap(folder / name, mode="w+", dtype=seen[aspect].dtype, shape=shapes[aspect])
            for aspect, name in files.items()
        }
        _keep(seen, 0, arrays)
        if images.labels is not None:
            np.save(folder / "labels.npy", images.labels)
        np.save(folder / DONE, done)
        write_text(folder / ROWS, json.dumps(asked | told | {"block": block, "aspects": files}))


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Say of what cannot be written where that was."""
    try:
        yield
    except SaveFailed:
        raise
    except OSError as error:
        raise SaveFailed(
            f"could not write {folder} ({error.strerror or error}); free space, then measure again"
        ) from error
