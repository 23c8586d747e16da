"""Perp-Neg: of a negative condition only what does not also take away the wish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.conditions import numbered
from guidon.guidance.contrast import column, everywhere, those
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Predictions, Rule, State, Which
from guidon.guidance.space import along, length
from guidon.guidance.weights import Interval, PerImage, Weight, checked_weight, is_open, now
from guidon.noise.prediction import Prediction
from guidon.registry import register

ROUNDINGS = 64  # that a clean image may have gone through


@register("rule", "perp-neg")
@dataclass(frozen=True)
class PerpNeg(Rule):
    """Negative conditions of which only the part at right angles to the given one counts.

    Args:
        weight: towards the given condition; 1 with pushes of 0 is plain conditional.
        pushes: for each negative condition ("negative", "negative-2", ...) how much of w it gets, >= 0.
        when: the noise levels at which to guide; elsewhere the given condition alone is asked.

    Source: Armandpour et al., arXiv 2304.04968; the angle is taken image by image.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + w (d - sum_i p_i (d_i - <d_i, d> d / |d|^2)), d = D_c - D_u, d_i = D_ni - D_u",
        cost="2 + the number of negative conditions",
        ranges=("w as cfg", "p 0.5 to 4"),
        sources=("armandpour2023perpneg",),
    )

    weight: float | PerImage | Weight
    pushes: tuple[float, ...] = (1.0,)
    when: Interval | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_weight(self.weight))
        if not isinstance(self.pushes, tuple | list) or not all(push >= 0 for push in self.pushes):
            raise BadValue(
                f"perp-neg takes a list of pushes >= 0, one for each negative condition, got {self.pushes!r}"
            )
        object.__setattr__(self, "pushes", tuple(self.pushes))

    def _negatives(self) -> dict[Branch, float]:
        names = numbered("negative", len(self.pushes))
        return {Branch(name): push for name, push in zip(names, self.pushes, strict=True) if push != 0}

    def uses(self) -> frozenset[str]:
        return frozenset(("null", *numbered("negative", len(self.pushes))))

    def zeros(self, at: Moment) -> Which:
        return those(now(self.weight, at), 0.0) if is_open(self.when, at) else False

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        weight = now(self.weight, at)
        if not is_open(self.when, at) or (everywhere(weight, 1.0) and not self._negatives()):
            return (GIVEN,)
        return (NULL,) if everywhere(weight, 0.0) else (GIVEN, NULL, *self._negatives())

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        asked = self.branches(at, state)
        if len(asked) == 1:
            return Guided.plain(predictions[asked[0]]), state
        null, given = predictions[NULL], predictions[GIVEN]
        towards = given.x0 - null.x0
        known = length(towards) > _rounding(null)
        pull = towards
        for branch, push in self._negatives().items():
            difference = predictions[branch].x0 - null.x0
            across = difference - along(difference, towards)
            pull = pull - push * torch.where(known, across, 0)  # where there is no direction nothing can be across it
        moved = null.moved("x0", column(now(self.weight, at), null.x0) * pull)
        return Guided(moved.x0, moved.eps, self.measure(predictions, at).variance_fraction), state


def _rounding(belief: Prediction) -> Tensor:
    """Return how far rounding may have moved each clean image; a difference that is no longer has no direction."""
    at = belief.level.like(belief.x)
    size = length(belief.x0)
    if belief.level.alpha != 0:  # else x says nothing of the clean image
        size = size + length(belief.x) / at.alpha
    return size * (ROUNDINGS * torch.finfo(belief.x.dtype).eps)
