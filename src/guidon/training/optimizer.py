"""How gradients become steps, and how the learning rate goes over a run."""

from __future__ import annotations

import math
from typing import cast

import torch

from guidon.training.muon import Muon
from guidon.training.run_recipe import RunSection, Trained


def build_optimizers(model: Trained, train: RunSection) -> dict[str, torch.optim.Optimizer]:
    """Return the optimizers of a recipe by name; together they hold every parameter that is not frozen once.

    AdamW takes all, or with ``optimizer: muon`` what Muon is not for: embeddings, biases, norms, and the layers that touch
    pixels, words and time. Only matrices and kernels decay. Every group has its ``peak`` learning rate.
    """
    hidden: list[torch.nn.Parameter] = []
    if train.optimizer == "muon":
        for part in (model.network, getattr(model, "encoder", None)):
            ends = cast(tuple[str, ...] | None, getattr(part, "ends", None))
            if part is not None and ends is not None:
                named = part.named_parameters()
                hidden += [p for name, p in named if p.ndim > 1 and p.requires_grad and not name.startswith(ends)]
    taken = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "peak": train.lr, "weight_decay": train.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "peak": train.lr, "weight_decay": 0.0},
    ]
    optimizers: dict[str, torch.optim.Optimizer] = {"adamw": torch.optim.AdamW(groups, betas=train.betas, fused=True)}
    if hidden:
        matrices = [{"params": hidden, "peak": train.muon_lr, "weight_decay": train.weight_decay}]
        optimizers["muon"] = Muon(matrices)
    return optimizers


def share_of_peak(train: RunSection, step: int, progress: float) -> float:
    """Return the learning rate of a step as part of its peak, 0 to 1.

    Args:
        train: has the warm-up and the shape.
        step: from 0.
        progress: how far the run is when the step begins, 0 to 1, by steps or by wall clock.
    """
    rise = min((step + 1) / train.warmup, 1.0) if train.warmup else 1.0
    left = 1 - min(progress, 1.0)
    return rise * {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[train.schedule]
