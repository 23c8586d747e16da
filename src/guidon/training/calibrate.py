"""How often a classifier is right at each noise level, how sure it is, and the temperatures that make the two agree."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from guidon.checkpoints.atomic import write_text
from guidon.classifier import Calibration, Classifier
from guidon.noise import Level, Process
from guidon.training.batches import random_for
from guidon.training.data import progress

REPORT = "accuracy.json"
SERIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Noise levels at which a classifier is measured, as far as its process reaches."""
COLDEST, HOTTEST = 0.05, 20.0  # bounds of a temperature
BINS = 15
CHUNK = 200


@dataclass(frozen=True)
class Row:
    """A classifier at one noise level.

    Args:
        noise_level: sigma / alpha.
        accuracy: share of the images whose class has the largest logit, 0 to 1.
        cross_entropy, calibration_error: of the classifier as it is, in nats and from 0 to 1.
        temperature: that fits best, see `fit_temperature`.
        tempered_cross_entropy, tempered_calibration_error: of the logits divided by it, on the images it was fitted to.
    """

    noise_level: float
    accuracy: float
    cross_entropy: float
    calibration_error: float
    temperature: float
    tempered_cross_entropy: float
    tempered_calibration_error: float


@dataclass(frozen=True)
class Report:
    """A classifier over noise levels.

    Args:
        images: how many it was measured on.
        chance: accuracy of a guess among the classes, 1 / K.
        rows: by rising noise level.
    """

    images: int
    chance: float
    rows: tuple[Row, ...]

    @property
    def calibration(self) -> Calibration:
        """The fitted temperatures."""
        return Calibration(
            noise_levels=tuple(row.noise_level for row in self.rows),
            temperatures=tuple(row.temperature for row in self.rows),
        )


def write_report(report: Report, folder: Path) -> None:
    """Write a report as accuracy.json into a run's folder; raises `SaveFailed`."""
    write_text(folder / REPORT, json.dumps(asdict(report), indent=2) + "\n")


def read_report(folder: Path) -> Report:
    """Return the report in a run's folder."""
    content = json.loads((folder / REPORT).read_text())
    return Report(**content | {"rows": tuple(Row(**row) for row in content["rows"])})


def calibrate(classifier: Classifier, images: Tensor, labels: Tensor, *, seed: int) -> Report:
    """Measure a classifier at noise levels over its process's range and fit a temperature to each.

    Args:
        classifier: whose raw logits are measured.
        images: (N, C, H, W) in [-1, 1] that it was not trained on.
        labels: (N,) class ids.
        seed: decides the noise, which is the same at every level.
    """
    levels = measured_levels(classifier.process)
    rows = []
    for i in progress(range(len(levels)), "measuring accuracy over noise levels"):
        rows.append(_row(float(levels[i].noise_level), noisy_logits(classifier, images, levels[i], seed=seed), labels))
    return Report(len(images), 1 / len(classifier.classes), tuple(rows))


def measured_levels(process: Process) -> list[Level]:
    """Return the levels of `SERIES` within a process's range, and where that range ends within the series."""
    least, most = (float(process.noise_level(t)) for t in (process.t_min, process.t_max))
    low, high = max(least, SERIES[0]), min(most, SERIES[-1])
    between = [level for level in SERIES if low * 1.01 < level < high / 1.01]
    return [process.level_at(level) for level in (low, *between, high)]


@torch.no_grad()
def noisy_logits(classifier: Classifier, images: Tensor, level: Level, *, seed: int) -> Tensor:
    """Return the raw logits (N, K), float32 on the CPU, of images (N, C, H, W) at a level; the noise is a function of the seed."""
    found, training = [], classifier.training
    classifier.eval()
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        generator = torch.Generator()
        generator.manual_seed(int(random_for("measured noise", seed, start).integers(2**63)))
        x = level.alpha * part + level.sigma * torch.randn(part.shape, generator=generator)
        found.append(classifier.logits(x.to(classifier.device), level).cpu())
    classifier.train(training)
    return torch.cat(found)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature, 0.05 to 20, by which logits (N, K) divided fit labels (N,) best.

    It is the most likely one if before any image its logarithm is normal about 0 with deviation 1: where all images are right, or
    noise leaves nothing to be seen, the cross-entropy alone would ask for no temperature in particular, or for none that is finite.

    Source: Guo et al., arXiv 1706.04599, section 4.2, without the prior.
    """
    exact = logits.double()

    def surprise(log_temperature: float) -> float:
        seen = F.cross_entropy(exact / math.exp(log_temperature), labels, reduction="sum")
        return float(seen) + log_temperature**2 / 2

    found = minimize_scalar(surprise, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return math.exp(found.x)


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return how far confidence and accuracy are apart, on average over the images, 0 to 1.

    The images are sorted into equal bins of confidence, the largest probability; in each bin the mean confidence is compared
    with the accuracy.

    Args:
        logits: (N, K).
        labels: (N,) class ids.
        bins: how many.

    Source: Guo et al., arXiv 1706.04599, equation 3.
    """
    confidence, guess = logits.double().softmax(1).max(1)
    surplus = confidence - (guess == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bin m holds ((m - 1) / bins, m / bins]
    return float(torch.zeros(bins, dtype=torch.float64).index_add_(0, place, surplus).abs().sum() / len(labels))


def _row(noise_level: float, logits: Tensor, labels: Tensor) -> Row:
    temperature = fit_temperature(logits, labels)
    tempered = logits / temperature
    return Row(
        noise_level=noise_level,
        accuracy=float((logits.argmax(1) == labels).double().mean()),
        cross_entropy=float(F.cross_entropy(logits, labels)),
        calibration_error=expected_calibration_error(logits, labels),
        temperature=temperature,
        tempered_cross_entropy=float(F.cross_entropy(tempered, labels)),
        tempered_calibration_error=expected_calibration_error(tempered, labels),
    )
