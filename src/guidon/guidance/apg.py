"""Adaptive projected guidance: most of what oversaturates is the part of the difference along the image itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue, ShapeMismatch
from guidon.guidance.contrast import Pull
from guidon.guidance.rule import About, Moment
from guidon.guidance.space import along, check_space, dot, length, view
from guidon.guidance.stage import Shape
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("stage", "apg")
@dataclass(frozen=True)
class APG(Shape):
    """Steers less along the given belief, by no more than a radius, and away from where the steps before went.

    The neutral setting is eta = 1 without radius and momentum.

    Args:
        eta: how much of the part along the given belief is kept; 0 none, 1 all.
        radius: the longest difference; longer ones are cut to it. > 0, ``inf`` for none.
        momentum: how much of the differences before is added, in (-1, 1); 0 none, negative brakes.
        space: the view that it acts on.
        axes: the axes of (B, ...) that one length is taken over, without 0; None for all of an image.

    Raises:
        BadValue: a setting is out of its range.

    Source: Sadat et al., arXiv 2410.02416.
    """

    about: ClassVar[About] = About(
        formula="D = D_c + (w - 1)(m_across + eta m_along), m = D_c - D_u + momentum m_before, cut to a length of radius",
        ranges=("EDM2-S: radius 2.5, momentum -0.75", "DiT-XL/2: 5, -0.5", "SDXL: 15, -0.5"),
        sources=("sadat2025eliminating",),
        notes="The radius depends on how many numbers an image has. diffusers adds the shaped difference to D_u by default; "
        "the paper, and this, to D_c. The momentum keeps differences before they are cut.",
    )

    eta: float = 0.0
    radius: float = math.inf
    momentum: float = 0.0
    space: str = "x0"
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_space(self.space)
        if not self.radius > 0:
            raise BadValue(f"apg needs a radius > 0, or inf for none, got {self.radius}")
        if not -1 < self.momentum < 1:
            raise BadValue(f"apg needs a momentum in (-1, 1), or its memory grows without end; got {self.momentum}")
        if self.axes is not None and (not self.axes or 0 in self.axes):
            raise BadValue(f"apg takes lengths over axes within an image, 1, 2, ... or -1, -2, ...; got {self.axes}")

    def shape(self, pull: Pull, at: Moment, state: Tensor | None) -> tuple[Prediction, Tensor | None]:
        given = view(pull.given, self.space)
        if self.axes is not None and len(
            {axis % given.ndim for axis in self.axes if -given.ndim < axis < given.ndim}
        ) < len(self.axes):
            raise ShapeMismatch(
                f"apg's axes {self.axes} are not different ones of images {tuple(given.shape)}; name others"
            )
        whole = given - view(pull.away, self.space)  # (B, ...)
        # where the branches agree, as adaptive guidance takes them to, the momentum rests too
        kept = 0 if state is None else torch.where(dot(whole, whole) > 0, self.momentum * state, 0)
        difference = whole + kept
        after = difference if self.momentum else None
        if self.radius < math.inf:
            difference = difference * (self.radius / length(difference, self.axes)).clamp_max(1.0)
        if self.eta != 1:
            difference = difference - (1 - self.eta) * along(difference, given, self.axes)
        return pull.away.moved(self.space, whole - difference), after
