"""Training of the lab's small networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def learn(network: nn.Module, loss: Callable[[], Tensor], *, steps: int, rate: float = 3e-3) -> list[float]:
    """Train a network, freeze it in float64, and return the loss of every step.

    Args:
        network: changed in place.
        loss: of a new batch.
        steps: of Adam, the rate falling to 0 along half a cosine.
        rate: at first.
    """
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=rate), []
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        found = loss()
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        plan.step()
        losses.append(found.item())
    network.double().requires_grad_(False)
    return losses
