"""The judge prefers what is real, and says what a fault costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guidon.errors import DataError
from guidon.measure.features import FeatureClassifier
from guidon.measure.judge import Judge

Digits = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def judge(classifier: FeatureClassifier, digits: Digits) -> Judge:
    return Judge.of(classifier, digits[0], manifold=600)


def test_real_images_score_well_and_every_fault_shows(judge: Judge, digits: Digits) -> None:
    _, _, images, labels = digits
    real = judge.score(images, labels)
    assert real["accuracy"] >= 0.98 and real["precision"] > 0.7 and real["recall"] > 0.7
    assert (real["n"], real["n_reference"], real["n_manifold"]) == (len(images), 1400, 600)

    noise = judge.score(torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1, labels)
    assert noise["accuracy"] < 0.3 and noise["frechet"] > 10 * real["frechet"] and noise["recall"] < 0.1

    wrong = judge.score(images, labels.flip(0))
    assert wrong["accuracy"] < 0.3 and wrong["frechet"] == pytest.approx(real["frechet"])

    only_threes = images[labels == 3].repeat(10, 1, 1, 1)
    collapsed = judge.score(only_threes, [3] * len(only_threes))
    assert collapsed["accuracy"] >= 0.9 and collapsed["recall"] < 0.3 and collapsed["frechet"] > 10 * real["frechet"]


def test_order_of_the_samples_does_not_matter(judge: Judge, digits: Digits) -> None:
    _, _, images, labels = digits
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    assert judge.score(images[order], labels[order]) == pytest.approx(judge.score(images, labels), rel=1e-6)


def test_too_few_samples_are_refused(judge: Judge, digits: Digits) -> None:
    with pytest.raises(DataError, match="at least four"):
        judge.score(digits[2][:3], digits[3][:3])
