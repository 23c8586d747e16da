"""Muon: momentum whose update is made orthogonal, for the weight matrices and convolutions of a network.

Source: Jordan et al., https://kellerjordan.github.io/posts/muon/ (2024); `torch.optim.Muon` takes matrices only, convolutions are
matrices here too: (C', C, kH, kW) counts as (C', C kH kW).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # quintic iteration whose slope at 0 is largest; singular values end in about [0.7, 1.2]


class Muon(torch.optim.Optimizer):
    """Stochastic gradient descent with Nesterov momentum and orthogonal updates.

    Args:
        parameters: of two axes or more each.
        lr: how far a step goes, in units of an orthogonal matrix; about 0.02.
        momentum: part of the running mean of gradients that stays.
        weight_decay: decoupled, times ``lr``.
        steps: Newton-Schulz iterations.
    """

    def __init__(
        self,
        parameters: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make one step with the gradients that the parameters have; there is no closure."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for alike in by_shape.values():  # one batched product for all weights of a shape
                self._update(alike, **{key: group[key] for key in ("lr", "momentum", "weight_decay", "steps")})

    def _update(self, weights: list[Tensor], lr: float, momentum: float, weight_decay: float, steps: int) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["mean"] = torch.zeros_like(weight)
        means = [self.state[weight]["mean"] for weight in weights]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        ahead = torch.stack(torch._foreach_lerp(gradients, means, momentum))  # (n, out, in, ...)
        # the order of the columns is free, so channels-last memory is taken as it lies
        rows = ahead.movedim(2, -1) if ahead.ndim == 5 else ahead
        matrix = orthogonal(rows.flatten(2), steps)
        longer = max(1.0, matrix.shape[1] / matrix.shape[2]) ** 0.5
        update = matrix.view(rows.shape)
        update = update.movedim(-1, 2) if ahead.ndim == 5 else update
        if weight_decay:
            torch._foreach_mul_(weights, 1 - lr * weight_decay)
        torch._foreach_add_(weights, list(update.to(weights[0].dtype).unbind()), alpha=-lr * longer)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return the orthogonal factor, nearly, of every (m, n) matrix of a batch (b, m, n), in bfloat16."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
