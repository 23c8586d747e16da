"""How far points in the plane are from a truth that can be drawn from, and how far it is from itself, by chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guidon.errors import BadValue

DRAWS = 5  # exact draws to compare with: ten pairs


def sliced_w2(a: Tensor, b: Tensor, directions: int = 64) -> float:
    """Return the sliced Wasserstein-2 distance of as many points as points in the plane.

    Args:
        a, b: float64 (N, 2).
        directions: evenly around half a circle, over which to take the root mean square.
    """
    angle = torch.arange(directions, dtype=torch.float64) * (math.pi / directions)
    along = torch.stack([angle.cos(), angle.sin()])
    return float(((a @ along).sort(0).values - (b @ along).sort(0).values).square().mean().sqrt())


def exact_draws(draw: Callable[[torch.Generator], Tensor], seed: int) -> list[Tensor]:
    """Return independent draws of the truth, each with a generator of its own, from a seed on."""
    return [draw(torch.Generator().manual_seed(seed + i)) for i in range(DRAWS)]


def apart(x: Tensor, draws: Sequence[Tensor]) -> float:
    """Return the mean distance of points (N, 2) to draws of the truth (N, 2)."""
    return sum(sliced_w2(x, draw) for draw in draws) / len(draws)


def chance(draws: Sequence[Tensor]) -> tuple[float, float]:
    """Return the mean and the largest distance over all pairs of draws of the truth (N, 2): what no sampler is to be blamed for.

    Raises:
        BadValue: fewer than two draws.
    """
    if len(draws) < 2:
        raise BadValue(f"the distance that chance makes is that of two draws or more, got {len(draws)}")
    found = [sliced_w2(a, b) for a, b in itertools.combinations(draws, 2)]
    return sum(found) / len(found), max(found)
