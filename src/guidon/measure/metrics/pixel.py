"""Colour statistics of the pixels themselves: what too much guidance does to saturation, contrast and range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from guidon.errors import ShapeMismatch
from guidon.measure.estimate import Mean, Statistic
from guidon.measure.metric import Metric
from guidon.measure.observe import Observer, Rows
from guidon.registry import register

_LUMA = (0.299, 0.587, 0.114)  # Rec. 601


class Pixels(Observer):
    """Sees the saturation, contrast and clipping of images; grey images have no saturation.

    - saturation: the mean over pixels of ``(max - min) / max`` of the channels, 0 for black ones: the S of HSV, 0 to 1.
    - contrast: the standard deviation over pixels of the luma (Rec. 601) in 0 to 1, at most 1/2.
    - clipping: the share of channel values that are 0 or 255.

    Source: Smith, SIGGRAPH 1978 (HSV); Peli, J. Opt. Soc. Am. A 7 (1990), eq. 4 (contrast as a deviation).
    """

    name = "pixels"
    fingerprint = "hsv-s, deviation of rec601, 0 or 255; 1"

    def look(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, np.ndarray]:
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
            raise ShapeMismatch(
                f"pixels are read of uint8 images (B, 1 or 3, H, W), not {images.dtype} {tuple(images.shape)}; convert them"
            )
        values = images.cpu().float() / 255
        high = values.amax(1)
        saturation = ((high - values.amin(1)) / high.clamp_min(1 / 255)).mean((1, 2))
        weights = torch.tensor(_LUMA if images.shape[1] == 3 else (1.0,))
        contrast = torch.einsum("bchw,c->bhw", values, weights).flatten(1).std(1, correction=0)
        clipping = ((images == 0) | (images == 255)).float().mean((1, 2, 3))
        seen = {"saturation": saturation, "contrast": contrast, "clipping": clipping.cpu()}
        return {f"{self.name}/{what}": value.numpy() for what, value in seen.items()}


@dataclass(frozen=True)
class OfPixels(Metric):
    """The mean over images of something that `Pixels` saw."""

    better: ClassVar[Literal["higher", "lower"] | None] = None
    needs: ClassVar[tuple[str, ...]] = ("pixels",)
    aspect: ClassVar[str]
    most: ClassVar[float] = 1.0

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        return Mean(torch.from_numpy(np.array(sample[f"pixels/{self.aspect}"], np.float64)), (0, self.most))


@register("metric", "saturation")
@dataclass(frozen=True)
class Saturation(OfPixels):
    """The mean saturation of the pixels, 0 to 1; neither more nor less is better than what real images have.

    Source: Smith, SIGGRAPH 1978 (the S of HSV).
    """

    title: ClassVar[str] = "Saturation"
    about: ClassVar[str] = "Mean saturation of the pixels (S of HSV), 0 to 1."
    source: ClassVar[str] = "Smith 1978, Color gamut transform pairs"
    aspect: ClassVar[str] = "saturation"


@register("metric", "contrast")
@dataclass(frozen=True)
class Contrast(OfPixels):
    """The mean over images of the deviation of their luma, 0 to 1/2; neither more nor less is better than what real images have.

    Source: Peli, J. Opt. Soc. Am. A 7 (1990), eq. 4.
    """

    title: ClassVar[str] = "Contrast"
    about: ClassVar[str] = "Standard deviation of the luma within an image, 0 to 1/2."
    source: ClassVar[str] = "Peli 1990, Contrast in complex images"
    aspect: ClassVar[str] = "contrast"
    most: ClassVar[float] = 0.5


@register("metric", "clipping")
@dataclass(frozen=True)
class Clipping(OfPixels):
    """The share of channel values at either end of the range, 0 to 1; drawings on white have a large one of their own."""

    title: ClassVar[str] = "Clipping"
    about: ClassVar[str] = "Share of channel values that are 0 or 255."
    source: ClassVar[str] = "share of values"
    aspect: ClassVar[str] = "clipping"
