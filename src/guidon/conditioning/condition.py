"""Conditions as the user gives them, and the context that a network receives.

A `Condition` is raw (class ids, token ids, images) and knows its own null. An encoder turns it into a `Context`, whose
three parts are the three doors of a network: one vector, a sequence of tokens, or channels beside the image.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from guidon.errors import ShapeMismatch

Index = slice | Tensor | list[int]


class Condition(ABC):
    """A batch of raw conditions, one per image."""

    @abstractmethod
    def null(self) -> Self:
        """Return the condition that says nothing, for as many images."""

    @abstractmethod
    def drop(self, mask: Tensor) -> Self:
        """Return a copy in which the rows where ``mask`` (B,) is true are null."""

    @abstractmethod
    def take(self, index: Index) -> Self:
        """Return the rows that ``index`` selects."""

    @abstractmethod
    def distinct(self) -> tuple[Self, Tensor]:
        """Return every different row once, and for each image which of them is its own, (B,)."""

    @abstractmethod
    def random(self, streams: Sequence[torch.Generator]) -> Self:
        """Return something of the same kind for each image, drawn from its own stream."""

    @classmethod
    @abstractmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Join batches one after the other."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""


@dataclass(frozen=True, eq=False)
class Projected:
    """What the layers of a network made of tokens, once for all steps: every different row once, and which of them an image has.

    Args:
        layers: (U, L, ...) by layer, the keys and values of U different rows of tokens.
        rows: (B,) which of them each image has.
    """

    layers: Mapping[str, Tensor]
    rows: Tensor

    def of(self, layer: str) -> Tensor:
        """Return what a layer made of the tokens of every image, (B, L, ...)."""
        return self.layers[layer][self.rows]

    def take(self, index: Index) -> Projected:
        """Return the rows that ``index`` selects; nothing that was made is copied."""
        return Projected(self.layers, self.rows[index])

    @staticmethod
    def stack(parts: Sequence[Projected]) -> Projected:
        """Join batches one after the other; those of one origin share what was made."""
        origins = list({id(part.layers): part.layers for part in parts}.values())
        starts, start = {}, 0
        for layers in origins:
            starts[id(layers)] = start
            start += len(next(iter(layers.values())))
        joined = (
            {name: torch.cat([layers[name] for layers in origins]) for name in origins[0]}
            if origins[1:]
            else origins[0]
        )
        return Projected(joined, torch.cat([part.rows + starts[id(part.layers)] for part in parts]))


@dataclass(frozen=True, eq=False)
class Context:
    """What enters a network, by door; a door that is not used is None.

    Args:
        vector: (B, D) one vector per image.
        tokens: (B, L, D) a sequence per image.
        mask: (B, L) bool, true where a token is real; None when all are.
        spatial: (B, C, H, W) channels beside the image, or (B, C, 1, 1) to be the same everywhere.
        projected: what the layers of the network that is told this made of the tokens already; None: they make it when asked.

    Raises:
        ShapeMismatch: the parts disagree on the batch, or have the wrong number of axes.
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    spatial: Tensor | None = None
    projected: Projected | None = None

    def __post_init__(self) -> None:
        for name, axes in _AXES.items():
            part = getattr(self, name)
            if part is not None and part.ndim != axes:
                raise ShapeMismatch(f"the {name} of a context has {axes} axes, not {tuple(part.shape)}; reshape it")
        if self.mask is not None and (self.tokens is None or self.mask.shape != self.tokens.shape[:2]):
            raise ShapeMismatch(
                f"mask {tuple(self.mask.shape)} goes with tokens (B, L, D) of the same B and L; give both"
            )
        sizes = {len(part) for part in self._parts().values()}
        if len(sizes) > 1:
            raise ShapeMismatch(
                f"the parts of a context are for {sorted(sizes)} images; give every part the same batch"
            )

    @property
    def batch(self) -> int | None:
        """The number of images, or None for an empty context."""
        return next((len(part) for part in self._parts().values()), None)

    @functools.cached_property
    def signature(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """What contexts must share to be stacked: the doors and the size of a row at each, but for token counts."""
        doors = ((name, part) for name, part in self._parts().items() if name != "mask")
        return tuple((name, tuple(part.shape[2:] if name == "tokens" else part.shape[1:])) for name, part in doors)

    def take(self, index: Index) -> Context:
        """Return the rows that ``index`` selects."""
        projected = None if self.projected is None else self.projected.take(index)
        return Context(**{name: part[index] for name, part in self._parts().items()}, projected=projected)

    @staticmethod
    def stack(parts: Sequence[Context]) -> Context:
        """Join batches one after the other; shorter token sequences are padded and masked.

        Raises:
            ShapeMismatch: one part has a door that another has not, or sizes other than the token count differ.
        """
        doors = [frozenset(part._parts()) - {"mask"} for part in parts]
        if len(set(doors)) > 1:
            raise ShapeMismatch(
                f"cannot stack contexts with different doors: {[sorted(d) for d in doors]}; "
                "encode all with the same encoder"
            )
        if not parts or not doors[0]:
            return Context()
        if "tokens" in doors[0]:
            parts = _pad_tokens(parts)
        joined = {}
        for name in parts[0]._parts():
            rows = [part._parts()[name] for part in parts]
            if len({row.shape[1:] for row in rows}) > 1:
                raise ShapeMismatch(
                    f"cannot stack {name} of shapes {[tuple(row.shape) for row in rows]}; make them equal but for B"
                )
            joined[name] = torch.cat(rows)
        made = [part.projected for part in parts if part.projected is not None]
        return Context(**joined, projected=Projected.stack(made) if len(made) == len(parts) else None)

    def _parts(self) -> dict[str, Tensor]:
        found = {name: getattr(self, name) for name in _AXES}
        return {name: part for name, part in found.items() if part is not None}


_AXES = {"vector": 2, "tokens": 3, "mask": 2, "spatial": 4}


def _pad_tokens(parts: Sequence[Context]) -> list[Context]:
    """Bring all token sequences to one length; a mask appears where there was none only if one is needed.

    What layers made of those that were shorter does not fit any more and is left out.
    """
    lengths = [part.tokens.shape[1] for part in parts if part.tokens is not None]
    if len(set(lengths)) == 1 and all(part.mask is None for part in parts):
        return list(parts)
    padded = []
    for part in parts:
        assert part.tokens is not None
        batch, length, _ = part.tokens.shape
        mask = part.mask if part.mask is not None else part.tokens.new_ones(batch, length, dtype=torch.bool)
        if missing := max(lengths) - length:
            tokens, mask = F.pad(part.tokens, (0, 0, 0, missing)), F.pad(mask, (0, missing), value=False)
            part = replace(part, tokens=tokens, mask=mask, projected=None)
        padded.append(replace(part, mask=mask))
    return padded
