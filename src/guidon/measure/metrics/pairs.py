"""The mean of something over all pairs of different images, for any number of times that each counts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from guidon.measure.estimate import CHUNK, affordable


def mean_over_pairs(blocks: Iterable[Tensor], counts: Tensor) -> Tensor:
    """Return the mean over ordered pairs of different images, (R,); NaN where there is none.

    An image that counts c times is in c times as many pairs with each other image; it is never paired with itself, nor one of
    its copies with another.

    Args:
        blocks: of rows of a matrix (n, n), which are changed in place: what each pair has.
        counts: (R, n) float64.
    """
    total, start = torch.zeros(len(counts), dtype=torch.float64), 0
    for block in blocks:
        rows = slice(start, start + len(block))
        block[:, rows].fill_diagonal_(0)
        total += ((counts[:, rows] @ block) * counts).sum(1)
        start = rows.stop
    return total / (counts.sum(1).square() - counts.square().sum(1))


def affordable_over_pairs(pairs: int, n: int, wide: int) -> int:
    """Return how many resamples can be had in reasonable time of a mean over pairs.

    Args:
        pairs: how many.
        n: images that count.
        wide: numbers of each, multiplied once for all resamples whose counts are held at once.
    """
    return affordable(pairs * (1 + wide * n / CHUNK))
