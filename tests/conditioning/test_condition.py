from __future__ import annotations

import pytest
import torch

from guidon.conditioning import Context
from guidon.errors import ShapeMismatch


def test_take_and_stack_are_inverse() -> None:
    whole = Context(
        vector=torch.randn(5, 3),
        tokens=torch.randn(5, 4, 2),
        mask=torch.rand(5, 4) > 0.5,
        spatial=torch.randn(5, 1, 2, 2),
    )
    again = Context.stack([whole.take(slice(0, 2)), whole.take(torch.tensor([2, 3, 4]))])
    assert again.batch == 5
    for part in ("vector", "tokens", "mask", "spatial"):
        assert torch.equal(getattr(again, part), getattr(whole, part))


def test_stack_pads_shorter_tokens_and_masks_the_padding() -> None:
    short, long = Context(tokens=torch.ones(1, 2, 3)), Context(tokens=torch.ones(2, 4, 3))
    joined = Context.stack([short, long])
    assert joined.tokens is not None and joined.tokens.shape == (3, 4, 3)
    assert joined.mask is not None and joined.mask.tolist() == [[True, True, False, False], [True] * 4, [True] * 4]
    assert Context.stack([long, long]).mask is None


def test_empty_contexts_stack_to_an_empty_one() -> None:
    assert Context.stack([Context(), Context()]).batch is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Context(vector=torch.zeros(3)),
        lambda: Context(vector=torch.zeros(3, 2), spatial=torch.zeros(2, 1, 4, 4)),
        lambda: Context(mask=torch.ones(2, 3, dtype=torch.bool)),
        lambda: Context(tokens=torch.zeros(2, 3, 1), mask=torch.ones(2, 4, dtype=torch.bool)),
        lambda: Context.stack([Context(), Context(vector=torch.zeros(1, 2))]),
        lambda: Context.stack([Context(vector=torch.zeros(1, 3)), Context(vector=torch.zeros(1, 2))]),
    ],
)
def test_parts_that_do_not_fit_are_refused(make: object) -> None:
    with pytest.raises(ShapeMismatch):
        make()  # type: ignore[operator]
