"""CLIP score: how far images show what their captions say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from guidon.errors import DataError, ShapeMismatch
from guidon.measure.distances import blocks, joined
from guidon.measure.estimate import Mean, Statistic
from guidon.measure.metric import Metric
from guidon.measure.metrics.seen import vectors
from guidon.measure.observe import Rows
from guidon.registry import register


@register("metric", "clip-score")
@dataclass(frozen=True)
class ClipScore(Metric):
    """The mean of 100 times the cosine between the features of image and caption, or 0 where they point apart.

    Images without a caption, whose text is NaN, do not count.

    Raises:
        ShapeMismatch: the features of images and captions differ in number.
        DataError: no image has a caption.

    Source: Hessel et al., arXiv 2104.08718, eq. 1, with the usual factor of 100 in place of its 2.5.
    """

    title: ClassVar[str] = "CLIP score"
    better: ClassVar[Literal["higher", "lower"] | None] = "higher"
    needs: ClassVar[tuple[str, ...]] = ("features", "text", "captions")
    about: ClassVar[str] = "Cosine between image and caption in the eyes of CLIP, 0 to 100."
    source: ClassVar[str] = "Hessel et al. 2021, arXiv 2104.08718"

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        images, texts = vectors(sample, f"{network}/features", 1), sample[f"{network}/text"]
        if images.shape != texts.shape:
            raise ShapeMismatch(
                f"features of images {images.shape} and of captions {texts.shape} differ; take both from one CLIP"
            )
        pairs = zip(blocks(images), blocks(texts), strict=True)
        scores = joined((100 * torch.cosine_similarity(*pair).clamp_min(0) for pair in pairs), len(images))
        if bool(scores.isnan().all()):
            raise DataError("no image has a caption; measure images with captions")
        return Mean(scores, (0, 100))
