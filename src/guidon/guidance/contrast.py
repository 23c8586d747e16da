"""Rules that steer by one difference: away from what one branch believes, towards what the given condition says.

All of them are ``away + w (given - away)``, with w = 1 the given branch alone and w = 0 the other one; what they differ in is who
stands on the other side: no condition, a negative one, a weaker network, the same network perturbed.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue, NumericalError, ShapeMismatch
from guidon.guidance.rule import GIVEN, Branch, Guided, Link, Moment, Predictions, Rule, State, Which, but_for
from guidon.guidance.weights import Interval, PerImage, Weight, checked_weight, is_open, now
from guidon.noise.prediction import Prediction

Strength = float | PerImage | Tensor  # one for all images, or (B,)


@dataclass(frozen=True, slots=True)
class Pull:
    """One difference that steers: the result is away + weight (given - away).

    Args:
        given: the belief that one steers towards.
        away: the belief that one steers away from.
        weight: one for all images, or one each.
    """

    given: Prediction
    away: Prediction
    weight: Strength


class Contrast(Rule, Link):
    """A rule with one pull; it may also stand right of a ``|`` and add its pull to what stands left.

    Attributes:
        adds: whether it may stand right of a ``|``.
        from_away: whether the weight counts from the other side, in [0, 1]: a shape then gives ``away + w shaped difference``.
    """

    adds: ClassVar[bool] = True
    from_away: ClassVar[bool] = False

    @property
    @abstractmethod
    def away(self) -> Branch:
        """The branch that one steers away from."""

    def away_at(self, at: Moment) -> Branch:
        """Return the branch that one steers away from at a moment."""
        return self.away

    def uses(self) -> frozenset[str]:
        return frozenset((self.away.condition, self.away.network))

    def zeros(self, at: Moment) -> Which:
        return those(self.weight_at(at), 0.0)

    def measure(self, predictions: Predictions, at: Moment) -> Prediction:
        away = predictions.get(self.away_at(at), predictions.get(GIVEN))
        assert away is not None
        return but_for(self.zeros(at), away, super().measure(predictions, at))

    @abstractmethod
    def weight_at(self, at: Moment) -> float | PerImage | None:
        """Return the weight at a moment; None where it depends on the answers."""

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        weight = self.weight_at(at)
        if everywhere(weight, 1.0):
            return (GIVEN,)
        away = self.away_at(at)
        return (away,) if everywhere(weight, 0.0) else (GIVEN, away)

    def pull(self, predictions: Predictions, at: Moment, state: State) -> tuple[Pull | None, State]:
        """Return the pull at a moment, None where the weight is 1, and the state after the step."""
        weight = self.weight_at(at)
        assert weight is not None
        if everywhere(weight, 1.0) and not self.from_away:
            return None, state
        away = predictions[self.away_at(at)]
        return Pull(away if everywhere(weight, 0.0) else predictions[GIVEN], away, weight), state

    def finish(self, guided: Guided, predictions: Predictions, at: Moment) -> Guided:
        """Return what the solver is told once every stage of a chain has acted."""
        return guided

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        pull, state = self.pull(predictions, at, state)
        prediction = predictions[GIVEN] if pull is None else pulled(None, pull)
        return self.finish(Guided.plain(prediction), predictions, at), state


class Weighted(Contrast):
    """A contrast whose dataclass has the fields ``weight`` and ``when``."""

    weight: float | PerImage | Weight
    when: Interval | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_weight(self.weight))
        if not (self.when is None or isinstance(self.when, Interval)):
            raise BadValue(f"when is an interval of noise levels such as Interval(0.3, 3), got {self.when!r}")

    def weight_at(self, at: Moment) -> float | PerImage | None:
        return now(self.weight, at) if is_open(self.when, at) else 1.0


def pulled(base: Prediction | None, pull: Pull) -> Prediction:
    """Return a belief moved by a pull, base + (w - 1)(given - away); without a base, away + w (given - away).

    It is linear and keeps x, so it means the same for x0 and eps.
    """
    given, away, weight = pull.given, pull.away, column(pull.weight, pull.away.x0)
    if base is None:
        x0, eps = (
            away.x0 + weight * (given.x0 - away.x0),
            away.eps + weight * (given.eps - away.eps),
        )  # bit for bit what all write
    else:
        x0 = base.x0 + (weight - 1) * (given.x0 - away.x0)
        eps = base.eps + (weight - 1) * (given.eps - away.eps)
    fraction = (given if base is None else base).variance_fraction
    if base is None and isinstance(weight, Tensor) and fraction is not None and away.variance_fraction is not None:
        fraction = torch.where(weight == 0, away.variance_fraction, fraction)
    return Prediction(given.x, given.level, x0, eps, fraction)


def those(weight: float | PerImage | None, value: float) -> Which:
    """Return which images have this weight."""
    return tuple(w == value for w in weight) if isinstance(weight, tuple) else weight == value


def everywhere(weight: float | PerImage | None, value: float) -> bool:
    """Return whether every image has this weight."""
    return all(w == value for w in weight) if isinstance(weight, tuple) else weight == value


def column(weight: Strength, like: Tensor) -> float | Tensor:
    """Return a weight in a form that multiplies with a batch ``like`` (B, ...); raises `ShapeMismatch`."""
    if isinstance(weight, float | int):
        if abs(weight) > torch.finfo(like.dtype).max:
            raise NumericalError(f"a weight of {weight:g} is beyond what {like.dtype} holds; take a smaller one")
        return float(weight)
    if len(weight) != like.shape[0]:
        raise ShapeMismatch(f"{len(weight)} weights for {like.shape[0]} images; give one weight, or one for each image")
    return torch.as_tensor(weight, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))
