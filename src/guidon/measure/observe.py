"""Looking at a set of images once: what is seen is a row for each image, kept on disk, from which everything is measured.

Blocks of images are looked at in turn, or shared out over processes; which images stand in a block never depends on that, so
the rows do not either. Memory does not grow with the number of images, and what was seen before a run broke off is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from torch import Tensor

from guidon.checkpoints.atomic import write_text
from guidon.errors import BadValue, DamagedCheckpoint, DataError, MissingFile, NotSupported, SaveFailed

ROWS, DONE, IMAGES = "rows.json", "done.npy", "images"
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


class Rows:
    """What was seen of a set of images: for every aspect an array with a row for each image.

    Args:
        arrays: by aspect; "images" may hold the first few only.
        length: the number of images, N.
        told: ``labels``, ``classes``, ``captions`` as of an `ImageSet`, its ``fingerprint``, and ``observers``, the fingerprint of
            each by its name.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], length: int, **told: Any) -> None:
        self._arrays, self._length = arrays, length
        self.labels: np.ndarray | None = told.get("labels")
        self.classes: tuple[str, ...] | None = told.get("classes")
        self.captions: tuple[str, ...] | None = told.get("captions")
        self.fingerprint: str = told.get("fingerprint", "")
        self.observers: dict[str, str] = told.get("observers", {})

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, aspect: str) -> np.ndarray:
        if aspect not in self._arrays:
            raise NotSupported(
                f"nothing was seen of {aspect}, only {', '.join(self.aspects)}; measure again with what sees it"
            )
        return self._arrays[aspect]

    def __contains__(self, aspect: str) -> bool:
        return aspect in self._arrays

    @cached_property
    def aspects(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return tuple(sorted(self._arrays))

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, np.ndarray],
        *,
        labels: Sequence[int] | np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        captions: Sequence[str] | None = None,
        observers: Mapping[str, str] | None = None,
    ) -> Rows:
        """Return rows that are in memory already, each array (N, ...)."""
        lengths = {len(array) for aspect, array in arrays.items() if aspect != IMAGES}
        if len(lengths) != 1:
            raise BadValue(
                f"every array has a row for each image, these have {sorted(lengths)}; give arrays of one length"
            )
        return cls(
            dict(arrays),
            lengths.pop(),
            labels=None if labels is None else np.asarray(labels, np.int64),
            classes=None if classes is None else tuple(classes),
            captions=None if captions is None else tuple(captions),
            observers=dict(observers or {}),
        )

    @classmethod
    def open(cls, folder: str | Path) -> Rows:
        """Open the rows that `observe` has finished in a folder; raises `MissingFile` or `DamagedCheckpoint`."""
        folder = Path(folder)
        about = _about(folder)
        if about is None:
            raise MissingFile(f"{folder} holds no rows ({ROWS} is missing); measure the images first")
        try:
            finished = bool(np.load(folder / DONE).all())
            arrays = {aspect: np.load(folder / name, mmap_mode="r") for aspect, name in about["aspects"].items()}
            labels = np.load(folder / "labels.npy") if about["labels"] else None
        except (OSError, ValueError) as error:
            raise DamagedCheckpoint(
                f"the rows in {folder} cannot be read ({error}); delete the folder and measure again"
            ) from error
        if not finished:
            raise MissingFile(f"the rows in {folder} are not finished; measure the images again, what is there is kept")
        told = {key: tuple(about[key]) if about[key] is not None else None for key in ("classes", "captions")}
        return cls(
            arrays, about["n"], labels=labels, fingerprint=about["fingerprint"], observers=about["observers"], **told
        )


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

    Every process of a distributed run calls this and gets all rows; they share the folder.

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
    try:
        if rank == 0:
            _prepare(images, observers, folder, asked, block)
        wait()
        about = _about(folder)
        assert about is not None
        arrays = {aspect: open_memmap(folder / name, mode="r+") for aspect, name in about["aspects"].items()}
        done = open_memmap(folder / DONE, mode="r+")
        left = np.flatnonzero(done == 0)
        wait()  # nobody marks a block before all have counted
        for finished, number in enumerate(left[rank::processes].tolist(), 1):
            _keep(_seen(images, observers, number, about["block"]), number * about["block"], arrays)
            done[number] = 1
            done.flush()
            if on_block is not None:
                on_block(min(len(done), len(done) - len(left) + finished * processes), len(done))
    except OSError as error:
        raise SaveFailed(
            f"could not write {folder} ({error.strerror or error}); free space, then measure again"
        ) from error
    wait()
    return Rows.open(folder)


def team() -> tuple[int, int, Callable[[], None]]:
    """Return which process this is, of how many, and how to wait for the others."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return 0, 1, lambda: None
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return state.process_index, state.num_processes, state.wait_for_everyone


def leave_team() -> None:
    """End the group of processes, where there is one; what follows, one process does alone."""
    if team()[1] > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()


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
    about = _about(folder)
    if about is not None:
        told = {key: about[key] for key in asked}
        if told != asked:
            other = ", ".join(key for key in asked if told[key] != asked[key])
            raise BadValue(
                f"{folder} holds rows of another measurement (other {other}); choose another folder, or delete it"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    seen = _seen(images, observers, 0, block)
    lengths = {aspect: asked["keep_images"] if aspect == IMAGES else len(images) for aspect in seen}
    files = {aspect: aspect.replace("/", ".") + ".npy" for aspect, rows in lengths.items() if rows}
    arrays = {
        aspect: open_memmap(
            folder / name, mode="w+", dtype=seen[aspect].dtype, shape=(lengths[aspect], *seen[aspect].shape[1:])
        )
        for aspect, name in files.items()
    }
    _keep(seen, 0, arrays)
    if images.labels is not None:
        np.save(folder / "labels.npy", images.labels)
    done = np.zeros(-(-len(images) // block), np.uint8)
    done[0] = 1
    np.save(folder / DONE, done)
    told = {"labels": images.labels is not None, "classes": images.classes, "captions": images.captions}
    write_text(folder / ROWS, json.dumps(asked | told | {"block": block, "aspects": files}))


def _about(folder: Path) -> dict[str, Any] | None:
    """Return what is known of the rows in a folder; None where there are none."""
    try:
        about: dict[str, Any] = json.loads((folder / ROWS).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{folder / ROWS} cannot be read ({error}); delete the folder and measure again"
        ) from error
    return about
