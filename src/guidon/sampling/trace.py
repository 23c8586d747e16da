"""What guidance did at each step: how far the branches were apart, and what it cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guidon.guidance.rule import GIVEN, NULL
from guidon.sampling.trajectory import Event


@dataclass
class Trace:
    """Collects a row of numbers at each evaluation; give `look_on` to a trajectory.

    Args:
        most: evaluations of an image that the rule may want at a step, at most; `saved` counts from there.

    Attributes:
        rows: for each evaluation ``step``, ``noise_level``, and lists with a number for each image (None where there is none).
            ``guidance``: the root mean square of what guidance added to the clean image of given, or of null where given is not
            asked. ``out_of_range``: the share of its values beyond [-1, 1]. ``asked`` and ``saved``: network evaluations. By
            branch, ``difference``: the root mean square of that clean image minus the branch's; ``cosine``: that of their noises.
    """

    most: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def look_on(self, event: Event) -> None:
        """Take down an evaluation."""
        told = {branch.plain: (branch, belief) for branch, belief in event.predictions.items()}
        base, given = told.get(GIVEN, told.get(NULL, (GIVEN, None)))
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
            if given is not None and branch != base and not branch.gradient:
                row["difference"][str(branch)] = _numbers(_size(given.x0 - other.x0))
                cosine = torch.cosine_similarity(given.eps.flatten(1).double(), other.eps.flatten(1).double())
                row["cosine"][str(branch)] = _numbers(cosine)
        self.rows.append(row)


def _size(x: Tensor) -> Tensor:
    """Return the root mean square of each image."""
    return x.flatten(1).double().square().mean(1).sqrt()


def _numbers(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
