"""Bringing images to the size of a network: by PIL, one after the other, as the published figures were made.

PIL's filter grows with the factor (antialiasing) and rounds to 8 bits. It runs on the host, so that what a network is shown does not
depend on the device.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def squeezed(images: Tensor, size: int) -> Tensor:
    """Return images (B, 3, size, size), resized bicubically without regard to their proportions; uint8 in and out."""
    return _resized(images, size, size)


def cropped(images: Tensor, size: int) -> Tensor:
    """Return the middle square (B, 3, size, size) of images whose shorter side was resized bicubically; uint8 in and out."""
    height, width = images.shape[2:]
    short = min(height, width)
    height, width = height * size // short, width * size // short
    top, left = (height - size) // 2, (width - size) // 2
    return _resized(images, height, width)[:, :, top : top + size, left : left + size]


def normalised(images: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...], device: torch.device) -> Tensor:
    """Return images uint8 (B, 3, H, W) as float32, in deviations from a mean of each channel; both are of [0, 1]."""
    shift, scale = (torch.tensor(values, device=device)[:, None, None] for values in (mean, deviation))
    return (images.to(device).float() / 255 - shift) / scale


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    if tuple(images.shape[2:]) == (height, width):
        return images
    pictures = (Image.fromarray(pixels) for pixels in images.permute(0, 2, 3, 1).contiguous().cpu().numpy())
    made = [np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)
