"""What was seen of a set of images: a row for each, in arrays on disk or in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from guidon.errors import BadValue, DamagedCheckpoint, MissingFile, NotSupported

ROWS, DONE, IMAGES = "rows.json", "done.npy", "images"


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
        about = about_of(folder)
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


def about_of(folder: Path) -> dict[str, Any] | None:
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
