"""A weight divided by the size of the image's state, as a widespread tutorial has it under the name of CFG++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from guidon.errors import BadValue
from guidon.guidance.contrast import Pull, Weighted, column, everywhere, those
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Moment, Predictions, State, Which
from guidon.guidance.weights import Interval, PerImage, Weight, is_open
from guidon.registry import register


@register("rule", "dynamic-scale")
@dataclass(frozen=True)
class DynamicScale(Weighted):
    """Classifier-free guidance with a weight that is divided by the mean absolute value of each image's state.

    No weight is plain conditional; 0 is unconditional.

    Args:
        weight: a number, one number an image, or a `Weight`; that of cfg where the mean of |x| is ``base``.
        base: the mean of |x| at which the weight counts as it is, > 0.
        when: the noise levels at which to guide; elsewhere the image is given alone.

    Raises:
        BadValue: a setting is out of its range.

    Source: a tutorial's own variant; no paper.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + w base / (mean|x| + 1e-6) (D_c - D_u), the mean over each image's noisy state",
        cost="2; 1 where w is 0, or outside of `when`",
        ranges=("w 7.5, base 1 in the tutorial",),
        notes="Not CFG++ (cfgpp), though the tutorial calls it so: it has nothing to do with that paper. It depends on the units of "
        "the data and on the process: |x| falls along the run where noise explodes, so guidance grows towards the end. The tutorial "
        "takes the mean over the whole batch; here each image has its own.",
    )
    adds: ClassVar[bool] = False

    weight: float | PerImage | Weight
    base: float = 1.0
    when: Interval | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.base > 0:
            raise BadValue(f"dynamic-scale needs a base > 0, got {self.base}")

    @property
    def away(self) -> Branch:
        return NULL

    def zeros(self, at: Moment) -> Which:
        return those(super().weight_at(at), 0.0)

    def weight_at(self, at: Moment) -> float | PerImage | None:
        weight = super().weight_at(at)
        return weight if not is_open(self.when, at) or everywhere(weight, 0.0) else None

    def pull(self, predictions: Predictions, at: Moment, state: State) -> tuple[Pull | None, State]:
        if self.weight_at(at) is not None:
            return super().pull(predictions, at, state)
        weight = super().weight_at(at)
        assert weight is not None
        x = predictions[GIVEN].x
        size = x.abs().mean(tuple(range(1, x.ndim)), keepdim=True)
        scaled = column(weight, x) * (self.base / (size + 1e-6))
        return Pull(predictions[GIVEN], predictions[self.away], torch.as_tensor(scaled).flatten()), state
