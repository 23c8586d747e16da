"""Texts as rows of token ids, of which a mask says how many are real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from guidon.conditioning.condition import Condition, Index
from guidon.errors import BadValue, ShapeMismatch

NullRow = tuple[tuple[int, ...], tuple[bool, ...]]


@dataclass(frozen=True, eq=False)
class Texts(Condition):
    """Token ids and mask, a row for each image; the row of the empty text stands for "no text" (the null).

    Args:
        tokens: (B, L) integers, padded to the length that the encoder takes.
        mask: (B, L) bool, true where a token is real.
        empty: L tokens and L truths, the row of the empty text.
        vocabulary: how many tokens there are, for random texts.

    Raises:
        ShapeMismatch: tokens, mask and the row of the empty text differ in length.
    """

    tokens: Tensor
    mask: Tensor
    empty: NullRow
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.is_floating_point() or self.tokens.dtype == torch.bool:
            raise ShapeMismatch(
                f"tokens are rows of integers (B, L), not {self.tokens.dtype} {tuple(self.tokens.shape)}; "
                "make them with the model's tokenizer"
            )
        lengths = [len(part) for part in self.empty]
        if self.mask.shape != self.tokens.shape or lengths != [self.tokens.shape[1]] * 2:
            raise ShapeMismatch(
                f"tokens {tuple(self.tokens.shape)} with a mask {tuple(self.mask.shape)} and an empty text of "
                f"{lengths[0]} tokens; give a mask of the same shape, and rows as long as that of the empty text"
            )
        object.__setattr__(self, "tokens", self.tokens.long())
        object.__setattr__(self, "mask", self.mask.bool())

    def null(self) -> Self:
        """Return the empty text for as many images."""
        return self.drop(torch.ones(len(self), dtype=torch.bool))

    def drop(self, mask: Tensor) -> Self:
        """Return a copy in which the rows where ``mask`` (B,) is true are the empty text."""
        tokens, real = (torch.tensor(part, device=self.tokens.device) for part in self.empty)
        dropped = mask.to(self.tokens.device)[:, None]
        return replace(
            self, tokens=torch.where(dropped, tokens, self.tokens), mask=torch.where(dropped, real, self.mask)
        )

    def take(self, index: Index) -> Self:
        """Return the rows that ``index`` selects."""
        return replace(self, tokens=self.tokens[index], mask=self.mask[index])

    def distinct(self) -> tuple[Self, Tensor]:
        """Return every text once, and for each image which one is its own, (B,); texts differ by tokens or by mask."""
        rows = torch.cat([self.tokens, self.mask.long()], dim=1)
        found, which = torch.unique(rows, dim=0, return_inverse=True)
        tokens, mask = found.chunk(2, dim=1)
        return replace(self, tokens=tokens, mask=mask.bool()), which

    def random(self, streams: Sequence[torch.Generator]) -> Self:
        """Return a text of as many tokens for each image, drawn from the vocabulary; the tokens of the empty text (its ends) stay.

        Raises:
            BadValue: nobody said how large the vocabulary is.
        """
        if self.vocabulary is None:
            raise BadValue("random texts are drawn from a vocabulary of unknown size; make texts with a tokenizer")
        ends = [token for token, real in zip(*self.empty, strict=True) if real]
        stays = ~self.mask | torch.isin(self.tokens, torch.tensor(ends, device=self.tokens.device))
        drawn = [torch.randint(self.vocabulary, (self.tokens.shape[1],), generator=stream) for stream in streams]
        return replace(self, tokens=torch.where(stays, self.tokens, torch.stack(drawn).to(self.tokens)))

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Join batches one after the other; raises `ShapeMismatch` if they are of different tokenizers."""
        if len({part.empty for part in parts}) != 1:
            raise ShapeMismatch("cannot stack texts of different tokenizers; use that of one model")
        tokens, masks = ([getattr(part, name) for part in parts] for name in ("tokens", "mask"))
        return replace(parts[0], tokens=torch.cat(tokens), mask=torch.cat(masks))

    def __len__(self) -> int:
        return len(self.tokens)
