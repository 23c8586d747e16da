"""The classifier of `guidon.measure.features` as a network to compare by: where nothing can be downloaded, and on small images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import ShapeMismatch
from guidon.measure.features import FeatureClassifier, quantise
from guidon.measure.networks.network import FeatureNetwork, NetworkObserver
from guidon.registry import register


@register("features", "classifier")
@dataclass(frozen=True)
class Classifier(FeatureNetwork):
    """A classifier that guidon trained on real images: its pooled last layer (D = 128 or 256) and its logits.

    Images must have the size that it was trained on; of grey images one for colours sees the same in each channel. Its figures
    compare with each other only: they are no FIDs of the literature.

    Args:
        folder: that `FeatureClassifier.save` wrote.
    """

    name: ClassVar[str] = "classifier"

    folder: str

    def open(self, device: torch.device | str = "cpu") -> ClassifierObserver:
        return ClassifierObserver(FeatureClassifier.load(Path(self.folder).expanduser()), device)


class ClassifierObserver(NetworkObserver):
    """Sees "classifier/features" (B, D) and "classifier/logits" (B, K).

    Args:
        classifier: trained.
        device: where it computes.

    Attributes:
        classes: the names of the K classes; none where nobody knows them.
    """

    def __init__(self, classifier: FeatureClassifier, device: torch.device | str = "cpu") -> None:
        super().__init__(Classifier.name, classifier, device, asdict(classifier.config))
        self.classifier, self.classes = classifier, classifier.config.names

    def see(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, Tensor]:
        config = self.classifier.config
        expected = (config.channels, config.size, config.size)
        if images.shape[1] == 1 and config.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        if tuple(images.shape[1:]) != expected:
            raise ShapeMismatch(
                f"the classifier looks at images {expected}, these are {tuple(images.shape[1:])};"
                " give them that size, or train one on images like these"
            )
        shown = quantise(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        features = self.classifier.embed(shown)
        return {"features": features, "logits": self.classifier.head(features)}
