"""Classifier-free guidance: extrapolate from what the network believes without the condition to what it believes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guidon.guidance.contrast import Weighted
from guidon.guidance.rule import NULL, About, Branch
from guidon.guidance.weights import Interval, PerImage, Weight
from guidon.registry import register


@register("rule", "cfg")
@dataclass(frozen=True)
class CFG(Weighted):
    """Classifier-free guidance, from no condition towards the given one.

    Costs two evaluations a step; one where w is 1 (plain conditional) or 0 (unconditional) for all images.

    Args:
        weight: a number, one number an image, or a `Weight`; 1 is plain conditional.
        when: the noise levels at which to guide; elsewhere the weight is 1.

    Source: Ho & Salimans, arXiv 2207.12598, eq. 6 (their w is ours - 1); `when`: arXiv 2404.07724.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + w (D_c - D_u)",
        cost="2; 1 where w is 1 or 0, or outside of `when`",
        ranges=("classes: 1.2 to 4", "text: 3 to 10", "with an interval: up to twice as much"),
        sources=("ho2022classifier",),
        notes="Ho & Salimans' weight is w - 1.",
    )

    weight: float | PerImage | Weight
    when: Interval | None = None

    @property
    def away(self) -> Branch:
        return NULL
