"""Linear adaptive guidance: guess the other branch from what was believed before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.economy import Economy
from guidon.guidance.rule import About, Moment
from guidon.guidance.space import check_space, view
from guidon.noise.prediction import Prediction
from guidon.registry import register

SHORT = 0.01  # the shortest direction that a fit may use, against the longest


class Past(NamedTuple):
    """What is remembered of a branch.

    Args:
        step: the last one.
        given, other: what was believed there (B, ...), the other belief asked or guessed.
        asked: the last step that asked.
        fit: the coefficients (B, 3) found there; None before there were two steps in a row.
    """

    step: int
    given: Tensor
    other: Tensor
    asked: int
    fit: Tensor | None


@register("stage", "linear-ag")
@dataclass(frozen=True)
class LinearAG(Economy[Past]):
    """Asks the other branch every few steps only; in between it is guessed linearly from the given belief and the step before.

    The coefficients, three for each image, are fitted by least squares at the last step that asked: how the other belief there
    follows from the given belief there and from both beliefs of the step before. So the first two steps always ask, and so do the
    first two after a pause. Guesses stand in for the beliefs that were not asked.

    Args:
        every: a branch is asked when so many steps have passed since, >= 1; 1 saves nothing.
        space: the view that is guessed.

    Raises:
        BadValue: a setting is out of its range.

    Source: Castillo et al., arXiv 2312.12487.
    """

    about: ClassVar[About] = About(
        formula="eps_u(t) = a eps_c(t) + b eps_c(t-1) + c eps_u(t-1); a, b, c of each image from the last step that asked",
        cost="1 + 1/every with cfg, and 1 more at the second step",
        ranges=("every 2 in the noisier half, then `when` or adaptive (the paper's 25 evaluations for 20 steps)",),
        sources=("castillo2025adaptive",),
        notes="The paper fits coefficients for each step beforehand, from 200 stored runs of a network, over all steps before; "
        "this needs no such runs, fits anew for every image, and looks one step back. With 20 steps and more it is "
        "mostly nearer to the rule than reuse; with few steps a guess can go far astray.",
    )

    every: int = 2
    space: str = "eps"

    def __post_init__(self) -> None:
        check_space(self.space)
        if not self.every >= 1:
            raise BadValue(f"linear-ag asks every so many steps, 1 or more, got {self.every}")

    def due(self, at: Moment, memory: Past | None) -> bool:
        if memory is None or memory.fit is None or memory.step != at.index - 1:
            return True
        return at.index - memory.asked >= self.every

    def supply(
        self, given: Prediction, asked: Prediction | None, at: Moment, memory: Past | None
    ) -> tuple[Prediction, Past]:
        here = view(given, self.space)
        if asked is not None:
            there = view(asked, self.space)
            in_a_row = memory is not None and memory.step == at.index - 1
            fit = _fitted(here, memory, there) if memory is not None and in_a_row else None
            return asked, Past(at.index, here, there, at.index, fit)
        assert memory is not None and memory.fit is not None
        difference = (memory.fit[:, None] @ _regressors(here, memory)).reshape(here.shape).to(here.dtype)
        guess = given.moved(self.space, -difference)
        return guess, Past(at.index, here, here - difference, memory.asked, memory.fit)


def _regressors(given: Tensor, before: Past) -> Tensor:
    """Return what the difference of the two beliefs follows from, (B, 3, D) float64: the given one, its change, the last difference."""
    here, there, other = (part.double().flatten(1) for part in (given, before.given, before.other))
    return torch.stack([here, here - there, there - other], dim=1)


def _fitted(given: Tensor, before: Past, other: Tensor) -> Tensor:
    """Return the coefficients (B, 3) of least squares that make the difference of the two beliefs of its regressors.

    The last difference counts in units of this one and the others in their own, and directions that are short in these units are left
    out: through them a difference that had been next to nothing would be blown up.
    """
    regressors, difference = _regressors(given, before), (given - other).double().flatten(1)  # (B, 3, D), (B, D)
    tiny = torch.finfo(torch.float64).tiny
    size = difference.norm(dim=1)  # (B,)
    units = regressors.norm(dim=2)  # (B, 3)
    units[:, 2] = torch.maximum(units[:, 2], size)
    scaled = regressors / units.clamp_min(tiny)[..., None]
    # images that are no longer asked for are NaN
    scaled, difference = scaled.nan_to_num(), difference.nan_to_num()
    inverse = torch.linalg.pinv(scaled @ scaled.mT, hermitian=True, rtol=SHORT**2)  # (B, 3, 3)
    return (inverse @ (scaled @ difference[..., None])).squeeze(-1) / units.clamp_min(tiny)
