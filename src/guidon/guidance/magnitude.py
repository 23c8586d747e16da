"""Weights that follow the size of the difference: each image is guided the less, or the more, the larger its own is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.contrast import Pull
from guidon.guidance.rule import About, Moment, State
from guidon.guidance.space import check_space, length, view
from guidon.guidance.stage import Shape
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("stage", "mambo-g")
@dataclass(frozen=True)
class MamboG(Shape):
    """Guides the less, the larger the difference is against what one steers away from.

    Args:
        alpha: how fast guidance fades with that ratio, >= 0; 0 leaves it.
        space: the view that the ratio is measured in.

    Raises:
        BadValue: a setting is out of its range.

    Source: Zhu et al., arXiv 2508.03442.
    """

    about: ClassVar[About] = About(
        formula="w <- 1 + (w - 1) exp(-alpha |v_c - v_u| / |v_u|)",
        ranges=("alpha 8, w 10 (text, flow matching)",),
        sources=("zhu2025mambo",),
        notes="w is what a vanishing difference is guided with. The authors' w_max is w - 1.",
    )

    alpha: float = 8.0
    space: str = "velocity"

    def __post_init__(self) -> None:
        check_space(self.space)
        if not self.alpha >= 0:
            raise BadValue(f"mambo-g needs alpha >= 0, got {self.alpha}")

    def shape(self, pull: Pull, at: Moment, state: State) -> tuple[Prediction, State]:
        away = view(pull.away, self.space)
        limits = torch.finfo(away.dtype)
        ratio = length(view(pull.given, self.space) - away) / length(away).clamp_min(limits.tiny)
        return stretched(pull, torch.exp(-self.alpha * ratio.clamp_max(limits.max))), state


@register("stage", "power-law")
@dataclass(frozen=True)
class PowerLaw(Shape):
    """Guides by a power of the difference: large differences more, small ones less.

    Args:
        alpha: the power, >= 0; 0 leaves it.
        space: the view whose difference is measured.

    Raises:
        BadValue: a setting is out of its range.

    Source: Pavasovic et al., arXiv 2502.07849.
    """

    about: ClassVar[About] = About(
        formula="s = s_c + (w - 1) |s_c - s_u|^alpha (s_c - s_u), s the score, | | over an image",
        ranges=("alpha 0.9 (latent images)",),
        sources=("pavasovic2025powerlaw",),
        notes="w - 1 carries a unit: find it anew for each network and size of image. The score's difference is that of "
        "the noise over sigma, so guidance can grow very large where the last steps are small: bound it with `when`.",
    )

    alpha: float = 0.9
    space: str = "score"

    def __post_init__(self) -> None:
        check_space(self.space)
        if not self.alpha >= 0:
            raise BadValue(f"power-law needs alpha >= 0, got {self.alpha}")

    def shape(self, pull: Pull, at: Moment, state: State) -> tuple[Prediction, State]:
        size = length(view(pull.given, self.space) - view(pull.away, self.space))
        return stretched(pull, size**self.alpha), state


def stretched(pull: Pull, factor: Tensor) -> Prediction:
    """Return what to steer away from for a difference ``factor`` (B, 1, ...) times as large; the same in every view."""
    given, away = pull.given, pull.away
    x0, eps = (torch.lerp(there, here, 1 - factor) for there, here in ((away.x0, given.x0), (away.eps, given.eps)))
    return Prediction(away.x, away.level, x0, eps, away.variance_fraction)
