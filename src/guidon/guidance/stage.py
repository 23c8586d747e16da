"""What may stand right of a ``|`` and change what a rule does: its questions, its difference, or its result."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from guidon.guidance.contrast import Pull
from guidon.guidance.rule import Branch, Link, Moment, Predictions, State
from guidon.noise.prediction import Prediction


class Stage(Link):
    """A frozen dataclass without counters, as a rule is; a stage may be of several of the kinds below.

    Attributes:
        not_after: names of rules that would undo it at the end of a chain.
    """

    not_after: ClassVar[tuple[str, ...]] = ()

    def init(self) -> State:
        """Return the state before the first step."""
        return None


class Shape(Stage):
    """Changes the difference that every contrast to the left steers by."""

    @abstractmethod
    def shape(self, pull: Pull, at: Moment, state: State) -> tuple[Prediction, State]:
        """Return what one steers away from instead of ``pull.away``, and the state after the step.

        The result is then ``given + (w - 1)(given - shaped)``, so that w = 1 stays plain conditional.
        """


class Reshape(Stage):
    """Changes the guided belief: its range, its size."""

    @abstractmethod
    def reshape(self, guided: Prediction, given: Prediction, at: Moment, state: State) -> tuple[Prediction, State]:
        """Return the guided belief, changed, and the state after the step.

        Args:
            guided: what everything to the left makes of the beliefs.
            given: the belief under the given condition; the one there is, where only another branch was asked.
            at: the moment.
            state: what the step before returned.
        """


class Relay(Stage):
    """Stands between the rule and the networks: passes questions on, other ones or fewer, and hands all answers back.

    Attributes:
        invents: whether it may answer for a branch without asking it.
    """

    invents: ClassVar[bool] = False

    @abstractmethod
    def ask(self, wanted: tuple[Branch, ...], at: Moment, state: State) -> tuple[Branch, ...]:
        """Return the branches to ask for those that are wanted."""

    def rows(self, branch: Branch, wanted: tuple[Branch, ...], at: Moment, state: State) -> tuple[int, ...] | None:
        """Return for which images a branch is to be asked, of those that are wanted; None for all."""
        return None

    @abstractmethod
    def answer(
        self, wanted: tuple[Branch, ...], predictions: Predictions, at: Moment, state: State
    ) -> tuple[Predictions, State]:
        """Return a prediction for each branch that is wanted, and the state after the step."""
