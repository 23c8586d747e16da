"""Guidance by several conditions: what not to draw, several things at once, an image and a text.

Conditions beyond "given" and "null" are told to the model by name: "negative", "also", "also-2", ..., "partial".
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from guidon.errors import BadValue, ShapeMismatch
from guidon.guidance.contrast import Weighted, column, everywhere, those
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Predictions, Rule, State, Which, but_for
from guidon.guidance.weights import Interval, PerImage, Weight, checked_weight, is_open, now
from guidon.noise.prediction import Prediction
from guidon.registry import register

Shares = dict[Branch, float | PerImage]

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


class Sum(Rule):
    """A rule that adds up beliefs, each with a share; the shares come to 1, so x stays."""

    @abstractmethod
    def shares(self, at: Moment) -> Shares:
        """Return the share of each branch at a moment, without those that have none."""

    def zeros(self, at: Moment) -> Which:
        shares = self.shares(at)
        return those(shares[GIVEN], 0.0) if GIVEN in shares else True

    def measure(self, predictions: Predictions, at: Moment) -> Prediction:
        shares = self.shares(at)
        order = [branch for branch in dict.fromkeys((GIVEN, NULL, *shares)) if branch in shares]
        told = predictions[order[-1]]
        for branch in reversed(order[:-1]):  # for images in which given has no share that of null, and so on
            told = but_for(those(shares[branch], 0.0), told, predictions[branch])
        return told

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return tuple(self.shares(at))

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        told = self.measure(predictions, at)
        columns = {branch: column(share, told.x0) for branch, share in self.shares(at).items()}
        if len(columns) == 1:
            return Guided.plain(told), state
        x0 = sum(share * predictions[branch].x0 for branch, share in columns.items())
        eps = sum(share * predictions[branch].eps for branch, share in columns.items())
        return Guided(x0, eps, told.variance_fraction), state  # type: ignore[arg-type]


@register("rule", "avoid")
@dataclass(frozen=True)
class Avoid(Sum):
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
        if not 0 <= self.push < math.inf:
            raise BadValue(
                f"avoid needs a finite push >= 0, got {self.push}; a negative one would move towards the condition"
            )

    def shares(self, at: Moment) -> Shares:
        if not is_open(self.when, at):
            return _shares({GIVEN: 1.0})
        return _shares({GIVEN: now(self.weight, at), NEGATIVE: -self.push})

    def uses(self) -> frozenset[str]:
        return frozenset(("null", "negative"))


@register("rule", "conjunction")
@dataclass(frozen=True)
class Conjunction(Sum):
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

    def shares(self, at: Moment) -> Shares:
        names = ["given", *numbered("also", len(self.weights) - 1)]
        return _shares({Branch(name): now(w, at) for name, w in zip(names, self.weights, strict=True)})

    def uses(self) -> frozenset[str]:
        return frozenset(("null", *numbered("also", len(self.weights) - 1)))


@register("rule", "two-scale")
@dataclass(frozen=True)
class TwoScale(Sum):
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

    def shares(self, at: Moment) -> Shares:
        if not is_open(self.when, at):
            return _shares({GIVEN: 1.0})
        weight = now(self.weight, at)
        return _shares({GIVEN: weight, PARTIAL: _total(self.part, _times(-1, weight))})

    def uses(self) -> frozenset[str]:
        return frozenset(("null", "partial"))


def numbered(name: str, count: int) -> list[str]:
    """Return the names of several conditions of one sort: "also", "also-2", ..."""
    return [name if i == 1 else f"{name}-{i}" for i in range(1, count + 1)]


def _shares(weights: Shares) -> Shares:
    """Return the share of each branch in u + sum w_i (c_i - u), without those that have none; they come to 1."""
    null = _total(1.0, *(_times(-1, weight) for weight in weights.values()))
    null = _times(1, null)  # 1 - 0.7 - 0.3 is rounding, not a share
    return {branch: share for branch, share in {**weights, NULL: null}.items() if not everywhere(share, 0.0)}


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
