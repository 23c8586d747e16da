"""Blurred conditions: the paper's formula by hand, image by image."""

from __future__ import annotations

import math

import pytest
import torch
from support.numbers import agree, normal
from torch import Tensor

from guidon.conditioning import Context
from guidon.conditioning.corrupt import Drawn, corrupted
from guidon.perturbation import Corruption
from guidon.sampling import PerImageNoise


def noise_of(*draws: Tensor):  # type: ignore[no-untyped-def]
    left = list(draws)

    def draw(shape: object) -> Tensor:
        noise = left.pop(0)
        assert tuple(noise.shape[1:]) == tuple(shape)  # type: ignore[arg-type]
        return noise

    return draw


@pytest.mark.parametrize("mixing", [0.0, 0.4, 1.0])
def test_the_formula_by_hand(mixing: float) -> None:
    y, n = normal(2, 6, seed=1) + 3, normal(2, 6, seed=2)
    got = corrupted(Context(vector=y), Corruption(0.36, 0.25, mixing), noise_of(n), {}).vector
    assert got is not None
    for i in range(2):
        mixed = 0.6 * y[i] + 0.25 * 0.8 * n[i]
        back = (mixed - mixed.mean()) / mixed.std() * y[i].std() + y[i].mean()
        agree(got[i], mixing * back + (1 - mixing) * mixed, "condition")


def test_all_kept_is_all_there_and_none_kept_is_noise_alone() -> None:
    y, n = normal(2, 3, 5, seed=1), normal(2, 3, 5, seed=2)
    for mixing in (0.0, 1.0):
        kept = corrupted(Context(tokens=y), Corruption(1.0, 0.5, mixing), noise_of(n), {}).tokens
        agree(kept, y, "kept")  # type: ignore[arg-type]
    blurred = [corrupted(Context(tokens=t), Corruption(0.0, 0.5, 0.0), noise_of(n), {}).tokens for t in (y, 2 * y)]
    agree(blurred[0], 0.5 * n, "noise")  # type: ignore[arg-type]
    assert torch.equal(*blurred)  # type: ignore[arg-type]


def test_one_number_and_a_constant_have_no_deviation() -> None:
    y, n = normal(2, 1, seed=1), normal(2, 1, seed=2)
    got = corrupted(Context(vector=y), Corruption(0.36, 0.25, 1.0), noise_of(n), {}).vector
    agree(got, 0.6 * y + 0.2 * n, "one number")  # type: ignore[arg-type]
    constant = torch.full((2, 4), 7.0, dtype=torch.float64)
    got = corrupted(Context(vector=constant), Corruption(0.36, 0.25, 1.0), noise_of(normal(2, 4)), {}).vector
    agree(got, constant, "constant")  # type: ignore[arg-type]
    still = corrupted(Context(vector=constant), Corruption(0.36, 0.0, 1.0), noise_of(normal(2, 4)), {}).vector
    agree(still, constant, "constant without noise")  # type: ignore[arg-type]


def test_every_door_is_blurred_and_the_mask_stays() -> None:
    context = Context(
        vector=normal(2, 4, seed=1),
        tokens=normal(2, 3, 5, seed=2),
        mask=torch.tensor([[True, True, True], [True, True, False]]),
        spatial=normal(2, 1, 4, 4, seed=3),
    )
    draws = normal(2, 4, seed=4), normal(2, 3, 5, seed=5), normal(2, 1, 4, 4, seed=6)
    got = corrupted(context, Corruption(0.5, 1.0, 0.0), noise_of(*draws), {})
    for name, n in zip(("vector", "tokens", "spatial"), draws, strict=True):
        agree(getattr(got, name), math.sqrt(0.5) * (getattr(context, name) + n), name)
    assert got.mask is context.mask


def test_padding_does_not_count() -> None:
    """A prompt is blurred the same however far its neighbours made it be padded."""
    y, n, how = normal(1, 5, 4, seed=1), normal(1, 5, 4, seed=2), Corruption(0.36, 0.25, 1.0)
    short = corrupted(Context(tokens=y[:, :3]), how, noise_of(n[:, :3]), {}).tokens
    mask = torch.tensor([[True, True, True, False, False]])
    padded = corrupted(Context(tokens=y, mask=mask), how, noise_of(n), {}).tokens
    agree(padded[:, :3], short, "real tokens")  # type: ignore[arg-type, index]


def test_branches_of_an_evaluation_share_the_noise() -> None:
    noise = PerImageNoise([1, 2], (3,), dtype=torch.float64).of_shape
    drawn: Drawn = {}
    how, y = Corruption(0.2, 0.5, 1.0), normal(2, 6)
    first, second, wider = (
        corrupted(Context(vector=part), how, noise, drawn).vector for part in (y, y, normal(2, 9, seed=3))
    )
    assert torch.equal(first, second)  # type: ignore[arg-type]
    assert wider is not None
    assert wider.shape == (2, 9)
    again = corrupted(Context(vector=y), how, noise, {}).vector
    assert not torch.allclose(first, again)  # type: ignore[arg-type]


def test_an_image_is_blurred_alike_in_any_company() -> None:
    y, how = normal(3, 6), Corruption(0.2, 0.5, 1.0)
    together = corrupted(Context(vector=y), how, PerImageNoise([1, 2, 3], (3,)).of_shape, {}).vector
    alone = corrupted(Context(vector=y[1:2]), how, PerImageNoise([2], (3,)).of_shape, {}).vector
    agree(together[1:2], alone, "image")  # type: ignore[arg-type, index]
