"""Random crops: every image is moved by a few pixels and shows its own reflection at its edges, or shows a part of a larger one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def moved(pixels: Tensor, by: Tensor) -> Tensor:
    """Return images moved down and to the right: the crop, of their own size, of images padded with their reflection.

    Args:
        pixels: (B, C, H, W), of any type.
        by: (B, 2) int64, each smaller in size than the side along which it moves.
    """
    rows, columns = (
        _reflected(torch.arange(size) - way[:, None], size)  # (B, size)
        for size, way in zip(pixels.shape[2:], by.unbind(1), strict=True)
    )
    images, channels = torch.arange(pixels.shape[0]), torch.arange(pixels.shape[1])
    return pixels[images[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]]


def resized(pixels: Tensor, size: int, chance: Tensor | None = None) -> Tensor:
    """Return squares of larger images, resized with antialiasing: uint8 (B, C, size, size).

    Args:
        pixels: (B, C, S, S) uint8, S at least ``size``.
        size: of what is returned.
        chance: (B, 3) in [0, 1): how large each square is, its area even between that of ``size`` and of the whole, and where
            it stands, down and to the right; left out: the whole.
    """
    whole = pixels.shape[-1]
    if chance is None:
        return _scaled(pixels, size)
    areas = size**2 + chance[:, 0] * (whole**2 - size**2)
    sides = areas.sqrt().round().long()
    starts = ((whole + 1 - sides)[:, None] * chance[:, 1:]).long()
    squares = zip(pixels, starts.tolist(), sides.tolist(), strict=True)
    return torch.cat([_scaled(image[None, :, y : y + s, x : x + s], size) for image, (y, x), s in squares])


def _scaled(pixels: Tensor, size: int) -> Tensor:
    if pixels.shape[-1] == size:
        return pixels
    scaled = F.interpolate(pixels.float(), size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Return places outside 0..size-1 as those that they mirror; the edge itself is not repeated."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
