"""How far images follow captions of the shapes: every image is read, and each part of its caption is right or wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from guidon.errors import BadValue
from guidon.measure.metrics.adhered import PARTS, WHOLES, Shapes
from guidon.scenes.check import has
from guidon.scenes.read import read


@dataclass(frozen=True)
class Share:
    """A part of a number of cases.

    Args:
        held: in how many something held.
        cases: of how many.
    """

    held: int
    cases: int

    @property
    def share(self) -> float:
        """The part, 0 to 1; NaN of no cases."""
        return self.held / self.cases if self.cases else math.nan

    @property
    def standard_error(self) -> float:
        """The binomial deviation of the part."""
        return math.sqrt(self.share * (1 - self.share) / self.cases) if self.cases else math.nan


@dataclass(frozen=True)
class Adherence:
    """How often what captions say holds of images.

    Args:
        whole: images of which everything holds, number and relation of things included.
        things: images in which every thing that was named is there and as it was named, whatever else is there.
        parts: by "colour", "shape", "size", "place", "count" and "relation", each time that it was said.
    """

    whole: Share
    things: Share
    parts: dict[str, Share]


def adherence(images: NDArray[np.uint8], captions: Sequence[str]) -> Adherence:
    """Return how far images follow their captions.

    Args:
        images: (N, H, H, 3), 0 to 255.
        captions: N, in the words of `guidon.scenes`.

    Raises:
        BadValue: there are not as many captions as images, or one is in other words.
    """
    if len(images) != len(captions):
        raise BadValue(f"{len(captions)} captions for {len(images)} images; give one for each")
    seen = Shapes().look(torch.tensor(images).permute(0, 3, 1, 2), captions)
    whole, things = (Share(int(seen[f"adherence/{what}"].sum()), len(images)) for what in WHOLES)
    parts = {part: Share(*seen[f"adherence/{part}"].sum(0, dtype=int).tolist()) for part in PARTS}
    return Adherence(whole, things, {part: share for part, share in parts.items() if share.cases})


def showing(images: NDArray[np.uint8], word: str) -> NDArray[np.bool_]:
    """Return in which images (N, H, H, 3) anything has an attribute, such as "red", "circle" or "big": (N,)."""
    return np.array([has(read(image), word) for image in images], dtype=bool)
