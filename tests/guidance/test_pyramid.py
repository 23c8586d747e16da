"""The Laplacian pyramid, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.numbers import agree
from torch import Tensor

from guidon.guidance.pyramid import collapse, doubled, halved, laplacian


def column(numbers: Any) -> Tensor:
    """Return an image of one column (H, 1), whose rows say all."""
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


# blurred with 1 4 6 4 1 over 16, what is left of the border being reflected, then read at the middles of the halves
@pytest.mark.parametrize(
    ("image", "half"),
    [
        ([16, 0, 0, 0], [5, 0.5]),  # 6 4 1 0
        ([0, 16, 0, 0], [7.5, 3]),  # 8 7 4 2; reflected it counts twice
        ([16, 0, 0], [5.5, 2.5]),  # 6 4 2, three quarters of one and a quarter of the next
        ([16, 0], [8]),
        ([16], [16]),
    ],
)
def test_halved(image: list[float], half: list[float]) -> None:
    agree(halved(column(image)), column(half), "rows")
    agree(halved(column(image).mT), column(half).mT, "columns")


def test_rows_and_columns_are_halved_by_their_own_sizes() -> None:
    """Both at once is one after the other."""
    image = column([16, 0, 0, 0]) @ column([16, 0, 0]).mT
    agree(halved(image), column([5, 0.5]) @ column([5.5, 2.5]).mT, "both")
    back = doubled(halved(image), image.shape)
    agree(back, doubled(column([5, 0.5]), (4, 1)) @ doubled(column([5.5, 2.5]), (3, 1)).mT, "back")


BACK = [4.015625, 3.3828125, 2.1171875, 1.484375]  # 5 and 0.5 read at four middles are 5 3.875 1.625 0.5; then blurred


def test_doubled() -> None:
    agree(doubled(column([5, 0.5]), (4, 1)), column(BACK), "rows")
    agree(doubled(column([5, 0.5]).mT, (1, 4)), column(BACK).mT, "columns")


def test_bands() -> None:
    image = column([16, 0, 0, 0])
    high, low = laplacian(image, 2)
    agree(high, image - column(BACK), "high")
    agree(low, column([5, 0.5]), "low")
    high, middle, low = laplacian(image, 3)
    agree(low, column([2.75]), "lowest")  # the mean of 5 and 0.5
    agree(middle, column([2.25, -2.25]), "middle")
    agree(laplacian(image, 1)[0], image, "a single one")
    agree(collapse([high, middle, low]), image, "image")
    agree(collapse([column([1, 1, 1, 1]), column([5, 0.5])]), column(BACK) + 1, "of any bands")


@pytest.mark.parametrize("many", [(), (2,), (2, 3), (2, 3, 4)])
def test_any_axes_before_rows_and_columns(many: tuple[int, ...]) -> None:
    image = torch.randn(*many, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bands = laplacian(image, 3)
    for i, one in enumerate(image.reshape(-1, 5, 7)):
        for band, alone in zip(bands, laplacian(one, 3), strict=True):
            agree(band.reshape(-1, *alone.shape)[i], alone, "band")
    agree(collapse(bands), image, "image")
