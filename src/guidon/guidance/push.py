"""Rules that steer by a gradient: they add a score to what one believes."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from guidon.guidance.rule import Branch, Link, Moment, Predictions, Rule
from guidon.noise.prediction import Prediction


class Push(Rule, Link):
    """A rule that adds a score; it may also stand right of a ``|`` and push what stands left of it.

    So ``cfg(1) | threshold | classifier(4)`` clips what the network believes and leaves the push whole.
    """

    @property
    @abstractmethod
    def shifts_mean(self) -> bool:
        """Whether the score is for the step, which multiplies it with its own variance, and not for the belief."""

    @abstractmethod
    def asks(self, at: Moment) -> tuple[Branch, ...]:
        """Return the branches that the score at a moment is made of; none where it is zero."""

    @abstractmethod
    def push(self, predictions: Predictions, at: Moment, belief: Prediction) -> Tensor:
        """Return the score to add (B, ...), weight and all, where something is asked.

        Args:
            predictions: one for each branch asked, for a batch (B, ...).
            at: the moment they were asked at.
            belief: what is pushed.
        """
