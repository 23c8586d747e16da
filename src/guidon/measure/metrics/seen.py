"""What metrics take from rows, checked, and what they keep of a reference that many samples are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from guidon.errors import BadValue, DataError, NumericalError, ShapeMismatch
from guidon.measure.distances import blocks
from guidon.measure.observe import Rows

T = TypeVar("T")

_kept: WeakKeyDictionary[Rows, dict[Any, Any]] = WeakKeyDictionary()


def vectors(rows: Rows, aspect: str, least: int = 2) -> np.ndarray:
    """Return an aspect (N, D) of some rows.

    Args:
        rows: what was seen.
        aspect: its name, such as "inception/features".
        least: images that there must be.

    Raises:
        NotSupported: nothing was seen of it.
        ShapeMismatch: it is not one vector an image.
        DataError: there are fewer images.
        NumericalError: a vector holds a NaN or an infinity.
    """
    array = rows[aspect]
    if array.ndim != 2:
        raise ShapeMismatch(f"{aspect} must be (N, D), one vector an image, not {array.shape}; observe the images anew")
    if len(array) < least:
        raise DataError(
            f"{len(array)} image{'s are' if len(array) != 1 else ' is'} too few to measure; take at least {least}, better a thousand"
        )
    kept(rows, ("finite", aspect), lambda: _check_finite(array, aspect))
    return array


def both(sample: Rows, reference: Rows | None, aspect: str, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return an aspect of a sample (N, D) and of what it is compared with (M, D); raises as `vectors`, and `BadValue` without either."""
    if reference is None:
        raise BadValue(f"{aspect} is compared with that of real images; give a reference")
    here, there = vectors(sample, aspect, least), vectors(reference, aspect, least)
    if here.shape[1] != there.shape[1]:
        raise ShapeMismatch(
            f"{aspect} of {here.shape[1]} and of {there.shape[1]} numbers cannot be compared; use one network for both"
        )
    return here, there


def kept(rows: Rows, key: Any, make: Callable[[], T]) -> T:
    """Return what ``make`` gives, made once for each key as long as the rows are there."""
    known = _kept.setdefault(rows, {})
    if key not in known:
        known[key] = make()
    result: T = known[key]
    return result


def _check_finite(array: np.ndarray, aspect: str) -> None:
    bad = sum(int((~torch.isfinite(block)).any(1).sum()) for block in blocks(array))
    if bad:
        raise NumericalError(f"{bad} of {len(array)} rows of {aspect} hold NaN or infinity; look at these images")
