"""Random crops: every image is moved by a few pixels, and what comes in at its edges is its own reflection."""

from __future__ import annotations

import torch
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


def _reflected(index: Tensor, size: int) -> Tensor:
    """Return places outside 0..size-1 as those that they mirror; the edge itself is not repeated."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
