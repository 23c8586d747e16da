"""What stages share that are not linear: the view they act on, and sums over an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.noise.prediction import SPACES, Prediction


def check_space(space: str) -> None:
    """Raise `BadValue` unless there is such a view of a prediction."""
    if space not in SPACES:
        raise BadValue(f"there is no space {space!r}; there are: {', '.join(SPACES)}")


def view(prediction: Prediction, space: str) -> Tensor:
    """Return one view of a prediction (B, ...): x0, eps, v, velocity or score."""
    found: Tensor = getattr(prediction, space)
    return found


def dot(a: Tensor, b: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Return the inner product over ``axes``, all but the first by default, kept as axes of length 1."""
    return (a * b).sum(tuple(range(1, a.ndim)) if axes is None else tuple(axes), keepdim=True)


def length(a: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Return the Euclidean length over ``axes``, as `dot` does."""
    return dot(a, a, axes).sqrt()


def along(a: Tensor, b: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Return the part of ``a`` that is parallel to ``b``; zero where ``b`` is zero."""
    return b * (dot(a, b, axes) / dot(b, b, axes).clamp_min(torch.finfo(b.dtype).tiny))


def deviation(a: Tensor) -> Tensor:
    """Return the standard deviation over each image, unbiased (B, 1, ...); much faster than `torch.std` over several axes."""
    apart = a - a.mean(tuple(range(1, a.ndim)), keepdim=True)
    return length(apart) / math.sqrt(a[0].numel() - 1)


def rescaled(guided: Tensor, given: Tensor, mix: float) -> Tensor:
    """Return ``guided`` with its standard deviation over each image moved towards that of ``given``.

    Args:
        guided, given: (B, ...).
        mix: 0 leaves it, 1 makes them equal.
    """
    if mix == 0 or guided[0].numel() < 2:  # one number has no standard deviation
        return guided
    have, want = deviation(guided), deviation(given)
    measurable = have > torch.finfo(have.dtype).eps * want  # a view that was set to zero has no size to change
    return guided * torch.lerp(torch.ones_like(have), torch.where(measurable, want / have, 1), mix)
