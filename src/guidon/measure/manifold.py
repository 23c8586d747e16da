"""Fidelity and variety told apart: improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991).

A set of features stands for its manifold as a union of balls, one around each vector, reaching to its k-th nearest
neighbour. Precision is the share of generated images inside the real manifold; recall is the share of real images inside
the generated one. Guidance trades the second for the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from guidon.errors import BadValue, DataError, ShapeMismatch

_ENTRIES = 8_000_000  # distances held at once: 64 MB in float64
_SLACK = 1e-9  # squared distances come from a matrix product; this much of their scale is rounding


def precision_recall(real: Tensor, generated: Tensor, *, k: int = 3) -> tuple[float, float]:
    """Return (precision, recall), each in [0, 1].

    Both depend on how many vectors each set holds, so compare only what was measured with the same numbers.

    Args:
        real: (M, D) features of real images.
        generated: (N, D) features of generated images.
        k: which neighbour sets a ball's radius; the paper's choice is 3.

    Raises:
        ShapeMismatch: the sets have different dimensions.
        DataError: a set has no k-th neighbour (k + 1 vectors are needed).
    """
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ShapeMismatch(
            f"features must be (M, D) and (N, D), not {tuple(real.shape)} and {tuple(generated.shape)}; use one judge for both"
        )
    centre = real.double().mean(0)  # distances do not change, their rounding errors shrink
    real, generated = real.double() - centre, generated.double() - centre
    precision = _share_inside(generated, real, radii(real, k))
    recall = _share_inside(real, generated, radii(generated, k))
    return precision, recall


def radii(features: Tensor, k: int) -> Tensor:
    """Return the squared distance (N,) from every vector (N, D) to its k-th nearest neighbour, itself not counted."""
    if k < 1:
        raise BadValue(f"k is the number of a neighbour, at least 1, not {k}")
    if len(features) <= k:
        raise DataError(f"{len(features)} feature vectors have no {k}. neighbour each; measure at least {k + 1} images")
    nearest = [block.topk(k + 1, largest=False).values[:, k] for block in _squared_distances(features, features)]
    return torch.cat(nearest)


def _share_inside(points: Tensor, centres: Tensor, radius: Tensor) -> float:
    """Return the share of points (N, D) that lie in a ball around any centre (M, D) with squared radius (M,)."""
    reach = radius + _SLACK * (centres.square().sum(1) + radius)
    inside = [(block <= reach).any(1) for block in _squared_distances(points, centres)]
    return torch.cat(inside).double().mean().item()


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Yield the squared distances (rows, M) between blocks of rows of ``a`` (N, D) and all of ``b`` (M, D)."""
    squares = b.square().sum(1)
    for block in a.split(max(1, _ENTRIES // len(b))):
        yield torch.addmm(squares, block, b.T, alpha=-2).add_(block.square().sum(1, keepdim=True)).clamp_min_(0)
