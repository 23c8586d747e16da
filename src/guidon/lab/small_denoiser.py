"""A small conditional denoiser on the line, trained in a second: for errors of training that a formula does not show."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from guidon.conditioning.condition import Context
from guidon.lab.learn import learn
from guidon.lab.mixture import NULL_LABEL, Mixture, labels_of
from guidon.noise import Level, Prediction, Process


class SmallDenoiser(nn.Module):
    """Believes in a noise, given a class or none; fits the engine.

    Args:
        classes: K; the row K of its embedding is the null that it learns.
        width: of its two hidden layers.

    Attributes:
        zero_null: tell it zeros in place of its own null.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        self.embedding, self.zero_null = nn.Embedding(classes + 1, 8), False
        self.layers = nn.Sequential(
            nn.Linear(1 + 2 + 8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def eps(self, x: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Return the noise at states (B, 1) with alpha and sigma (B,), given labels (B,); -1 is no class."""
        rows = self.embedding(torch.where(labels == NULL_LABEL, self.embedding.num_embeddings - 1, labels))
        if self.zero_null:
            rows = rows * (labels != NULL_LABEL)[:, None]
        return self.layers(torch.cat([x, alpha[:, None], sigma[:, None], rows], 1))

    def forward(self, x: Tensor, level: Level, context: Context) -> Prediction:
        """Return what is believed at ``x`` (B, 1)."""
        alpha, sigma = (torch.as_tensor(part).to(x).expand(len(x)) for part in (level.alpha, level.sigma))
        return Prediction.from_eps(x, self.eps(x, alpha, sigma, labels_of(context)), level)


def train(
    truth: Mixture, process: Process, *, steps: int, seed: int, same_noise: bool = True, batch: int = 256
) -> tuple[SmallDenoiser, list[float]]:
    """Return a denoiser trained on points of a mixture, and the loss of every step.

    One condition in ten is replaced by the null.

    Args:
        truth: where points come from, all classes in equal shares; 20 batches of each are drawn once.
        process: what noises them.
        steps: of Adam.
        seed: of everything random.
        same_noise: whether the noise that is to be found is the noise that was added; else another one.
        batch: points a step.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallDenoiser(truth.classes)
    pool = torch.stack([truth.sample(20 * batch, label, generator).float() for label in range(truth.classes)])

    def loss() -> Tensor:
        labels = torch.randint(truth.classes, (batch,), generator=generator)
        x0 = pool[labels, torch.randint(pool.shape[1], (batch,), generator=generator)]
        level = process.level(process.sample_times(batch, generator))
        alpha, sigma = torch.as_tensor(level.alpha).float(), torch.as_tensor(level.sigma).float()
        noise = torch.randn(x0.shape, generator=generator)
        added = noise if same_noise else torch.randn(x0.shape, generator=generator)
        dropped = torch.rand(batch, generator=generator) < 0.1
        given = torch.where(dropped, NULL_LABEL, labels)
        found = network.eps(alpha[:, None] * x0 + sigma[:, None] * added, alpha, sigma, given)
        return (found - noise).square().mean()

    return network, learn(network, loss, steps=steps)
