"""A judge of handwritten digits, trained once for all tests of this folder."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from guidon.measure.features import FeatureClassifier, train_classifier


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to learn from, then images and labels held out."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(data.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[:1400]], labels[order[:1400]], images[order[1400:]], labels[order[1400:]]


@pytest.fixture(scope="session")
def classifier(digits: tuple[Tensor, Tensor, Tensor, Tensor]) -> FeatureClassifier:
    images, labels, _, _ = digits
    return train_classifier(images, labels, 10, epochs=12, batch=64, flip=False, precision="fp32")
