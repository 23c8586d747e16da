"""What guidance did at each step: how far the branches were apart, and what it cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guidon.guidance.rule import GIVEN
from guidon.sampling.trajectory import Event


@dataclass
class Trace:
    """Collects a row of numbers at each evaluation; give `look_on` to a trajectory.

    Args:
        most: evaluations of an image that the rule may want at a step, at most; `saved` counts from there.

    Attributes:
        rows: for each evaluation ``step``, ``noise_level``, lists with a number for each image (None where there is none):
            ``guidance``, the root mean square of what guidance added to the clean image; ``out_of_range``, the share of its
            values beyond [-1, 1]; ``asked`` and ``saved``, network evaluations; and by branch, under ``difference`` the root
            mean square of the clean image of given minus the branch's, and under ``cosine`` the cosine of their noises.
    """

    most: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def look_on(self, event: Event) -> None:
        """Take down an evaluation."""
        given = event.predictions.get(GIVEN)
        row: dict[str, Any] = {
            "step": event.at.index,
            "noise_level": event.at.noise_level if math.isfinite(event.at.noise_level) else None,
            "guidance": None if given is None else _numbers(_size(event.guided.x0 - given.x0)),
            "out_of_range": _numbers((event.guided.x0.abs() > 1).flatten(1).double().mean(1)),
            "asked": event.asked.tolist(),
            "saved": (self.most - event.asked).tolist(),
            "difference": {},
            "cosine": {},
        }
        for branch, other in event.predictions.items():
            if given is not None and branch != GIVEN and not branch.gradient:
                row["difference"][str(branch)] = _numbers(_size(given.x0 - other.x0))
                cosine = torch.cosine_similarity(given.eps.flatten(1).double(), other.eps.flatten(1).double())
                row["cosine"][str(branch)] = _numbers(cosine)
        self.rows.append(row)


def _size(x: Tensor) -> Tensor:
    """Return the root mean square of each image."""
    return x.flatten(1).double().square().mean(1).sqrt()


def _numbers(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
