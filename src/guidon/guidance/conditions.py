"""Guidance by several conditions: what not to draw, several things at once, an image and a text.

Conditions beyond "given" and "null" are told to the model by name: "negative", "also", "also-2", ..., "partial".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.contrast import Weighted
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Predictions, Rule, State
from guidon.guidance.weights import Interval, PerImage, Weight, checked_weight
from guidon.noise.prediction import Prediction
from guidon.registry import register

NEGATIVE = Branch("negative")
PARTIAL = Branch("partial")


@register("rule", "negative")
@dataclass(frozen=True)
class Negative(Weighted):
    """A negative condition in place of none, away from it towards the given one.

    Args:
        weight: 1 is plain conditional.
        when: the noise levels at which to guide.

    Source: as practised with Stable Diffusion; arXiv 2207.12598 with another null.
    """

    about: ClassVar[About] = About(
        formula="D = D_n + w (D_c - D_n), n the negative condition",
        cost="2",
        ranges=("as cfg",),
        sources=("ho2022classifier",),
        notes="For a weight of its own use avoid, to protect the given condition perp-neg.",
    )

    weight: float | PerImage | Weight
    when: Interval | None = None

    @property
    def away(self) -> Branch:
        return NEGATIVE


@register("rule", "avoid")
@dataclass(frozen=True)
class Avoid(Rule):
    """A negative condition with a weight of its own, beside classifier-free guidance.

    Args:
        weight: towards the given condition; 1 is plain conditional.
        push: away from the negative one, >= 0; 0 does nothing.

    Source: arXiv 2206.01714, eq. 12 (NOT).
    """

    about: ClassVar[About] = About(
        formula="D = D_u + w (D_c - D_u) - p (D_n - D_u), n the negative condition",
        cost="3",
        ranges=("w as cfg", "p 0.5 to half of w"),
        sources=("liu2022compositional",),
        notes="Some codes write + w (D_c - D_n), which moves towards n where w is large; the sign here is tested.",
    )

    weight: float
    push: float = 1.0

    def __post_init__(self) -> None:
        if not self.push >= 0:
            raise BadValue(
                f"avoid needs a push >= 0, got {self.push}; a negative push would move towards the condition"
            )

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return _needed({GIVEN: self.weight, NEGATIVE: -self.push})

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        return _weighted(predictions, {GIVEN: self.weight, NEGATIVE: -self.push}), state


@register("rule", "conjunction")
@dataclass(frozen=True)
class Conjunction(Rule):
    """Several conditions at once, each with a weight; a negative weight says not.

    Args:
        weights: of the given condition and of those told as "also", "also-2", ...: numbers or schedules.

    Source: Liu et al., arXiv 2206.01714, eq. 11 and 12.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + sum_i w_i (D_i - D_u)",
        cost="1 + the number of conditions whose weight is not 0",
        ranges=("each as cfg, or the usual weight shared out",),
        sources=("liu2022compositional",),
    )

    weights: tuple[float | Weight, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.weights, tuple) or not self.weights:
            raise BadValue(f"conjunction takes a list of weights, one for each condition, got {self.weights!r}")
        checked = tuple(checked_weight(weight) for weight in self.weights)
        if any(isinstance(weight, tuple) for weight in checked):
            raise BadValue("conjunction takes one weight for each condition, not one for each image")
        object.__setattr__(self, "weights", checked)

    def _now(self, at: Moment) -> dict[Branch, float]:
        names = ["given", "also", *(f"also-{i}" for i in range(2, len(self.weights)))]
        values = [weight.at(at) if isinstance(weight, Weight) else weight for weight in self.weights]
        return {Branch(name): float(w) for name, w in zip(names, values, strict=False)}  # type: ignore[arg-type]

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return _needed(self._now(at))

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        return _weighted(predictions, self._now(at)), state


