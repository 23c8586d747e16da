"""Tangential CFG: steers away from that part of the unconditional belief only that the two beliefs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from guidon.guidance.contrast import Pull
from guidon.guidance.rule import About, Moment, State
from guidon.guidance.space import check_space, dot, view
from guidon.guidance.stage import Shape
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("stage", "tcfg")
@dataclass(frozen=True)
class TCFG(Shape):
    """Replaces the belief that one steers away from by its projection on the main direction of both beliefs.

    Args:
        space: the view that it acts on.

    Raises:
        BadValue: there is no such space.

    Source: Kwon et al., arXiv 2503.18137.
    """

    about: ClassVar[About] = About(
        formula="u <- <u, e> e, e the first right singular vector of the rows c and u",
        ranges=("weight as for cfg",),
        sources=("kwon2025tcfg",),
        notes="In closed form from the three inner products of c and u, so it costs no decomposition. Where no direction is "
        "the main one (c and u of one length and at right angles) u stays.",
    )

    space: str = "eps"

    def __post_init__(self) -> None:
        check_space(self.space)

    def shape(self, pull: Pull, at: Moment, state: State) -> tuple[Prediction, State]:
        c, u = view(pull.given, self.space), view(pull.away, self.space)
        # the Gram matrix [[cc, cu], [cu, uu]] has its first eigenvector (cos a, sin a) at tan 2a = 2 cu / (cc - uu);
        # the projection of u is then sin a (cos a c + sin a u)
        apart, shared = dot(c, c) - dot(u, u), 2 * dot(c, u)  # (B, 1, ...)
        size = torch.hypot(apart, shared)
        cos, sin = apart / size, shared / size  # of 2 a
        projected = torch.where(size > 0, (sin * c + (1 - cos) * u) / 2, u)
        return pull.away.moved(self.space, projected - u), state
