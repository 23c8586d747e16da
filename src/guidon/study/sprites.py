"""The images of a sweep inside a page: for each cell one picture with its first images, small enough to be mailed."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from guidon.study.sheet import image_names, kept_images, picture
from guidon.study.store import Cell

IMAGES = (16, 9, 4, 1)  # images of a cell: as many of these as fit
ROOM = 2_500_000  # bytes of all images
LARGEST, CRISP = 96, 64  # pixels of an image's side: at most, and up to which nothing of it is lost


def sprites(cells: Sequence[Cell]) -> tuple[dict[str, Any] | None, list[str | None]]:
    """Return the size of an image and, for each cell, a picture of its first images as a data URL; None where it has none."""
    shots = [kept_images(cell, IMAGES[0]) for cell in cells]
    first = next((i for i, images in enumerate(shots) if images is not None), None)
    if first is None:
        return None, [None] * len(cells)
    images = shots[first]
    assert images is not None
    scale = min(1.0, LARGEST / max(images.shape[2:]))
    size = (max(1, round(images.shape[3] * scale)), max(1, round(images.shape[2] * scale)))
    made: list[bytes | None] = []
    for count in IMAGES:
        across = math.isqrt(count)
        made = [None if images is None else _sprite(images[:count], across, size) for images in shots]
        if sum(len(content) for content in made if content) <= ROOM:
            break
    count = min(count, *(len(images) for images in shots if images is not None))
    tile = {"width": size[0], "height": size[1], "across": across, "count": count}
    tile["names"] = image_names(cells[first], count)
    return tile, [None if content is None else data_url("webp", content) for content in made]


def _sprite(images: np.ndarray, across: int, size: tuple[int, int]) -> bytes:
    """Return images (N, C, H, W) in rows of a few as a WebP, each of a size (width, height)."""
    width, height = size
    whole = Image.new("RGB", (across * width, math.ceil(len(images) / across) * height))
    for i, pixels in enumerate(images):
        one = picture(pixels)
        one = one if one.size == size else one.resize(size, Image.Resampling.LANCZOS)
        whole.paste(one, (i % across * width, i // across * height))
    stream = io.BytesIO()
    whole.save(stream, "WEBP", lossless=max(size) <= CRISP, quality=85, method=4)
    return stream.getvalue()


def data_url(kind: str, content: bytes) -> str:
    """Return an image's file of a kind, such as "png", as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
