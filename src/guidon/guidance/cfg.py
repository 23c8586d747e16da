"""Classifier-free guidance: extrapolate from what the network believes without the condition to what it believes with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.errors import ShapeMismatch
from guidon.guidance.rule import GIVEN, NULL, Branch, Guided, Moment, Predictions, Rule, State
from guidon.guidance.weights import Interval, PerImage, Weight, checked_weight
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("rule", "cfg")
@dataclass(frozen=True)
class CFG(Rule):
    """Classifier-free guidance, eps_null + w (eps_given - eps_null).

    Costs two evaluations a step; one where w is 1 (plain conditional) or 0 (unconditional) for all images.

    Args:
        weight: a number, one number an image, or a `Weight`; 1 is plain conditional, 1.5 to 4 usual for classes, 3 to 10
            for text.
        when: the noise levels at which to guide; elsewhere the weight is 1.

    Source: Ho & Salimans, arXiv 2207.12598, eq. 6 (their w is ours - 1); `when`: arXiv 2404.07724.
    """

    weight: float | PerImage | Weight
    when: Interval | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_weight(self.weight))

    def weight_at(self, at: Moment) -> float | PerImage:
        """Return the weight at a moment."""
        if self.when is not None and not self.when.holds(at):
            return 1.0
        return self.weight.at(at) if isinstance(self.weight, Weight) else self.weight

    def branches(self, at: Moment) -> tuple[Branch, ...]:
        weight = self.weight_at(at)
        values = {weight} if isinstance(weight, float) else set(weight)
        if values == {1.0}:
            return (GIVEN,)
        if values == {0.0}:
            return (NULL,)
        return GIVEN, NULL

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        if len(predictions) == 1:
            return Guided.plain(next(iter(predictions.values()))), state
        return blend(predictions[NULL], predictions[GIVEN], self.weight_at(at)), state


def blend(base: Prediction, towards: Prediction, weight: float | PerImage) -> Guided:
    """Return base + w (towards - base); linear, so it means the same for x0 and eps."""
    w: float | Tensor = weight if isinstance(weight, float) else _column(weight, base.x0)
    return Guided(
        torch.lerp(base.x0, towards.x0, w),
        torch.lerp(base.eps, towards.eps, w),
        towards.variance_fraction,
    )


def _column(weights: PerImage, like: Tensor) -> Tensor:
    if len(weights) != like.shape[0]:
        raise ShapeMismatch(
            f"{len(weights)} weights for {like.shape[0]} images; give one weight, or one for each image"
        )
    return torch.tensor(weights, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))
