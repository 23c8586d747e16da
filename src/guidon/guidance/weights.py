"""Guidance weights over time and over images.

A weight w means eps_w = eps_null + w (eps_given - eps_null) everywhere: 0 is unconditional, 1 plain conditional.
Ho & Salimans' weight is w - 1: convert with `from_ho_salimans`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

from guidon.errors import BadValue
from guidon.guidance.rule import About, Moment
from guidon.registry import register

PerImage = tuple[float, ...]


class Weight(ABC):
    """A weight that changes along the run; a frozen dataclass of finite numbers."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise BadValue(f"a schedule goes between finite numbers, and {field.name} is {value}")

    @abstractmethod
    def at(self, moment: Moment) -> float | PerImage:
        """Return the weight at a moment: one for all images, or one each."""


@register("weight", "linear")
@dataclass(frozen=True)
class LinearWeight(Weight):
    """A weight that goes from ``first`` to ``last`` in a straight line over the steps.

    Args:
        first, last: at the first and at the last step.
    """

    about: ClassVar[About] = About(
        formula="first + (last - first) r, r from 0 at the first step to 1 at the last",
        ranges=("upwards, linear(1, 2w - 1), spends as much as a constant w",),
        sources=("wang2024schedulers",),
        notes="Wang et al. find schedules that grow while the image clears better than falling ones.",
    )

    first: float
    last: float

    def at(self, moment: Moment) -> float:
        return self.first + (self.last - self.first) * moment.ramp


@register("weight", "clamp-linear")
@dataclass(frozen=True)
class ClampLinearWeight(Weight):
    """A weight that goes from ``first`` to ``last`` in a straight line, but never below ``least``.

    Args:
        first, last: at the first and at the last step.
        least: what it never falls below.
    """

    about: ClassVar[About] = About(
        formula="max(least, first + (last - first) r)",
        ranges=("least about 3 for SD 1.5, 5 for SDXL (the paper's 2 and 4 count from plain conditional)",),
        sources=("wang2024schedulers",),
    )

    first: float
    last: float
    least: float

    def at(self, moment: Moment) -> float:
        return max(self.least, self.first + (self.last - self.first) * moment.ramp)


@register("weight", "cosine")
@dataclass(frozen=True)
class CosineWeight(Weight):
    """A weight that goes from ``first`` to ``last`` along half a cosine over the steps.

    Args:
        first, last: at the first and at the last step.
    """

    about: ClassVar[About] = About(
        formula="first + (last - first)(1 - cos(pi r)) / 2",
        ranges=("upwards, cosine(1, 2w - 1), spends as much as a constant w",),
        sources=("wang2024schedulers",),
        notes="Downwards, cosine(15, 1), is what is also called progressive CFG; it loses modes (docs/choosing.md).",
    )

    first: float
    last: float

    def at(self, moment: Moment) -> float:
        return self.first + (self.last - self.first) * (1 - math.cos(math.pi * moment.ramp)) / 2


@register("weight", "power")
@dataclass(frozen=True)
class PowerWeight(Weight):
    """A weight that goes from ``first`` to ``last`` as a power of the way.

    Args:
        first, last: at the first and at the last step.
        exponent: > 0; 1 is linear, larger stays near ``first`` for longer.
    """

    about: ClassVar[About] = About(
        formula="first + (last - first) r^exponent",
        ranges=("exponent 0.5 to 4",),
        sources=("wang2024schedulers",),
        notes="A plain power; the paper's family is powered cosines.",
    )

    first: float
    last: float
    exponent: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.exponent > 0:
            raise BadValue(f"power needs an exponent > 0, got {self.exponent}")

    def at(self, moment: Moment) -> float:
        return self.first + (self.last - self.first) * moment.ramp**self.exponent


@register("weight", "beta")
@dataclass(frozen=True)
class BetaWeight(Weight):
    """A weight that is 1 at both ends and follows the density of a Beta distribution up to ``peak`` in between.

    Args:
        peak: the largest weight.
        a, b: shape of the density, > 1; a = b peaks in the middle of the run, a > b later.
    """

    about: ClassVar[About] = About(
        formula="1 + (peak - 1) r^(a-1) (1-r)^(b-1) / max of the same",
        ranges=("a = b = 2", "peak as a constant weight, or half as much again"),
        sources=("malarz2025betacfg",),
        notes="Only the shape over time is the source's, scaled so that `peak` is reached. There the difference is also normalised, and "
        "the first and last steps are unconditional; here they are plain conditional.",
    )

    peak: float
    a: float = 2.0
    b: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.a > 1 and self.b > 1):
            raise BadValue(f"beta needs a > 1 and b > 1, got {self.a} and {self.b}")

    def at(self, moment: Moment) -> float:
        mode = (self.a - 1) / (self.a + self.b - 2)
        return 1 + (self.peak - 1) * self._density(moment.ramp) / self._density(mode)

    def _density(self, way: float) -> float:
        return way ** (self.a - 1) * (1 - way) ** (self.b - 1)


