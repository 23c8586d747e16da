"""What the training of a noisy classifier minimises: cross-entropy of images at random noise levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from guidon.classifier import Classifier
from guidon.noise import Level, Process
from guidon.training.batches import Batch, random_for
from guidon.training.run_recipe import Loss


@dataclass(frozen=True)
class NoiseDraw:
    """What chance decided for a batch of noisy images.

    Args:
        level: float64 (B,) in every field.
        noise: (B, C, H, W).
    """

    level: Level
    noise: Tensor

    def take(self, rows: slice) -> NoiseDraw:
        """Return the draw for some rows of the batch."""
        return NoiseDraw(self.level.take(rows), self.noise[rows])


def draw_noise(process: Process, shape: torch.Size, *, seed: int, step: int, device: torch.device) -> NoiseDraw:
    """Draw noise levels, spread evenly over the process's training times, and noise.

    Args:
        process: says which times training visits.
        shape: (B, C, H, W) of the whole batch, over all processes.
        seed, step: what everything here is a function of.
        device: where the noise is drawn; the same seed gives other noise on another kind of device.
    """
    host, there = torch.Generator(), torch.Generator(device)
    host.manual_seed(int(random_for("classifier times", seed, step).integers(2**63)))
    there.manual_seed(int(random_for("classifier noise", seed, step).integers(2**63)))
    times = process.sample_times(shape[0], host, stratified=True)
    return NoiseDraw(process.level(times), torch.randn(shape, generator=there, device=device))


class ClassifierLoss(Loss):
    """The cross-entropy of a classifier as a module of its own, so that autocast and data parallelism wrap the whole of it.

    Args:
        classifier: what is trained.

    Attributes:
        also: the accuracy on the last images seen, a scalar.

    Source: Dhariwal & Nichol, arXiv 2105.05233, section 4.1 and guided-diffusion, classifier_train.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.also: dict[str, Tensor] = {}

    def told(self, batch: Batch) -> Tensor | None:
        """Return the class ids of a batch, (B,)."""
        return batch.labels

    def forward(self, images: Tensor, labels: Tensor, draw: NoiseDraw) -> Tensor:
        """Return the cross-entropy of every image, float32 (B,).

        Args:
            images: (B, C, H, W) in [-1, 1].
            labels: (B,) class ids.
            draw: of the same batch.
        """
        at = draw.level.like(images)
        x = at.alpha * images + at.sigma * draw.noise  # (B, C, H, W)
        logits = self.classifier.logits(x, draw.level)  # (B, K)
        self.also = {"accuracy": (logits.argmax(1) == labels).float().mean().detach()}
        return F.cross_entropy(logits, labels, reduction="none")
