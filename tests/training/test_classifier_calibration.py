"""Temperatures, calibration errors and accuracies over noise levels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training.tiny_classifier import tiny_classifier_recipe

from guidon.classifier import Classifier
from guidon.registry import parse
from guidon.training.calibrate import (
    SERIES,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    measured_levels,
    noisy_logits,
    read_report,
    write_report,
)


def honest(count: int = 40_000, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (N, K) and labels (N,) that are drawn from their very probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 1.5, 6.0])
def test_a_known_factor_on_the_logits_is_found_and_undone(factor):
    logits, labels = honest()
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)


def test_the_fitted_temperature_is_the_most_likely_one():
    logits, labels = honest(500)
    best = fit_temperature(3 * logits, labels)

    def loss(temperature: float) -> float:
        seen = F.cross_entropy(3 * logits.double() / temperature, labels).item()
        return seen + math.log(temperature) ** 2 / 2 / len(labels)

    assert loss(best) == pytest.approx(min(loss(best * math.exp(x / 200)) for x in range(-100, 101)), abs=1e-6)


def test_without_evidence_a_temperature_stays_near_1():
    """Ninety images all right, by a solid margin; and logits that say nothing at all."""
    labels = torch.arange(90) % 10
    solid = 6.0 * torch.nn.functional.one_hot(labels, 10)
    assert 0.4 < fit_temperature(solid, labels) < 1
    assert fit_temperature(torch.zeros(90, 10), labels) == pytest.approx(1, abs=1e-3)


def test_a_temperature_has_bounds():
    labels = torch.arange(10_000) % 2
    faint = 0.01 * torch.nn.functional.one_hot(labels, 2)
    assert fit_temperature(faint, labels) == pytest.approx(0.05, rel=1e-2)
    assert fit_temperature(500 * faint, 1 - labels) == pytest.approx(20, rel=1e-2)


def test_calibration_error_by_hand():
    """Five images in bins of a quarter: (0.9, 0.8) right and wrong, (0.6, 0.7) right, 0.5 wrong and at the edge of its bin."""
    confidence = torch.tensor([0.9, 0.8, 0.6, 0.7, 0.5], dtype=torch.float64)
    right = [True, False, True, True, False]
    logits = torch.stack([confidence, 1 - confidence], 1).log()
    labels = torch.tensor([0 if r else 1 for r in right])
    logits[4] = 0.0  # the first class is the guess of a tie
    by_hand = (abs(0.9 + 0.8 - 1) + abs(0.6 + 0.7 - 2) + abs(0.5 - 0)) / 5
    assert expected_calibration_error(logits, labels, bins=4) == pytest.approx(by_hand)


def test_calibration_error_of_the_honest_and_of_the_boasting():
    logits, labels = honest()
    assert expected_calibration_error(logits, labels) < 0.01
    sure = 100 * logits  # confidence 1, right as often as before
    wrong = 1 - (logits.argmax(1) == labels).double().mean().item()
    assert expected_calibration_error(sure, labels) == pytest.approx(wrong, abs=0.005)


@pytest.mark.parametrize(
    ("process", "first", "last", "count"),
    [
        ("edm(-0.6, 1.2, 0.01, 80)", 0.01, 80, 13),
        ("cosine", 0.01, 100, 13),
        ("flow", 0.01, 100, 13),
        ("vp-table('linear')", 0.0100005, 100, 13),
        ("vp-table('linear', zero_snr=true)", 0.0100005, 100, 13),
        ("ve(0.3, 4)", 0.3, 4, 5),
    ],
)
def test_measured_levels_stay_within_the_process(process, first, last, count):
    levels = [level.noise_level for level in measured_levels(parse("process", process))]
    assert levels == sorted(levels)
    assert len(levels) == count
    assert (levels[0], levels[-1]) == pytest.approx((first, last), rel=1e-3)
    assert all(any(math.isclose(level, known, rel_tol=1e-6) for known in SERIES) for level in levels[1:-1])


class Boasting(nn.Module):
    """In place of a network: tells the noisy pixel's class as a Gaussian classifier does, too surely by a factor.

    Images of one pixel are -1 or 1, so log p(1 | x) - log p(-1 | x) = 2 alpha x / sigma^2. The network is shown x over
    hypot(alpha, sigma), which is x for a variance-preserving process, and the clock.
    """

    def __init__(self, process, factor) -> None:
        super().__init__()
        self.process, self.factor, self.weight = process, factor, nn.Parameter(torch.zeros(1))

    def forward(self, x, time):
        level = self.process.level(float(time[0]) / 1000)
        slope = self.factor(level.noise_level) * 2 * level.alpha / level.sigma**2
        score = slope * x.flatten(1).mean(1)
        return torch.stack([-score / 2, score / 2], 1)


@pytest.fixture
def boasting():
    classifier = tiny_classifier_recipe().build((1, 8, 8), ["low", "high"])
    classifier.network = Boasting(classifier.process, lambda noise_level: 2 + noise_level)
    return classifier


def test_calibration_recovers_the_factor_at_each_noise_level(boasting):
    labels = torch.arange(20_000) % 2
    images = (2.0 * labels - 1).view(-1, 1, 1, 1)
    report = calibrate(boasting, images, labels, seed=0)
    for row in report.rows:
        known = 0.5 * (1 + math.erf(1 / (row.noise_level * math.sqrt(2))))  # the best that can be done
        assert row.accuracy == pytest.approx(known, abs=0.012)
        if 0.5 <= row.noise_level <= 5:  # below all are right, above the images say too little
            assert row.temperature == pytest.approx(2 + row.noise_level, rel=0.06)
            assert row.tempered_calibration_error < 0.012 < row.calibration_error
            assert row.tempered_cross_entropy < row.cross_entropy
    assert report.chance == 0.5
    # saved and used, the temperatures undo the factor also between the levels that were measured
    boasting.config = boasting.config.model_copy(update={"calibration": report.calibration})
    level = boasting.process.level_at(1.4)
    logits = noisy_logits(boasting, images, level, seed=1)
    x = level.alpha * images + level.sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tempered = boasting.calibrated().log_probs(x, level)
        plain = boasting.log_probs(x, level)
    gap = tempered[:, 1] - tempered[:, 0]
    torch.testing.assert_close((plain[:, 1] - plain[:, 0]) / gap, torch.full_like(gap, 3.4), rtol=0.07, atol=0)
    assert fit_temperature(logits, labels) == pytest.approx(3.4, rel=0.07)


def test_the_noise_is_a_function_of_the_seed_and_the_same_at_all_levels(boasting):
    images = torch.zeros(300, 1, 1, 1)  # the noise alone
    low, high = (boasting.process.level_at(level) for level in (0.5, 2.0))

    def noise(level, seed):
        score = noisy_logits(boasting, images, level, seed=seed)[:, 1] * 2
        return score * level.sigma / (2 * level.alpha * (2 + level.noise_level))

    torch.testing.assert_close(noise(low, 0), noise(high, 0))
    assert not torch.allclose(noise(low, 0), noise(low, 1))
    assert noise(low, 0).unique().numel() == 300


def test_a_report_is_read_back(boasting, tmp_path):
    labels = torch.arange(100) % 2
    report = calibrate(boasting, (2.0 * labels - 1).view(-1, 1, 1, 1), labels, seed=0)
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert isinstance(boasting, Classifier)
