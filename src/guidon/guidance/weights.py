"""Guidance weights over time and over images.

A weight w means eps_w = eps_null + w (eps_given - eps_null) everywhere: 0 is unconditional, 1 plain conditional.
Ho & Salimans' weight is w - 1: convert with `from_ho_salimans`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from guidon.errors import BadValue
from guidon.guidance.rule import Moment
from guidon.registry import register

PerImage = tuple[float, ...]


class Weight(ABC):
    """A weight that changes along the run."""

    @abstractmethod
    def at(self, moment: Moment) -> float | PerImage:
        """Return the weight at a moment: one for all images, or one each."""


@register("weight", "linear")
@dataclass(frozen=True)
class LinearWeight(Weight):
    """A weight that goes from ``first`` to ``last`` in a straight line over the steps."""

    first: float
    last: float

    def at(self, moment: Moment) -> float:
        return self.first + (self.last - self.first) * _ramp(moment)


@register("weight", "cosine")
@dataclass(frozen=True)
class CosineWeight(Weight):
    """A weight that goes from ``first`` to ``last`` along half a cosine over the steps."""

    first: float
    last: float

    def at(self, moment: Moment) -> float:
        return self.first + (self.last - self.first) * (1 - math.cos(math.pi * _ramp(moment))) / 2


@register("when", "interval")
@dataclass(frozen=True)
class Interval:
    """The moments whose noise level sigma / alpha lies in (low, high]. Source: arXiv 2404.07724.

    Args:
        low: open end, >= 0.
        high: closed end, > low; may be ``inf``.
    """

    low: float
    high: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise BadValue(f"an interval of noise levels needs 0 <= low < high, got {self.low} and {self.high}")

    def holds(self, moment: Moment) -> bool:
        """Return whether a moment lies inside."""
        return self.low < moment.noise_level <= self.high


def from_ho_salimans(weight: float) -> float:
    """Turn the weight of arXiv 2207.12598, where 0 is plain conditional, into ours."""
    return weight + 1


def checked_weight(weight: object) -> float | PerImage | Weight:
    """Return a weight in its own type; raises `BadValue` for what cannot be one.

    Args:
        weight: a number, one number an image (list, tuple or tensor), or a `Weight`.
    """
    if isinstance(weight, Weight):
        return weight
    if isinstance(weight, str):
        raise BadValue(f"a weight is a number, one number an image, or a schedule such as linear(1, 4); got {weight!r}")
    if hasattr(weight, "tolist"):
        weight = weight.tolist()
    try:
        several = tuple(float(w) for w in weight) if isinstance(weight, Iterable) else None
        result: float | PerImage = float(weight) if several is None else several  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadValue(f"a weight is a number, one number an image, or a schedule; got {weight!r}") from None
    if several == ():
        raise BadValue("a weight is a number, one number an image, or a schedule; got an empty list")
    if not all(math.isfinite(w) for w in ((result,) if isinstance(result, float) else result)):
        raise BadValue(f"a weight is a finite number, got {weight!r}")
    return result


def _ramp(moment: Moment) -> float:
    """Return 0 at the first step and 1 at the last."""
    return moment.index / max(moment.steps - 1, 1)
