"""Guidance by several conditions: what not to draw, several things at once, an image and a text.

Conditions beyond "given" and "null" are told to the model by name: "negative", "also", "also-2", ..., "partial".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue, ShapeMismatch
from guidon.guidance.contrast import Weighted, column, everywhere, those
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Predictions, Rule, State, Which, but_for
from guidon.guidance.space import along, length
from guidon.guidance.weights import Interval, PerImage, Weight, checked_weight, is_open, now
from guidon.noise.prediction import Prediction
from guidon.registry import register

Shares = dict[Branch, float | PerImage]

NEGATIVE = Branch("negative")
PARTIAL = Branch("partial")
ROUNDINGS = 64  # that a clean image may have gone through


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
        when: the noise levels at which to guide; elsewhere the given condition alone is asked.

    Source: arXiv 2206.01714 (negation).
    """

    about: ClassVar[About] = About(
        formula="D = D_u + w (D_c - D_u) - p (D_n - D_u), n the negative condition",
        cost="3",
        ranges=("w as cfg", "p 0.5 to half of w"),
        sources=("liu2022compositional",),
        notes="Some codes write + w (D_c - D_n), which moves towards n where w is large; the sign here is tested.",
    )

    weight: float | PerImage | Weight
    push: float = 1.0
    when: Interval | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_weight(self.weight))
        if not self.push >= 0:
            raise BadValue(f"avoid needs a push >= 0, got {self.push}; a negative one would move towards the condition")

    def _shares(self, at: Moment) -> Shares:
        if not is_open(self.when, at):
            return _shares({GIVEN: 1.0})
        return _shares({GIVEN: now(self.weight, at), NEGATIVE: -self.push})

    def uses(self) -> frozenset[str]:
        return frozenset(("negative",))

    def zeros(self, at: Moment) -> Which:
        return _without(self._shares(at))

    def measure(self, predictions: Predictions, at: Moment) -> Prediction:
        return _measure(predictions, self._shares(at))

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return tuple(self._shares(at))

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        return _sum(predictions, self._shares(at)), state


@register("rule", "conjunction")
@dataclass(frozen=True)
class Conjunction(Rule):
    """Several conditions at once, each with a weight; a negative weight says not.

    Args:
        weights: of the given condition and of those told as "also", "also-2", ...: each a number, one number an image, or a
            schedule.

    Source: Liu et al., arXiv 2206.01714.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + sum_i w_i (D_i - D_u)",
        cost="1 + the number of conditions whose weight is not 0; without the 1 where the weights sum to 1",
        ranges=("each as cfg, or the usual weight shared out",),
        sources=("liu2022compositional",),
    )

    weights: tuple[float | PerImage | Weight, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.weights, tuple | list) or not self.weights:
            raise BadValue(f"conjunction takes a list of weights, one for each condition, got {self.weights!r}")
        object.__setattr__(self, "weights", tuple(checked_weight(weight) for weight in self.weights))

    def _shares(self, at: Moment) -> Shares:
        names = ["given", *_names("also", len(self.weights) - 1)]
        return _shares({Branch(name): now(w, at) for name, w in zip(names, self.weights, strict=True)})

    def uses(self) -> frozenset[str]:
        return frozenset(_names("also", len(self.weights) - 1))

    def zeros(self, at: Moment) -> Which:
        return _without(self._shares(at))

    def measure(self, predictions: Predictions, at: Moment) -> Prediction:
        return _measure(predictions, self._shares(at))

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return tuple(self._shares(at))

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        return _sum(predictions, self._shares(at)), state


@register("rule", "two-scale")
@dataclass(frozen=True)
class TwoScale(Rule):
    """Two conditions that build on each other, an image and a text say, each with its own weight.

    Args:
        weight: of the whole condition over the part; 1 is plain conditional.
        part: of the part (told as "partial") over none; 1 is plain.
        when: the noise levels at which to guide; elsewhere the given condition alone is asked.

    Source: Brooks et al., arXiv 2211.09800, eq. 3.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + part (D_p - D_u) + w (D_c - D_p), p a part of the given condition",
        cost="3; 2 where part is 1, or w is part or 0; 1 where both are 1",
        ranges=("InstructPix2Pix: w 7.5, part 1.5",),
        sources=("brooks2023instructpix2pix",),
    )

    weight: float | PerImage | Weight
    part: float = 1.5
    when: Interval | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_weight(self.weight))
        if not math.isfinite(self.part):
            raise BadValue(f"two-scale needs a finite part, got {self.part}")

    def _shares(self, at: Moment) -> Shares:
        if not is_open(self.when, at):
            return _shares({GIVEN: 1.0})
        weight = now(self.weight, at)
        return _shares({GIVEN: weight, PARTIAL: _total(self.part, _times(-1, weight))})

    def uses(self) -> frozenset[str]:
        return frozenset(("partial",))

    def zeros(self, at: Moment) -> Which:
        return _without(self._shares(at))

    def measure(self, predictions: Predictions, at: Moment) -> Prediction:
        return _measure(predictions, self._shares(at))

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return tuple(self._shares(at))

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        return _sum(predictions, self._shares(at)), state


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
        names = _names("negative", len(self.pushes))
        return {Branch(name): push for name, push in zip(names, self.pushes, strict=True) if push != 0}

    def uses(self) -> frozenset[str]:
        return frozenset(_names("negative", len(self.pushes)))

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


