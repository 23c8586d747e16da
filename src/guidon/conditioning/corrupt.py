"""Conditions blurred by noise, for more diverse samples (CADS)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.perturbation import Corruption

RowNoise = Callable[[Sequence[int]], Tensor]


def corrupted(context: Context, how: Corruption, noise: RowNoise, drawn: dict[str, Tensor]) -> Context:
    """Return a context with noise in its vector, tokens and spatial parts; masks stay.

    Args:
        context: of B images.
        how: how much noise.
        noise: gives (B, *shape) from the images' own seeds.
        drawn: noise drawn already for this evaluation, by door; what is missing is drawn and added, so that all branches of
            an evaluation are told the same blurred condition.

    Source: Sadat et al., arXiv 2310.17347, eq. 3-5.
    """
    parts = {name: getattr(context, name) for name in ("vector", "tokens", "spatial")}
    blurred = {}
    for name, part in parts.items():
        if part is None:
            continue
        if name not in drawn:
            drawn[name] = noise(part.shape[1:])
        blurred[name] = _blurred(part, how, drawn[name].to(part))
    return Context(mask=context.mask, **blurred)


def _blurred(part: Tensor, how: Corruption, noise: Tensor) -> Tensor:
    """sqrt(keep) y + scale sqrt(1 - keep) n, then brought back to y's own mean and deviation, image by image."""
    y = math.sqrt(how.keep) * part + how.scale * math.sqrt(1 - how.keep) * noise
    if how.mixing == 0 or part[0].numel() == 1:
        return y
    axes = tuple(range(1, part.ndim))
    deviation, mean = torch.std_mean(part, axes, keepdim=True)
    deviation_now, mean_now = torch.std_mean(y, axes, keepdim=True)
    back = (y - mean_now) / deviation_now.clamp_min(torch.finfo(y.dtype).tiny) * deviation + mean
    return how.mixing * back + (1 - how.mixing) * y
