"""CFG-Zero*: guides from the best multiple of the unconditional velocity, and stands still at first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from guidon.errors import BadValue
from guidon.guidance.contrast import Pull
from guidon.guidance.rule import About, Moment, State
from guidon.guidance.space import check_space, dot, view
from guidon.guidance.stage import Reshape, Shape
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("stage", "cfg-zero")
@dataclass(frozen=True)
class CFGZero(Shape, Reshape):
    """Scales the belief that one steers away from to fit the given one best, and zeroes the first steps.

    Args:
        zero_steps: steps at the start whose guided view is zero, >= 0, at any weight.
        space: the view that it acts on.

    Raises:
        BadValue: a setting is out of its range.

    Source: Fan et al., arXiv 2503.18886.
    """

    about: ClassVar[About] = About(
        formula="v = s v_u + w (v_c - s v_u), s = <v_c, v_u> / (|v_u|^2 + 1e-8); v = 0 while step < zero_steps",
        ranges=("zero_steps about 4 % of the steps: 1 of 28, 2 of 50", "0 for a network that is trained well"),
        sources=("fan2025cfgzero",),
        notes="For flow matching. The official code zeroes while step <= its zero_steps, one more than here; diffusers "
        "counts as here.",
    )

    not_after: ClassVar[tuple[str, ...]] = ("cfgpp", "rectified-cfgpp")

    zero_steps: int = 1
    space: str = "velocity"

    def __post_init__(self) -> None:
        check_space(self.space)
        if self.zero_steps < 0:
            raise BadValue(f"cfg-zero zeroes the first steps, 0 for none; got {self.zero_steps}")

    def shape(self, pull: Pull, at: Moment, state: State) -> tuple[Prediction, State]:
        given, away = view(pull.given, self.space), view(pull.away, self.space)
        fit = dot(given, away) / (dot(away, away) + 1e-8)  # (B, 1, ...)
        return pull.away.moved(self.space, away * (fit - 1)), state

    def reshape(self, guided: Prediction, given: Prediction, at: Moment, state: State) -> tuple[Prediction, State]:
        if at.index >= self.zero_steps:
            return guided, state
        read = getattr(Prediction, f"from_{self.space}")  # not a change by the negative, which leaves rounding
        still = read(guided.x, torch.zeros_like(guided.x), guided.level)
        return replace(still, variance_fraction=guided.variance_fraction), state
