"""From an encoded picture to pixels of one size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from guidon.errors import DataError, ShapeMismatch
from guidon.training.columns import Item

GREY_MODES = ("1", "L", "LA", "La", "I", "F")


class Unreadable(DataError):
    """One item cannot be turned into pixels; the data set goes on without it."""


@dataclass(frozen=True)
class Decoder:
    """Turns an `Item` into a uint8 array (C, H, W).

    Args:
        size: height and width to resize and crop to; None keeps the size of the picture.
        channels: 1 (grey) or 3 (RGB); None takes what the picture has.
        shape: the (C, H, W) that every picture must come to; None accepts any.
    """

    size: int | None
    channels: int | None
    shape: tuple[int, int, int] | None = None

    def __call__(self, item: Item) -> np.ndarray:
        """Return the pixels; raises `Unreadable` for a damaged picture, `ShapeMismatch` for one of another size."""
        if item.image is None:
            raise Unreadable("it has no image")
        try:
            pixels = self._pixels(item.image)
        except MemoryError:
            raise
        except (
            Exception
        ) as error:  # the decoders raise almost anything on damaged bytes: OSError, SyntaxError, zlib.error, ...
            raise Unreadable(_reason(error)) from error
        if self.shape is not None and pixels.shape != self.shape:
            (_, h, w), (_, height, width) = pixels.shape, self.shape
            raise ShapeMismatch(
                f"it is {h}x{w} pixels where the others have {height}x{width}; set data.size to bring all to one size"
            )
        return pixels

    def _pixels(self, image: Any) -> np.ndarray:
        if isinstance(image, np.ndarray):
            picture = Image.fromarray(image)
        else:
            picture = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
            if self.size is not None:
                picture.draft(
                    None, (2 * self.size, 2 * self.size)
                )  # a JPEG far too large is decoded at a fraction of it
            if picture.info.get("exif"):
                picture = ImageOps.exif_transpose(picture)
        picture = _to_mode(picture, self.channels)
        if self.size is not None:
            picture = fit(picture, self.size)
        pixels = np.asarray(picture)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def fit(picture: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to ``size`` (antialiased bicubic) and crop the middle to size x size."""
    width, height = picture.size
    if min(width, height) != size:
        scale = size / min(width, height)
        width, height = max(size, round(width * scale)), max(size, round(height * scale))
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return picture if width == height else picture.crop((left, top, left + size, top + size))


def _to_mode(picture: Image.Image, channels: int | None) -> Image.Image:
    grey = picture.mode in GREY_MODES or picture.mode.startswith("I;16")
    if picture.mode.startswith("I"):  # 16 bits: PIL would clip at 255 where it should scale
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    if picture.mode in ("LA", "RGBA", "PA") or "transparency" in picture.info:  # what is transparent is shown on white
        opaque = Image.new("RGBA", picture.size, "white")
        opaque.alpha_composite(picture.convert("RGBA"))
        picture = opaque
    mode = "L" if channels == 1 or (channels is None and grey) else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "cannot identify image file" in text:
        text = "cannot identify image file"  # PIL goes on with the address of a buffer
    return text[:160] or type(error).__name__
