"""Adherence: what of a caption of the shapes holds of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from guidon.errors import BadValue, DataError
from guidon.measure.estimate import Mean, Statistic
from guidon.measure.metric import Metric
from guidon.measure.observe import Observer, Rows
from guidon.registry import register
from guidon.scenes.check import ATTRIBUTES, check
from guidon.scenes.read import read

PARTS = (*ATTRIBUTES, "count", "relation")
WHOLES = ("whole", "things")


class Shapes(Observer):
    """Reads images of `guidon.scenes` and sees what of their captions holds.

    - whole: whether everything holds, number and relation of things included, 0 or 1.
    - things: whether every thing that was named is there and as it was named, whatever else is there, 0 or 1.
    - colour, shape, size, place, count, relation: how often it held, and how often it was said.
    """

    name = "adherence"
    fingerprint = "scenes; 1"

    def look(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, np.ndarray]:
        if captions is None:
            raise BadValue("adherence is to captions, and the images have none; leave it out")
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        verdicts = [check(caption, read(image)) for caption, image in zip(captions, pixels, strict=True)]
        whole = np.array([verdict.all for verdict in verdicts], np.float32)
        things = np.array([all(thing.all for thing in verdict.things) for verdict in verdicts], np.float32)
        parts = [verdict.parts() for verdict in verdicts]
        seen = {part: np.array([(sum(said[part]), len(said[part])) for said in parts], np.float32) for part in PARTS}
        return {f"{self.name}/{what}": value for what, value in ({"whole": whole, "things": things} | seen).items()}


@register("metric", "adherence")
@dataclass(frozen=True)
class Adhered(Metric):
    """How often a part of what captions say holds of the images, of all times that it was said.

    Args:
        part: "whole" (of images, those of which everything holds), "things" (those in which everything that was named is there), or
            "colour", "shape", "size", "place", "count" or "relation".

    Raises:
        BadValue: there is no such part.
        DataError: no caption says anything of it.
    """

    title: ClassVar[str] = "Adherence"
    better: ClassVar[Literal["higher", "lower"] | None] = "higher"
    needs: ClassVar[tuple[str, ...]] = ("adherence", "captions")
    about: ClassVar[str] = "Share of what captions of the shapes say that holds of the images."
    source: ClassVar[str] = "share of what was said, read back by guidon.scenes"

    part: str = "whole"

    def __post_init__(self) -> None:
        if self.part not in (*WHOLES, *PARTS):
            raise BadValue(f"adherence is to {', '.join(WHOLES + PARTS)}, not to {self.part!r}")

    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        seen = torch.from_numpy(np.array(sample[f"adherence/{self.part}"], np.float64))
        if self.part in WHOLES:
            return Mean(seen, (0, 1))
        if not bool(seen[:, 1].any()):
            raise DataError(f"no caption says anything of {self.part}; leave adherence('{self.part}') out")
        return Share(seen)


class Share(Statistic):
    """A share of cases, of which an image may have none, one or several.

    Args:
        cases: (N, 2), how many held and how many there were.
    """

    bounds = (0.0, 1.0)

    def __init__(self, cases: Tensor) -> None:
        self.cases, self.n = cases, len(cases)

    def values(self, counts: Tensor) -> Tensor:
        held, said = (counts @ self.cases).unbind(1)
        return held / said