def _names(name: str, count: int) -> list[str]:
    """Return the names of several conditions of one sort: "also", "also-2", ..."""
    return [name if i == 1 else f"{name}-{i}" for i in range(1, count + 1)]


def _shares(weights: Shares) -> Shares:
    """Return the share of each branch in u + sum w_i (c_i - u), without those that have none; they come to 1."""
    null = _total(1.0, *(_times(-1, weight) for weight in weights.values()))
    null = _times(1, null)  # 1 - 0.7 - 0.3 is rounding, not a share
    return {branch: share for branch, share in {**weights, NULL: null}.items() if not everywhere(share, 0.0)}


def _without(shares: Shares) -> Which:
    """Return the images in which the given branch has no share."""
    return those(shares[GIVEN], 0.0) if GIVEN in shares else True


def _measure(predictions: Predictions, shares: Shares) -> Prediction:
    """Return the belief of given; for images in which it has no share that of null, and so on."""
    order = [branch for branch in dict.fromkeys((GIVEN, NULL, *shares)) if branch in shares]
    told = predictions[order[-1]]
    for branch in reversed(order[:-1]):
        told = but_for(those(shares[branch], 0.0), told, predictions[branch])
    return told


def _sum(predictions: Predictions, shares: Shares) -> Guided:
    """Return a weighted sum of beliefs; the shares come to 1, so x stays. The variance is the given branch's."""
    if len(shares) == 1:
        return Guided.plain(predictions[next(iter(shares))])
    told = _measure(predictions, shares)
    columns = {branch: column(share, told.x0) for branch, share in shares.items()}
    x0 = sum(share * predictions[branch].x0 for branch, share in columns.items())
    eps = sum(share * predictions[branch].eps for branch, share in columns.items())
    return Guided(x0, eps, told.variance_fraction)  # type: ignore[arg-type]


def _total(*values: float | PerImage) -> float | PerImage:
    """Return a sum of weights, image by image where one of them is."""
    many = [value for value in values if isinstance(value, tuple)]
    if not many:
        return float(sum(values))  # type: ignore[arg-type]
    if len({len(value) for value in many}) > 1:
        raise ShapeMismatch(
            "the weights are for different numbers of images; give each condition one weight for each image"
        )
    each = [value if isinstance(value, tuple) else (value,) * len(many[0]) for value in values]
    return tuple(float(sum(row)) for row in zip(*each, strict=True))


def _times(factor: float, value: float | PerImage) -> float | PerImage:
    """Return a multiple of a weight; what is no more than rounding is 0."""
    if isinstance(value, tuple):
        return tuple(factor * v if abs(v) > 1e-12 else 0.0 for v in value)
    return factor * value if abs(value) > 1e-12 else 0.0
