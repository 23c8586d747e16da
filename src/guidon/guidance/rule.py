"""A guidance rule: which branches it wants asked at a moment, and how their predictions combine.

Rules are frozen dataclasses without counters: everything that changes along a run is a state that goes in and comes out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from guidon.noise.level import Level
from guidon.noise.prediction import Prediction


@dataclass(frozen=True, slots=True)
class Branch:
    """A question to a network, without the state that it is about.

    Args:
        condition: which of the trajectory's conditions the network is told: "given", "null", "negative", ...
        network: which network is asked: "main", "weak", ...
    """

    condition: str = "given"
    network: str = "main"


GIVEN = Branch("given")
NULL = Branch("null")


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a run is: the step from ``here`` to ``there``, floats and ints on the host.

    Args:
        here: level of the state.
        there: level that the step goes to.
        index: number of the step, from 0.
        steps: number of steps of the run.
    """

    here: Level
    there: Level
    index: int = 0
    steps: int = 1

    @property
    def t(self) -> float:
        """Return the process time of the state."""
        return float(self.here.t)

    @property
    def s(self) -> float:
        """Return the process time that the step goes to."""
        return float(self.there.t)

    @property
    def noise_level(self) -> float:
        """Return sigma / alpha of the state."""
        return float(self.here.noise_level)

    @property
    def progress(self) -> float:
        """Return how much of the run is done, 0 at the first step, towards 1 at the last."""
        return self.index / self.steps


@dataclass(frozen=True, slots=True)
class Guided:
    """What a rule tells the solver.

    Args:
        x0: the clean image that the step moves towards (B, ...).
        eps: the noise that the step re-noises with (B, ...).
        variance_fraction: see `Prediction`; that of the given branch.
    """

    x0: Tensor
    eps: Tensor
    variance_fraction: Tensor | None = None

    @staticmethod
    def plain(prediction: Prediction) -> Guided:
        """Return a prediction as it is."""
        return Guided(prediction.x0, prediction.eps, prediction.variance_fraction)


Predictions = Mapping[Branch, Prediction]
State = Any


class Rule(ABC):
    """How the predictions of several branches become one."""

    def init(self) -> State:
        """Return the state before the first step; rules without memory have none."""
        return None

    @abstractmethod
    def branches(self, at: Moment) -> tuple[Branch, ...]:
        """Return the branches that the rule wants asked at a moment, at least one."""

    @abstractmethod
    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        """Return what the solver is told, and the state after the step.

        Args:
            predictions: one for each branch asked, for a batch (B, ...).
            at: the moment they were asked at.
            state: what the step before returned.
        """
