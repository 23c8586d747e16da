"""What the stages share that save evaluations: which branches may go unasked, and how one is known again at the next step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from guidon.guidance.rule import GIVEN, Branch, Moment, Predictions
from guidon.guidance.stage import Relay
from guidon.noise.prediction import Prediction

M = TypeVar("M")  # what is remembered of one branch

Memory = Mapping[Branch, M]


class Economy(Relay, Generic[M]):
    """A relay that does without some answers of the branches other than the given one, and supplies what it makes of the others.

    Nothing is saved, and nothing remembered, where the given branch is not wanted. What an inner head says costs nothing and a
    gradient is no belief about the image, so both are always asked.
    """

    invents: ClassVar[bool] = True

    def init(self) -> Memory[M]:
        return {}

    @abstractmethod
    def due(self, at: Moment, memory: M | None) -> bool:
        """Return whether a branch is to be asked, for some image at least; ``memory`` is None where it never was."""

    @abstractmethod
    def supply(self, given: Prediction, asked: Prediction | None, at: Moment, memory: M | None) -> tuple[Prediction, M]:
        """Return what a branch is taken to believe, and what is remembered of it.

        Args:
            given: the belief under the given condition.
            asked: the branch's own belief, None where it was not asked; NaN for images that it was not asked about.
            at: the moment.
            memory: what the step before returned.
        """

    def ask(self, wanted: tuple[Branch, ...], at: Moment, state: Memory[M]) -> tuple[Branch, ...]:
        savable = others(wanted)
        return tuple(branch for branch in wanted if branch not in savable or self.due(at, state.get(branch.plain)))

    def answer(
        self, wanted: tuple[Branch, ...], predictions: Predictions, at: Moment, state: Memory[M]
    ) -> tuple[Predictions, Memory[M]]:
        answers, after = dict(predictions), dict(state)
        for branch in others(wanted):
            given, own = predictions[given_of(wanted)], branch.plain
            asked = predictions[branch] if self.due(at, state.get(own)) else None
            answers[branch], after[own] = self.supply(given, asked, at, state.get(own))
        return answers, after


def given_of(wanted: tuple[Branch, ...]) -> Branch:
    """Return the given branch among those that are wanted, blurred or not."""
    return next(branch for branch in wanted if branch.plain == GIVEN)


def others(wanted: tuple[Branch, ...]) -> tuple[Branch, ...]:
    """Return the branches that may go unasked: none without the given one."""
    if not any(branch.plain == GIVEN for branch in wanted):
        return ()
    return tuple(branch for branch in wanted if branch.plain != GIVEN and not branch.inner and not branch.gradient)
