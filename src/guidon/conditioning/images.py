"""Images beside the image: what a network that enlarges or completes is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from guidon.errors import BadValue, ShapeMismatch

Pictures = Tensor | Image.Image | Sequence[Image.Image]
FAR = 10.0  # a value that no image in [-1, 1] has, nor its noise or its latent, but one in 0..255


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


def beside_noise(
    shape: tuple[int, int, int],
    count: int,
    *,
    low_res: tuple[int, int] | None,
    completes: bool,
    image: Pictures | None = None,
    inpaint: Pictures | None = None,
    repaint: Pictures | None = None,
) -> Tensor | None:
    """Return what a model is shown beside the noisy image: (count, channels, H, W); None where it is shown nothing.

    Known pixels come first, zero where they are not known, then a mask that is 1 where they are, then the enlarged small image.

    Args:
        shape: of an image that the model gives, (C, H, W).
        count: how many are sampled.
        low_res: (h, w) of the images that it enlarges; None for a model that enlarges none.
        completes: whether it completes images.
        image, inpaint, repaint: as `Model.sample` has them.

    Raises:
        BadValue: there is an image that the model has no use for, or one that it needs is missing.
        ShapeMismatch: an image is of another size.
    """
    small = small_images(image, low_res, shape[0])
    parts = known_pixels(shape, count, inpaint, repaint) if completes else []
    if not completes and (inpaint is not None or repaint is not None):
        raise BadValue("this model completes no image; leave inpaint and repaint out, or take an inpainting model")
    if small is not None:
        parts.append(enlarged(small, shape[1:], count))
    return torch.cat(parts, dim=1) if parts else None


def known_pixels(
    shape: tuple[int, int, int], count: int, inpaint: Pictures | None, repaint: Pictures | None
) -> list[Tensor]:
    """Return the pixels that are known, zero elsewhere, (count, C, H, W), and a mask of them, (count, 1, H, W)."""
    if (inpaint is None) != (repaint is None):
        raise BadValue(
            "inpaint is a picture and repaint says which of its pixels are painted anew; give both, or neither"
        )
    if inpaint is None or repaint is None:
        return [torch.zeros(count, shape[0], *shape[1:]), torch.zeros(count, 1, *shape[1:])]
    picture = as_tensor(inpaint, shape[0], "completes")
    anew = repaint if isinstance(repaint, Tensor) else (as_tensor(repaint, 1, "completes") > 0).float()
    for given, channels in ((picture, shape[0]), (anew, 1)):
        if given.ndim != 4 or tuple(given.shape[1:]) != (channels, *shape[1:]) or len(given) not in (1, count):
            raise ShapeMismatch(
                f"this model completes images of {shape[1]}x{shape[2]}, not {tuple(given.shape)}; resize picture and mask to "
                "that, and give one for all or one for each image"
            )
    if not ((anew >= 0) & (anew <= 1)).all():
        raise BadValue(
            f"repaint goes from 0, kept, to 1, painted anew, and there is {_furthest(anew):g}; scale it to that"
        )
    mask = (1 - anew.float()).expand(count, -1, -1, -1)
    return [picture * mask, mask]


def small_images(image: Pictures | None, size: tuple[int, int] | None, channels: int) -> Tensor | None:
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
    image = as_tensor(image, channels, "enlarges")
    if image.ndim != 4 or tuple(image.shape[1:]) != (channels, *size):
        raise ShapeMismatch(
            f"this model enlarges images of {size[0]}x{size[1]}, {channels} channels, not {tuple(image.shape[1:])}; resize them"
        )
    return image


def as_tensor(image: Pictures, channels: int, verb: str) -> Tensor:
    """Return pictures as a tensor (N, C, h, w) in [-1, 1]; one that is a tensor stays as it is.

    Raises:
        BadValue: there is none, or it is not of floats, or far outside of [-1, 1].
        ShapeMismatch: they differ in size.
    """
    if not isinstance(image, Tensor):
        pictures = [image] if isinstance(image, Image.Image) else list(image)
        modes = {1: "L", 3: "RGB"}
        if not pictures or channels not in modes:
            raise BadValue(
                "no image is given; give one, or one for each that is sampled"
                if not pictures
                else f"this model {verb} images of {channels} channels, which no picture has; give a tensor (N, {channels}, h, w)"
            )
        pixels = [
            np.asarray(picture.convert(modes[channels])).reshape(picture.height, picture.width, channels)
            for picture in pictures
        ]
        if len({p.shape for p in pixels}) > 1:
            raise ShapeMismatch(
                f"the images differ in size: {sorted({p.shape[:2] for p in pixels})}; resize them to one size"
            )
        image = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    if not image.is_floating_point():
        raise BadValue(f"an image is of floats in [-1, 1], not of {image.dtype}; divide by 127.5 and subtract 1")
    if not (image.abs() <= FAR).all():
        raise BadValue(f"an image is in [-1, 1], and there is {_furthest(image):g}; divide by 127.5 and subtract 1")
    return image


def _furthest(values: Tensor) -> float:
    """Return the value that is furthest from zero."""
    return values.flatten()[values.abs().argmax()].item()
