"""How gradients become steps, and how the learning rate goes over a run."""

from __future__ import annotations

import math

import torch
from torch import nn

from guidon.training.recipe import TrainSection


def build_optimizer(model: nn.Module, train: TrainSection) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe; only matrices and kernels decay, not biases and norms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas, fused=True)


def learning_rate(train: TrainSection, step: int, progress: float) -> float:
    """Return the learning rate of a step.

    Args:
        train: has the peak, the warm-up and the shape.
        step: from 0.
        progress: how far the run is when the step begins, 0 to 1, by steps or by wall clock.
    """
    rise = min((step + 1) / train.warmup, 1.0) if train.warmup else 1.0
    left = 1 - min(progress, 1.0)
    fall = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[train.schedule]
    return train.lr * rise * fall
