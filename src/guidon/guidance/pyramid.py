"""The Laplacian pyramid: an image as the sum of its frequency bands, at any size.

Blurring, halving and doubling act on rows and columns one after the other, so each is a small matrix for either side.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def laplacian(image: Tensor, levels: int) -> list[Tensor]:
    """Return the bands of images (..., H, W), from the highest frequencies to what is left, each half the size of the one before.

    A band is what is lost when its level is halved (binomial blur of five, then linear interpolation) and doubled again
    (interpolation, then blur). Borders are reflected; an odd side is halved upwards.

    Args:
        image: (..., H, W).
        levels: number of bands, >= 1.

    Source: Burt & Adelson 1983; the interpolation is kornia's, with which it agrees where all sides are even.
    """
    bands = []
    for _ in range(levels - 1):
        lower = halved(image)
        bands.append(image - doubled(lower, image.shape[-2:]))
        image = lower
    return [*bands, image]


def collapse(bands: Sequence[Tensor]) -> Tensor:
    """Return the images whose bands these are; the inverse of `laplacian`."""
    image = bands[-1]
    for band in reversed(bands[:-1]):
        image = band + doubled(image, band.shape[-2:])
    return image


def halved(image: Tensor) -> Tensor:
    """Return images (..., H, W) blurred and interpolated to half their size."""
    rows, columns = (_halving(side, image.dtype, image.device) for side in image.shape[-2:])
    return rows @ image @ columns.mT


def doubled(image: Tensor, size: Sequence[int]) -> Tensor:
    """Return images (..., h, w) interpolated to ``size`` and blurred."""
    sides = zip(image.shape[-2:], size, strict=True)
    rows, columns = (_doubling(side, to, image.dtype, image.device) for side, to in sides)
    return rows @ image @ columns.mT


@functools.lru_cache(maxsize=64)
def _halving(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return (_interpolation(n, (n + 1) // 2) @ _blur(n)).to(device, dtype)


@functools.lru_cache(maxsize=64)
def _doubling(n: int, m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return (_blur(m) @ _interpolation(n, m)).to(device, dtype)


def _interpolation(n: int, m: int) -> Tensor:
    """Return the matrix (m, n) that interpolates n numbers linearly at the middles of m equal parts."""
    unit = torch.eye(n, dtype=torch.float64)[None]
    return functional.interpolate(unit, size=m, mode="linear", align_corners=False)[0].T


def _blur(n: int) -> Tensor:
    """Return the matrix (n, n) that blurs with 1 4 6 4 1, reflected at the ends."""
    matrix, here = torch.zeros(n, n, dtype=torch.float64), torch.arange(n)
    period = max(2 * (n - 1), 1)  # of an endless row of reflections
    for offset, share in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
        there = (here + offset) % period
        matrix[here, torch.minimum(there, period - there)] += share / 16  # every row once for an offset
    return matrix
