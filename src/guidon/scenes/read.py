"""The parser: a picture as a scene, though it be blurred, noisy and slightly off colour, as a model draws it.

Each pixel is white mixed with one colour: the *ink*, from 0 to 1, is how much of it. Connected ink is one thing, unless it falls into
parts of different colours that are each like a shape. A shape's width follows from the sum of its ink and its middle from the centroid,
so what remains to be asked is which shape, so drawn, overlaps the ink best. Things of one colour that touch are read as one.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from guidon.errors import ShapeMismatch
from guidon.scenes.render import AREA, LOWER, cover
from guidon.scenes.scene import COLOURS, SHAPES, SIZES, Scene, Thing

INK = 0.5  # from here on a pixel belongs to a thing
SPECK = 8 / 32**2  # less of the image than this is dirt
LIKE = 0.75  # intersection over union with a shape, below which a thing is of no shape
NEAR = 0.45  # distance from a colour, in sides of the RGB cube, above which a thing is of no colour
MIDDLING = (SIZES["small"] * SIZES["big"]) ** 0.5

_NAMES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), np.float32) / 255
_FROM_WHITE = 1 - _PALETTE
_SQUARES = (_FROM_WHITE**2).sum(1)
_AROUND = np.ones((3, 3), bool)


def read(image: np.ndarray) -> Scene:
    """Return what is seen in an image (H, H, 3) uint8: every connected thing, whether or not its colour and shape can be told.

    Raises:
        ShapeMismatch: it is no square uint8 image of three channels.
    """
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeMismatch(
            f"an image of shapes is a uint8 array (H, H, 3), not {image.dtype} {image.shape}; for a tensor in [-1, 1] take"
            " ((x + 1) * 127.5).round().clamp(0, 255), channels last"
        )
    colours = image.astype(np.float32) / 255
    nearest, ink = _inks(colours)
    labels, _ = ndimage.label(ink > INK, _AROUND)
    speck = SPECK * image.shape[0] ** 2
    things: list[Thing] = []
    for i, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        window = (
            slice(max(0, rows.start - 2), rows.stop + 2),
            slice(max(0, columns.start - 2), columns.stop + 2),
        )
        whole = labels[window] == i
        if np.count_nonzero(whole) < speck:
            continue
        counts = np.bincount(nearest[window][whole], minlength=len(_NAMES))
        parts = [whole & (nearest[window] == c) for c in np.flatnonzero(counts >= speck)]
        several = [_thing(part, whole & ~part, colours, ink, window) for part in parts] if len(parts) > 1 else []
        if several and all(thing.shape is not None for thing in several):
            things += several
        else:
            things.append(_thing(whole, np.zeros_like(whole), colours, ink, window))
    return Scene(tuple(things))


def _inks(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which colour each pixel is mixed from (H, W), and how much of it there is (H, W) in [0, 1]."""
    from_white = 1 - colours
    along = from_white @ _FROM_WHITE.T  # (H, W, colours)
    amount = np.clip(along / _SQUARES, 0, 1)
    missed = amount * (amount * _SQUARES - 2 * along)  # squared distance, but for a term that all have
    nearest = missed.argmin(-1)
    return nearest, np.take_along_axis(amount, nearest[..., None], -1)[..., 0]


def _thing(
    part: np.ndarray, others: np.ndarray, colours: np.ndarray, ink: np.ndarray, window: tuple[slice, slice]
) -> Thing:
    """Return the thing that some connected pixels of a window are; ``others`` belong to something else."""
    side = len(ink)
    inks = ink[window]
    ordered = np.sort(inks[part])
    core = part & (inks >= ordered[len(ordered) // 2])
    distances = np.sqrt(((_PALETTE - colours[window][core].mean(0)) ** 2).sum(1))
    colour = _NAMES[distances.argmin()] if distances.min() <= NEAR else None

    full = ordered[-1 - len(ordered) // 5]  # the ink of a pixel that is covered: less than 1 in a pale thing
    mass = np.minimum(inks / full, 1) * (ndimage.binary_dilation(part, _AROUND) & ~others)
    total = float(mass.sum())
    x = float(mass.sum(0) @ (np.arange(mass.shape[1]) + 0.5)) / total
    y = float(mass.sum(1) @ (np.arange(mass.shape[0]) + 0.5)) / total
    best, shape, width, middle = -1.0, "", 0.0, 0.0
    for name in SHAPES:
        wide = (total / AREA[name]) ** 0.5
        drawn = cover(name, x, y - LOWER[name] * wide, wide, mass.shape)
        common = float(np.minimum(mass, drawn).sum())
        overlap = common / (total + float(drawn.sum()) - common)
        if overlap > best:
            best, shape, width, middle = overlap, name, wide, y - LOWER[name] * wide
    return Thing(
        colour,
        shape if best >= LIKE else None,
        "small" if width < MIDDLING * side else "big",
        (window[1].start + x) / side,
        (window[0].start + middle) / side,
    )