@register("rule", "two-scale")
@dataclass(frozen=True)
class TwoScale(Rule):
    """Two conditions that build on each other, an image and a text say, each with its own weight.

    Args:
        weight: of the whole condition over the part; 1 is plain conditional.
        part: of the part (told as "partial") over none; 1 is plain.

    Source: Brooks et al., arXiv 2211.09800, eq. 3.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + part (D_p - D_u) + w (D_c - D_p), p a part of the given condition",
        cost="3; 2 where one weight is 1; 1 where both are",
        ranges=("InstructPix2Pix: w 7.5, part 1.5",),
        sources=("brooks2023instructpix2pix",),
    )

    weight: float
    part: float = 1.5

    def _now(self) -> dict[Branch, float]:
        return {GIVEN: self.weight, PARTIAL: self.part - self.weight, NULL: 1 - self.part}

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return tuple(branch for branch, share in self._now().items() if share != 0)

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        shares = self._now()
        return _sum(predictions, {branch: shares[branch] for branch in predictions}), state


@register("rule", "perp-neg")
@dataclass(frozen=True)
class PerpNeg(Rule):
    """Negative conditions of which only the part at right angles to the given one counts.

    Args:
        weight: towards the given condition; 1 with pushes of 0 is plain conditional.
        pushes: for each negative condition ("negative", "negative-2", ...) how much of w it gets, >= 0.

    Source: Armandpour et al., arXiv 2304.04968, eq. 8; the angle is taken image by image.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + w (d - sum_i p_i (d_i - <d_i, d> d / |d|^2)), d = D_c - D_u, d_i = D_ni - D_u",
        cost="2 + the number of negative conditions",
        ranges=("w as cfg", "p 0.5 to 4"),
        sources=("armandpour2023perpneg",),
    )

    weight: float
    pushes: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not isinstance(self.pushes, tuple) or not all(push >= 0 for push in self.pushes):
            raise BadValue(
                f"perp-neg takes a list of pushes >= 0, one for each negative condition, got {self.pushes!r}"
            )

    def _negatives(self) -> dict[Branch, float]:
        names = ["negative", *(f"negative-{i}" for i in range(2, len(self.pushes) + 1))]
        return {Branch(name): push for name, push in zip(names, self.pushes, strict=False) if push != 0}

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        if self.weight == 0:
            return (NULL,)
        if self.weight == 1 and not self._negatives():
            return (GIVEN,)
        return GIVEN, NULL, *self._negatives()

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        if len(predictions) == 1:
            return Guided.plain(next(iter(predictions.values()))), state
        null, given = predictions[NULL], predictions[GIVEN]
        towards = given.x0 - null.x0
        pull = towards
        for branch, push in self._negatives().items():
            difference = predictions[branch].x0 - null.x0
            pull = pull - push * (difference - along(difference, towards))
        moved = null.moved("x0", self.weight * pull)
        return Guided(moved.x0, moved.eps, given.variance_fraction), state


def along(what: Tensor, direction: Tensor) -> Tensor:
    """Return the part of ``what`` (B, ...) in a direction (B, ...), image by image; none where there is no direction."""
    axes = tuple(range(1, what.ndim))
    length = (direction * direction).sum(axes, keepdim=True)
    share = (what * direction).sum(axes, keepdim=True) / torch.where(length > 0, length, 1)
    return share * direction


def _needed(weights: dict[Branch, float]) -> tuple[Branch, ...]:
    """Return the branches of u + sum w_i (c_i - u) whose share is not 0."""
    asked = tuple(branch for branch, weight in weights.items() if weight != 0)
    return asked if asked and sum(weights.values()) == 1 else (*asked, NULL)


def _weighted(predictions: Predictions, weights: dict[Branch, float]) -> Guided:
    """Return u + sum w_i (c_i - u)."""
    return _sum(predictions, {b: weights[b] if b in weights else 1 - sum(weights.values()) for b in predictions})


def _sum(predictions: Predictions, shares: dict[Branch, float]) -> Guided:
    """Return a weighted sum of beliefs whose shares come to 1, so that x stays; the given branch's variance."""
    if len(predictions) == 1:
        return Guided.plain(next(iter(predictions.values())))
    told: Prediction = predictions.get(GIVEN) or next(iter(predictions.values()))
    x0 = sum(share * predictions[branch].x0 for branch, share in shares.items())
    eps = sum(share * predictions[branch].eps for branch, share in shares.items())
    return Guided(x0, eps, told.variance_fraction)  # type: ignore[arg-type]
