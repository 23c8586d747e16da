"""One impartial judge for every comparison: a classifier trained on real images, and what it sees in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.errors import DataError
from guidon.measure.distances import FeatureStatistics, frechet_distance
from guidon.measure.features import FeatureClassifier
from guidon.measure.manifold import precision_recall


@dataclass(frozen=True, eq=False)
class Judge:
    """Scores generated images against real ones in the feature space of one classifier.

    Args:
        classifier: trained on real images, never on samples.
        statistics: mean and covariance of all real images.
        reference: (M, D) features of the real images that stand for the real manifold.
    """

    classifier: FeatureClassifier
    statistics: FeatureStatistics
    reference: Tensor

    @classmethod
    def of(cls, classifier: FeatureClassifier, images: Tensor, *, manifold: int = 10_000, seed: int = 0) -> Judge:
        """Look at real images (N, C, H, W), uint8 or float in [-1, 1].

        Args:
            classifier: the eyes.
            images: the real images; all of them enter mean and covariance.
            manifold: at most this many of them, drawn with ``seed``, stand for the real manifold (the paper's 10,000).
            seed: of that draw.
        """
        features = classifier.features(images)
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
        return cls(classifier, FeatureStatistics.of(features), features[order[:manifold]])

    def score(self, samples: Tensor, labels: Tensor | Sequence[int]) -> dict[str, float]:
        """Measure samples (N, C, H, W) in [-1, 1] that were asked to show ``labels`` (N,).

        Returns:
            ``accuracy`` (share recognised as what was asked for), ``frechet`` (distance to all real images), ``precision``
            and ``recall`` (k = 3, against ``n_manifold`` real images), and the numbers behind them: ``n``, ``n_reference``,
            ``n_manifold``.

        Raises:
            DataError: fewer than four samples.
        """
        if len(samples) < 4:
            raise DataError(f"{len(samples)} samples are too few to measure; sample at least four, better a thousand")
        features = self.classifier.features(samples)
        precision, recall = precision_recall(self.reference, features)
        return {
            "accuracy": self.classifier.accuracy(samples, labels),
            "frechet": frechet_distance(FeatureStatistics.of(features), self.statistics),
            "precision": precision,
            "recall": recall,
            "n": len(samples),
            "n_reference": self.statistics.n,
            "n_manifold": len(self.reference),
        }
