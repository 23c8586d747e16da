"""Thresholding: keeps the guided clean image in the range that images have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import About, Moment, State
from guidon.guidance.stage import Reshape
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("stage", "threshold")
@dataclass(frozen=True)
class Threshold(Reshape):
    """Clips the guided clean image to a fixed range.

    Args:
        low, high: the range of clean images, low < high.
        rederive: let the noise follow, so that x = alpha x0 + sigma eps stays true; else the noise stays as it was.

    Raises:
        BadValue: the range is empty.

    Source: "static thresholding" of Saharia et al., arXiv 2205.11487, sec. 2.3; Ho et al., arXiv 2006.11239, in code.
    """

    about: ClassVar[About] = About(
        formula="D clipped to [low, high]",
        ranges=("-1 to 1 for images in that range",),
        sources=("saharia2022photorealistic", "ho2020denoising"),
        notes="`clip_denoised` of guided-diffusion. In diffusers, DDIM keeps the noise unless use_clipped_model_output is "
        "set: rederive=false.",
    )

    low: float = -1.0
    high: float = 1.0
    rederive: bool = True

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise BadValue(f"a range of clean images needs low < high, got {self.low} and {self.high}")

    def reshape(self, guided: Prediction, given: Prediction, at: Moment, state: State) -> tuple[Prediction, State]:
        return with_x0(guided, guided.x0.clamp(self.low, self.high), self.rederive), state


@register("stage", "dynamic-threshold")
@dataclass(frozen=True)
class DynamicThreshold(Reshape):
    """Clips the guided clean image to a range of its own, where most of it lies, and shrinks that range to [-1, 1].

    Args:
        percentile: the share of an image's values, by size, that lie in its range, in (0, 1].
        most: the range never reaches further than this, >= 1; 1 is plain clipping to [-1, 1].
        rederive: let the noise follow, so that x = alpha x0 + sigma eps stays true; else the noise stays as it was.

    Raises:
        BadValue: a setting is out of its range.

    Source: Saharia et al., arXiv 2205.11487, sec. 2.3.
    """

    about: ClassVar[About] = About(
        formula="clip(D, -s, s) / s, s = the percentile of |D| over an image, in [1, most]",
        ranges=("percentile 0.9 to 0.995, for images in [-1, 1]", "not for latent images"),
        sources=("saharia2022photorealistic",),
        notes="Each image has its own s. The percentile is not in the paper; 0.995 is customary. In diffusers `most` is "
        "sample_max_value, with 1 as default.",
    )

    percentile: float = 0.995
    most: float = math.inf
    rederive: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 1:
            raise BadValue(f"a percentile lies in (0, 1], got {self.percentile}; 0.995 is customary")
        if not self.most >= 1:
            raise BadValue(f"the range of an image is at least [-1, 1], so most >= 1; got {self.most}")

    def reshape(self, guided: Prediction, given: Prediction, at: Moment, state: State) -> tuple[Prediction, State]:
        reach = quantile(guided.x0.abs().flatten(1), self.percentile).clamp(1.0, self.most)
        reach = reach.reshape(-1, *[1] * (guided.x0.ndim - 1))
        return with_x0(guided, guided.x0.clamp(-reach, reach) / reach, self.rederive), state


def quantile(values: Tensor, share: float) -> Tensor:
    """Return the value of each row (B, n) that a share of the row does not exceed, linear between neighbours (B,).

    As `torch.quantile`, but it sorts only what lies above: the faster, the larger the share.
    """
    place = share * (values.shape[1] - 1)
    below = math.floor(place)
    top = values.topk(values.shape[1] - below, dim=1).values  # the last is number ``below``, from 0, of the sorted row
    return torch.lerp(top[:, -1], top[:, -2], place - below) if place > below else top[:, -1]


def with_x0(prediction: Prediction, x0: Tensor, rederive: bool) -> Prediction:
    """Return a prediction of another clean image, with the noise that belongs to it or with the same noise."""
    at, eps = prediction.level.like(x0), prediction.eps
    eps = eps + (prediction.x0 - x0) * (at.alpha / at.sigma) if rederive else eps
    return Prediction(prediction.x, prediction.level, x0, eps, prediction.variance_fraction)
