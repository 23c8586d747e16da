"""How far images follow captions of the shapes: every image is read, and each part of its caption is right or wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidon.errors import BadValue
from guidon.scenes.check import check, has
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
    verdicts = [check(caption, read(image)) for image, caption in zip(images, captions, strict=True)]
    said: dict[str, list[bool]] = {}
    for verdict in verdicts:
        for part, held in verdict.parts().items():
            said.setdefault(part, []).extend(held)
    return Adherence(
        _share([verdict.all for verdict in verdicts]),
        _share([all(thing.all for thing in verdict.things) for verdict in verdicts]),
        {part: _share(held) for part, held in said.items() if held},
    )


def showing(images: NDArray[np.uint8], word: str) -> NDArray[np.bool_]:
    """Return in which images (N, H, H, 3) anything has an attribute, such as "red", "circle" or "big": (N,)."""
    return np.array([has(read(image), word) for image in images], dtype=bool)


def _share(held: Sequence[bool]) -> Share:
    return Share(sum(held), len(held))
