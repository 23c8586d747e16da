"""Class labels, and the embedding that takes them to any door of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from guidon.conditioning.condition import Condition, Context, Index
from guidon.errors import BadValue, ShapeMismatch, UnknownLabel

Door = Literal["vector", "tokens", "spatial"]


@dataclass(frozen=True, eq=False)
class Labels(Condition):
    """Class ids, one per image; the id ``classes`` stands for "no class" (the null).

    Args:
        ids: (B,) integers in [0, classes].
        classes: the number of real classes.

    Raises:
        UnknownLabel: an id is out of range.
        ShapeMismatch: ``ids`` is not one row of integers.
    """

    ids: Tensor
    classes: int

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or self.ids.is_floating_point() or self.ids.dtype == torch.bool:
            raise ShapeMismatch(
                f"labels are one integer per image, not {self.ids.dtype} {tuple(self.ids.shape)}; give ids (B,)"
            )
        object.__setattr__(self, "ids", self.ids.long())
        if len(self.ids) and (int(self.ids.min()) < 0 or int(self.ids.max()) > self.classes):
            wrong = sorted({int(i) for i in self.ids.tolist() if not 0 <= i <= self.classes})
            raise UnknownLabel(f"no class {wrong}; the ids are 0..{self.classes - 1}, and {self.classes} for no class")

    def null(self) -> Self:
        """Return "no class" for as many images."""
        return type(self)(torch.full_like(self.ids, self.classes), self.classes)

    def drop(self, mask: Tensor) -> Self:
        """Return a copy in which the rows where ``mask`` (B,) is true have no class."""
        return type(self)(self.ids.masked_fill(mask.to(self.ids.device), self.classes), self.classes)

    def take(self, index: Index) -> Self:
        """Return the rows that ``index`` selects."""
        return type(self)(self.ids[index], self.classes)

    def distinct(self) -> tuple[Self, Tensor]:
        """Return every class once, and for each image which one is its own, (B,)."""
        found, which = torch.unique(self.ids, return_inverse=True)
        return type(self)(found, self.classes), which

    def random(self, streams: Sequence[torch.Generator]) -> Self:
        """Return a class for each image, drawn from its own stream."""
        drawn = [torch.randint(self.classes, (1,), generator=stream) for stream in streams]
        return type(self)(torch.cat(drawn), self.classes)

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Join batches one after the other; raises `ShapeMismatch` if they count different classes."""
        if len({part.classes for part in parts}) != 1:
            raise ShapeMismatch(
                f"cannot stack labels over {[part.classes for part in parts]} classes; use those of one model"
            )
        return cls(torch.cat([part.ids for part in parts]), parts[0].classes)

    def __len__(self) -> int:
        return len(self.ids)


class LabelEncoder(nn.Module):
    """One learned row per class and one for the null, delivered at a door of choice.

    Args:
        classes: the number of real classes; row ``classes`` is the null.
        width: the width that the network expects at this door.
        door: "vector" gives (B, width), "tokens" (B, 1, width), "spatial" (B, width, 1, 1).
        null: whether there is a row for the null; false for models that never learned to do without a class.
        deviation: of the rows before training.
    """

    def __init__(
        self, classes: int, width: int, door: Door = "vector", *, null: bool = True, deviation: float = 1.0
    ) -> None:
        super().__init__()
        if door not in ("vector", "tokens", "spatial"):
            raise BadValue(f"there is no door {door!r}; choose vector, tokens or spatial")
        self.classes, self.width, self.door = classes, width, door
        self.embedding = nn.Embedding(classes + null, width)
        with torch.no_grad():
            self.embedding.weight.mul_(deviation)

    def forward(self, labels: Labels) -> Context:
        """Return the context of a batch of labels.

        Raises:
            UnknownLabel: they are of another number of classes, or one is "no class" and the encoder has no row for it.
        """
        if labels.classes != self.classes:
            raise UnknownLabel(
                f"labels over {labels.classes} classes for a model of {self.classes}; use the model's own classes"
            )
        if self.embedding.num_embeddings == self.classes and bool((labels.ids == self.classes).any()):
            raise UnknownLabel("this model never learned to do without a class; give every image one")
        rows = self.embedding(labels.ids.to(self.embedding.weight.device))  # (B, width)
        match self.door:
            case "tokens":
                return Context(tokens=rows[:, None])
            case "spatial":
                return Context(spatial=rows[:, :, None, None])
            case _:
                return Context(vector=rows)
