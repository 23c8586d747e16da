"""Class accuracy: how often a classifier tells what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from guidon.errors import BadValue, DataError
from guidon.measure.distances import blocks, joined
from guidon.measure.estimate import Mean, Statistic
from guidon.measure.metric import Metric
from guidon.measure.metrics.seen import vectors
from guidon.measure.observe import Rows
from guidon.registry import register


@register("metric", "accuracy")
@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of images whose likeliest class is their label; images without a label (-1) do not count.

    Raises:
        BadValue: the images have no labels, or labels that the classifier does not know.
        DataError: none of them has one.
    """

    title: ClassVar[str] = "Accuracy"
    better: ClassVar[Literal["higher", "lower"] | None] = "higher"
    needs: ClassVar[tuple[str, ...]] = ("logits", "labels")
    networks: ClassVar[tuple[str, ...]] = ("classifier",)
    about: ClassVar[str] = "Share of images that a classifier of real images takes for what was asked for."
    source: ClassVar[str] = "share of images"

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        logits = vectors(sample, f"{network}/logits", 1)
        if sample.labels is None:
            raise BadValue("accuracy needs labels, and the images have none; measure images with labels")
        labels = torch.as_tensor(sample.labels)
        if int(labels.max()) >= logits.shape[1]:
            raise BadValue(
                f"labels reach to {int(labels.max())}, and {network} tells {logits.shape[1]} classes apart; take a classifier"
                " of the same classes"
            )
        if not bool((labels >= 0).any()):
            raise DataError("no image has a label; measure images with labels")
        told = joined((block.argmax(1) for block in blocks(logits)), len(logits))
        return Mean((told == labels).double().masked_fill(labels < 0, torch.nan), (0, 1))
