"""Numbers for tests, and their comparison."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal float64 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def f64(values: Sequence[float]) -> Tensor:
    """Return numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def agree(got: Tensor, want: Tensor, what: str, *, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    """Fail with the largest error unless |got - want| <= atol + rtol |want| everywhere."""
    got, want = torch.as_tensor(got).double(), want.double()
    assert got.shape == want.shape, f"{what} has shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    excess = (got - want).abs() - atol - rtol * want.abs()
    assert bool((excess <= 0).all()), (
        f"{what} is off by {(got - want).abs().max().item():.2e} of {want.abs().max().item():.2e}"
    )
