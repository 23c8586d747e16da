"""Conditions blurred by noise, for more diverse samples (CADS)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.perturbation import Corruption

RowNoise = Callable[[Sequence[int]], Tensor]
Drawn = dict[tuple[str, torch.Size], Tensor]


def corrupted(context: Context, how: Corruption, noise: RowNoise, drawn: Drawn) -> Context:
    """Return a context with noise in its vector, tokens and spatial parts; masks stay.

    Args:
        context: of B images.
        how: how much noise.
        noise: gives (B, *shape) from the images' own seeds.
        drawn: noise drawn already for this evaluation, by door and size; what is missing is drawn and added, so that all branches
            of an evaluation are told the same blurred condition.

    Source: Sadat et al., arXiv 2310.17347; mean and deviation are those of each image instead of the whole batch.
    """
    blurred: dict[str, Any] = {}
    for name in ("vector", "tokens", "spatial"):
        part = getattr(context, name)
        if part is None:
            continue
        key = name, part.shape[1:]
        if key not in drawn:
            drawn[key] = noise(part.shape[1:])
        real = context.mask if name == "tokens" else None
        blurred[name] = _blurred(part, how, drawn[key].to(part), real)
    return Context(mask=context.mask, **blurred)


def _blurred(part: Tensor, how: Corruption, noise: Tensor, real: Tensor | None) -> Tensor:
    """sqrt(keep) y + scale sqrt(1 - keep) n, then brought back to y's own mean and deviation, image by image."""
    y = math.sqrt(how.keep) * part + how.scale * math.sqrt(1 - how.keep) * noise
    if how.mixing == 0 or part[0].numel() == 1:
        return y
    mean, deviation = _moments(part, real)
    mean_now, deviation_now = _moments(y, real)
    back = (y - mean_now) / deviation_now.clamp_min(torch.finfo(y.dtype).tiny) * deviation + mean
    return how.mixing * back + (1 - how.mixing) * y


def _moments(part: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each image, of its real tokens only: how far others made it be padded must not count."""
    axes = tuple(range(1, part.ndim))
    if real is None:
        deviation, mean = torch.std_mean(part, axes, keepdim=True)
        return mean, deviation
    weight = real[..., None].to(part).expand_as(part)  # (B, L, D)
    count = weight.sum(axes, keepdim=True)
    mean = (part * weight).sum(axes, keepdim=True) / count.clamp_min(1)
    square = ((part - mean).square() * weight).sum(axes, keepdim=True)
    return mean, (square / (count - 1).clamp_min(1)).sqrt()
