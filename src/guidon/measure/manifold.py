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
from guidon.measure.distances import Features, blocks, joined

_ENTRIES = 2_000_000  # distances held at once: 16 MB in float64
_SLACK = 1e-9  # squared distances come from a matrix product; this much of their scale is rounding


def precision_recall(real: Features, generated: Features, *, k: int = 3) -> tuple[float, float]:
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
    precision = _share_inside(generated, real, radii(real, k))
    recall = _share_inside(real, generated, radii(generated, k))
    return precision, recall


def radii(features: Features, k: int) -> Tensor:
    """Return the squared distance (N,) from every vector (N, D) to its k-th nearest neighbour, itself not counted."""
    if k < 1:
        raise BadValue(f"k is the number of a neighbour, at least 1, not {k}")
    if len(features) <= k:
        raise DataError(f"{len(features)} feature vectors have no {k}. neighbour each; measure at least {k + 1} images")
    nearest = (block.topk(k + 1, largest=False).values[:, k] for block in squared_distances(features, features))
    return joined(nearest, len(features))


def inside(points: Features, centres: Features, radius: Tensor, *, closed: bool = True) -> Iterator[Tensor]:
    """Yield for blocks of points (N, D) in which balls they lie: bool (rows, M).

    Args:
        points: (N, D).
        centres: (M, D).
        radius: (M,) squared, of the ball around each centre.
        closed: whether what lies on the surface of a ball, but for rounding, lies in it.
    """
    reach = _reach(centres, radius, closed)
    for block in squared_distances(points, centres):
        yield block <= reach if closed else block < reach


def around(centres: Features, points: Features, radius: Tensor, *, closed: bool = True) -> Iterator[Tensor]:
    """Yield for blocks of balls which points lie in them: bool (rows, N), the table of `inside` the other way round."""
    reaches, start = _reach(centres, radius, closed), 0
    for block in squared_distances(centres, points):
        reach = reaches[start : start + len(block), None]
        yield block <= reach if closed else block < reach
        start += len(block)


def _reach(centres: Features, radius: Tensor, closed: bool) -> Tensor:
    slack = _SLACK * (squares(centres, middle(centres)) + radius)
    return radius + slack if closed else radius - slack


def squared_distances(a: Features, b: Features) -> Iterator[Tensor]:
    """Yield the squared distances (rows, M) between blocks of rows of ``a`` (N, D) and all of ``b`` (M, D).

    Each block takes the place of the one before it.
    """
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != b.shape[1]:
        raise ShapeMismatch(
            f"features must be (M, D) and (N, D), not {tuple(b.shape)} and {tuple(a.shape)}; use one judge for both"
        )
    centre = middle(b)  # distances do not change, their rounding errors shrink
    of_b = squares(b, centre)
    rows = min(len(a), max(1, _ENTRIES // len(b)))
    room = torch.empty(rows, len(b), dtype=torch.float64)
    for block in blocks(a, rows):
        block = block - centre
        away = room[: len(block)]
        start = 0
        for part in blocks(b):
            torch.mm(block, (part - centre).T, out=away[:, start : start + len(part)])
            start += len(part)
        yield away.mul_(-2).add_(of_b).add_(block.square().sum(1, keepdim=True)).clamp_min_(0)


def middle(features: Features) -> Tensor:
    """Return the mean vector (D,) of features (N, D)."""
    total: Tensor = sum(block.sum(0) for block in blocks(features))  # type: ignore[assignment]
    return total / len(features)


def squares(features: Features, centre: Tensor) -> Tensor:
    """Return the squared distance (N,) of features (N, D) to one vector (D,)."""
    return joined(((block - centre).square().sum(1) for block in blocks(features)), len(features))


def _share_inside(points: Features, centres: Features, radius: Tensor) -> float:
    """Return the share of points (N, D) that lie in a ball around any centre (M, D) with squared radius (M,)."""
    found = (block.any(1) for block in inside(points, centres, radius))
    return joined(found, len(points)).double().mean().item()
