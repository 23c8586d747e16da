"""Small classifiers of points, trained in seconds: what classifier guidance meets in place of the exact one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidon.conditioning.condition import Context
from guidon.lab.mixture import Mixture, labels_of
from guidon.noise import Level, Process
from guidon.noise.level import Number


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
        steps: of Adam, the rate falling to 0 along half a cosine.
        seed: of everything random.
        noisy: whether it sees noisy points and their level; else clean ones alone, and knows no level.
        points: how many it ever sees, the same ones again and again; left out: new ones at every step.
        batch: points a step.
        rate: of Adam at first.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallClassifier(math.prod(truth.shape), truth.classes, knows_level=noisy)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    pool, pool_labels = _draw(truth, points or 64 * batch, generator)
    for _ in range(steps):
        chosen = torch.randint(len(pool), (batch,), generator=generator)
        x, labels = pool[chosen], pool_labels[chosen]
        alpha, sigma = torch.ones(batch), torch.zeros(batch)
        if noisy:
            at = process.level(process.sample_times(batch, generator))
            alpha, sigma = torch.as_tensor(at.alpha).float(), torch.as_tensor(at.sigma).float()
            x = alpha[:, None] * x + sigma[:, None] * torch.randn(x.shape, generator=generator)
        loss = F.cross_entropy(network(x, alpha, sigma), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plan.step()
    return network.double().requires_grad_(False)


def _draw(truth: Mixture, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points (N, D), float32, and their classes (N,), equally many of each."""
    each = -(-count // truth.classes)
    points = torch.cat([truth.sample(each, label, generator).flatten(1) for label in range(truth.classes)])
    return points.float(), torch.arange(truth.classes).repeat_interleave(each)