@dataclass(frozen=True)
class OfMoment(Weight):
    """Any function of the moment; it has no text form, so a record can tell of it but not make it again.

    Stages with memory begin when some image of a batch is guided: let all images of a batch be guided at the same steps.

    Args:
        function: returns a weight, or one for each image.
    """

    function: Callable[[Moment], float | PerImage]

    def at(self, moment: Moment) -> float | PerImage:
        weight = checked_weight(self.function(moment))
        if isinstance(weight, Weight):
            raise BadValue("a function of the moment returns a number, or one an image, not another schedule")
        return weight

    def to_text(self) -> str:
        """Return the function's name."""
        return getattr(self.function, "__name__", repr(self.function))


@register("when", "interval")
@dataclass(frozen=True)
class Interval:
    """The moments whose noise level sigma / alpha lies in (low, high].

    Args:
        low: open end, >= 0.
        high: closed end, > low; may be ``inf``.
        whole_steps: decide by the level that a step begins at, for all its evaluations; else each decides by its own.

    Source: Kynkaanniemi et al., arXiv 2404.07724; their code decides by whole steps.
    """

    about: ClassVar[About] = About(
        formula="w where low < sigma / alpha <= high, 1 elsewhere",
        cost="1 outside",
        ranges=("ImageNet-512, EDM2-S: (0.28, 2.9]", "DiT-XL/2: (0.34, 1.02]", "SDXL: (0.28, 5.42]"),
        sources=("kynkaanniemi2024interval",),
    )

    low: float
    high: float = math.inf
    whole_steps: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise BadValue(f"an interval of noise levels needs 0 <= low < high, got {self.low} and {self.high}")

    def holds(self, moment: Moment) -> bool:
        """Return whether a moment lies inside."""
        level = moment.began if self.whole_steps and moment.began is not None else moment.here
        noise_level = float(level.noise_level) * (1 - 1e-12)  # on a bound, whatever the last digits of sigma / alpha
        return self.low < noise_level <= self.high


def from_ho_salimans(weight: float) -> float:
    """Turn the weight of arXiv 2207.12598, where 0 is plain conditional, into ours."""
    return weight + 1


def now(weight: float | PerImage | Weight, at: Moment) -> float | PerImage:
    """Return a weight at a moment."""
    return weight.at(at) if isinstance(weight, Weight) else weight


def is_open(when: Interval | None, at: Moment) -> bool:
    """Return whether an interval, or none, is open at a moment."""
    if not (when is None or isinstance(when, Interval)):
        raise BadValue(f"when is an interval of noise levels such as Interval(0.3, 3), got {when!r}")
    return when is None or when.holds(at)


def checked_weight(weight: object) -> float | PerImage | Weight:
    """Return a weight in its own type; raises `BadValue` for what cannot be one.

    Args:
        weight: a number, one number an image (list, tuple or tensor), a `Weight`, or a function of the moment.
    """
    if isinstance(weight, Weight):
        return weight
    if callable(weight):
        return OfMoment(weight)
    if isinstance(weight, str):
        raise BadValue(f"a weight is a number, one number an image, or a schedule such as linear(1, 4); got {weight!r}")
    if hasattr(weight, "tolist"):
        weight = weight.tolist()
    try:
        several = tuple(float(w) for w in weight) if isinstance(weight, Iterable) else None
        result: float | PerImage = float(weight) if several is None else several  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise BadValue(f"a weight is a number, one number an image, or a schedule; got {weight!r}") from None
    if several == ():
        raise BadValue("a weight is a number, one number an image, or a schedule; got an empty list")
    if not all(math.isfinite(w) for w in ((result,) if isinstance(result, float) else result)):
        raise BadValue(f"a weight is a finite number, got {weight!r}")
    return result
