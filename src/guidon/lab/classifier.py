"""Small classifiers of points, trained in seconds: what classifier guidance meets in place of the exact one."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidon.conditioning.condition import Context
from guidon.errors import BadValue
from guidon.lab.learn import learn
from guidon.lab.mixture import Mixture, labels_of
from guidon.noise import Level, Process
from guidon.noise.level import Number

POOL = 16384  # clean points of a classifier that is not to know them by heart


class Judges(Protocol):
    """What the engine asks of a classifier."""

    def log_prob(self, x: Tensor, level: Level, context: Context) -> Tensor:
        """Return log p(class | x_t), (B,), differentiable in ``x``."""
        ...


class SmallClassifier(nn.Module):
    """Logits of the classes at a noisy point; fits the engine, under the name "classifier".

    Args:
        dimensions: D of the points.
        classes: K.
        width: of its two hidden layers.
        knows_level: whether it is told the noise level.
    """

    def __init__(self, dimensions: int, classes: int, width: int = 64, *, knows_level: bool = True) -> None:
        super().__init__()
        self.knows_level = knows_level
        self.layers = nn.Sequential(
            nn.Linear(dimensions + 4 * knows_level, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, classes),
        )

    def forward(self, x: Tensor, alpha: Number, sigma: Number) -> Tensor:
        """Return logits (B, K) at states (B, D); alpha and sigma are numbers, or one for each state."""
        if self.knows_level:
            angle = torch.atan2(torch.as_tensor(sigma), torch.as_tensor(alpha)).to(x).reshape(-1, 1).expand(len(x), 1)
            x = torch.cat([x, *(wave(k * angle) for k in (1, 4) for wave in (torch.cos, torch.sin))], 1)
        return self.layers(x)

    def log_prob(self, x: Tensor, level: Level, context: Context) -> Tensor:
        """Return log p(class | x_t), (B,), differentiable in ``x`` (B, D)."""
        logits = self(x, level.alpha, level.sigma).log_softmax(1)
        return logits.gather(1, labels_of(context)[:, None])[:, 0]


def fit(
    truth: Mixture,
    process: Process,
    *,
    steps: int,
    seed: int,
    noisy: bool = True,
    points: int | None = None,
    batch: int = 256,
    rate: float = 3e-3,
) -> SmallClassifier:
    """Return a classifier trained by cross-entropy on points of a mixture.

    Args:
        truth: where points and their classes come from; classes in equal shares.
        process: what noises them.
        steps: of training, >= 1.
        seed: of everything random.
        noisy: whether it sees noisy points and their level; else clean ones alone, and knows no level.
        points: how many clean ones it ever sees, at least one of each class; left out: about `POOL`, the same ones at every
            step, with new noise.
        batch: points a step.
        rate: of Adam at first.

    Raises:
        BadValue: no step, or fewer points than classes.
    """
    if steps < 1:
        raise BadValue(f"a classifier is trained for one step or more, got {steps}")
    if points is not None and points < truth.classes:
        raise BadValue(f"{points} points are too few for one of each of {truth.classes} classes; give more")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallClassifier(math.prod(truth.shape), truth.classes, knows_level=noisy)
    pool, pool_labels = _draw(truth, POOL if points is None else points, generator)

    def loss() -> Tensor:
        chosen = torch.randint(len(pool), (batch,), generator=generator)
        x, labels = pool[chosen], pool_labels[chosen]
        alpha, sigma = torch.ones(batch), torch.zeros(batch)
        if noisy:
            at = process.level(process.sample_times(batch, generator))
            alpha, sigma = torch.as_tensor(at.alpha).float(), torch.as_tensor(at.sigma).float()
            x = alpha[:, None] * x + sigma[:, None] * torch.randn(x.shape, generator=generator)
        return F.cross_entropy(network(x, alpha, sigma), labels)

    learn(network, loss, steps=steps, rate=rate)
    return network


def _draw(truth: Mixture, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points (count, D), float32, and their classes (count,), equally many of each, but for what is left over."""
    each = [len(range(label, count, truth.classes)) for label in range(truth.classes)]
    points = torch.cat([truth.sample(n, label, generator).flatten(1) for label, n in enumerate(each)])
    return points.float(), torch.arange(truth.classes).repeat_interleave(torch.tensor(each))
