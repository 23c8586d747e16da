"""The picture of a scene, antialiased: what fraction of each pixel a shape covers."""

from __future__ import annotations

import numpy as np

from guidon.errors import BadValue
from guidon.scenes.scene import COLOURS, SIZES, Scene

ARM = 0.36  # the arms of a cross are so wide, in widths of the cross
AREA = {"circle": np.pi / 4, "square": 1.0, "triangle": 0.5, "cross": 2 * ARM - ARM**2}  # of a shape of width 1
LOWER = {"circle": 0.0, "square": 0.0, "triangle": 1 / 6, "cross": 0.0}  # centroid below the middle of the bounding box
SMALLEST = 32
_PAINT = {name: np.array(rgb, np.float32) - 255 for name, rgb in COLOURS.items()}
_STEEP = 2 / 5**0.5  # from the horizontal distance to the side of a triangle to the distance


def render(scene: Scene, side: int) -> np.ndarray:
    """Return the image (side, side, 3) uint8 of a scene on white.

    Raises:
        BadValue: fewer than 32 pixels, on which small shapes cannot be told apart; a thing without colour or shape.
    """
    if side < SMALLEST:
        raise BadValue(f"shapes cannot be told apart on {side}x{side} pixels; set data.size to {SMALLEST} or more")
    image = np.full((side, side, 3), 255, np.float32)
    for thing in scene.things:
        if thing.colour is None or thing.shape is None:
            raise BadValue(f"a thing without {'colour' if thing.shape else 'shape'} cannot be drawn; name one")
        x, y, width = thing.x * side, thing.y * side, SIZES[thing.size] * side
        left, top = max(0, int(x - width / 2 - 1)), max(0, int(y - width / 2 - 1))
        box = image[top : int(y + width / 2 + 2), left : int(x + width / 2 + 2)]
        box += cover(thing.shape, x - left, y - top, width, box.shape[:2])[..., None] * _PAINT[thing.colour]
    return (image + 0.5).astype(np.uint8)


def cover(shape: str, x: float, y: float, width: float, window: tuple[int, ...]) -> np.ndarray:
    """Return the fraction of each pixel of a window that a shape covers, (H, W) float32.

    Args:
        shape: one of `SHAPES`.
        x, y: the middle of its bounding box, in pixels from the left and upper edge of the window.
        width: its width, which is its height, in pixels.
        window: (H, W).
    """
    rows, columns = _ticks(window[0]) - np.float32(y), _ticks(window[1]) - np.float32(x)  # pixel centres
    half = width / 2
    if shape == "square":
        return np.outer(_line(rows, half), _line(columns, half))
    if shape == "cross":
        arm = ARM * half
        tall, wide, thin, flat = _line(rows, half), _line(columns, half), _line(columns, arm), _line(rows, arm)
        return np.outer(tall, thin) + np.outer(flat, wide - thin)
    if shape == "circle":
        return _clip(half + 0.5 - np.sqrt(rows[:, None] ** 2 + columns**2))
    inside = (rows[:, None] + half) / 2 - np.abs(columns)
    return _clip(inside * _STEEP + 0.5) * _line(rows, half)[:, None]


def _ticks(count: int) -> np.ndarray:
    return np.arange(0.5, count, dtype=np.float32)


def _line(centres: np.ndarray, half: float) -> np.ndarray:
    """Return how much of the pixels at these centres lies within ``half`` of 0."""
    return np.clip(np.minimum(centres + 0.5, half) - np.maximum(centres - 0.5, -half), 0, 1)


def _clip(values: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(values, 0), 1)
