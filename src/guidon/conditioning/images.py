"""Images beside the image: what a super-resolution network is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from guidon.errors import BadValue, ShapeMismatch

SmallImages = Tensor | Image.Image | Sequence[Image.Image]


def enlarged(images: Tensor, size: Sequence[int], count: int) -> Tensor:
    """Return small images enlarged bilinearly, one for each of ``count`` images: (count, C, H, W).

    Args:
        images: (1, C, h, w), the same for all, or (count, C, h, w); in [-1, 1].
        size: (H, W).
        count: how many images are sampled.

    Raises:
        ShapeMismatch: there are neither one nor ``count`` images.

    Source: Dhariwal & Nichol, arXiv 2105.05233, appendix on upsampling; corners are not aligned, as in the authors' code.
    """
    if images.ndim != 4 or len(images) not in (1, count):
        raise ShapeMismatch(
            f"small images of shape {tuple(images.shape)} for {count} images; give one of them, or one for each image, as (N, C, h, w)"
        )
    wide = F.interpolate(images.to(torch.float32), size=tuple(size), mode="bilinear", align_corners=False)
    return wide.expand(count, -1, -1, -1)


def small_images(image: SmallImages | None, size: tuple[int, int] | None, channels: int) -> Tensor | None:
    """Return the images that a super-resolution model enlarges, (N, C, h, w) in [-1, 1]; None for a model that enlarges none.

    Args:
        image: a tensor (N, C, h, w) in [-1, 1], a picture or several.
        size: (h, w) that the model was trained on; None for any other model.
        channels: C.

    Raises:
        BadValue: there is an image and the model enlarges none, or the other way round.
        ShapeMismatch: an image is of another size.
    """
    if size is None:
        if image is not None:
            raise BadValue("this model enlarges no image; leave it out, or take a super-resolution model")
        return None
    if image is None:
        raise BadValue(
            f"this model enlarges an image of {size[0]}x{size[1]}; give one with image=..., on the command line --image"
        )
    if not isinstance(image, Tensor):
        pictures = [image] if isinstance(image, Image.Image) else list(image)
        modes = {1: "L", 3: "RGB"}
        if not pictures or channels not in modes:
            raise BadValue(
                "no image is given; give one, or one for each that is sampled"
                if not pictures
                else f"this model enlarges images of {channels} channels, which no picture has; give a tensor (N, {channels}, h, w)"
            )
        pixels = [
            np.asarray(picture.convert(modes[channels])).reshape(picture.height, picture.width, channels)
            for picture in pictures
        ]
        if len({p.shape for p in pixels}) > 1:
            raise ShapeMismatch(
                f"the images differ in size: {sorted({p.shape[:2] for p in pixels})}; resize them to {size[0]}x{size[1]}"
            )
        image = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    if not image.is_floating_point():
        raise BadValue(f"a small image is of floats in [-1, 1], not of {image.dtype}; divide by 127.5 and subtract 1")
    if image.ndim != 4 or tuple(image.shape[1:]) != (channels, *size):
        raise ShapeMismatch(
            f"this model enlarges images of {size[0]}x{size[1]}, {channels} channels, not {tuple(image.shape[1:])}; resize them"
        )
    return image
