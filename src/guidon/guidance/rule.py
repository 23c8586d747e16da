"""A guidance rule: which branches it wants asked at a moment, and how their predictions combine.

Rules are frozen dataclasses without counters: everything that changes along a run is a state that goes in and comes out.
They chain from left to right with ``|``; see `chain`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from guidon.errors import ShapeMismatch
from guidon.noise.level import Level
from guidon.noise.prediction import Prediction
from guidon.perturbation import Corruption, Perturbation

if TYPE_CHECKING:
    from guidon.guidance.chain import Chain


@dataclass(frozen=True, slots=True)
class Branch:
    """A question to a network, without the state that it is about.

    Args:
        condition: which of the trajectory's conditions the network is told: "given", "null", "negative", ...
        network: which network is asked: "main", "weak", "classifier", ...
        perturbation: how the network is weakened for this question.
        corruption: how the condition is blurred for this question.
        inner: ask the head halfway through the network; it answers along with the question without it, at no cost.
        gradient: ask for the gradient at x of log p(condition | x), told as the `score` of a prediction.
    """

    condition: str = "given"
    network: str = "main"
    perturbation: Perturbation | None = None
    corruption: Corruption | None = None
    inner: bool = False
    gradient: bool = False

    def __str__(self) -> str:
        parts = [] if self.network == "main" else [self.network]
        parts += [self.condition]
        parts += ["blurred"] if self.corruption else []
        if self.perturbation is not None:
            parts += [self.perturbation.name, *(self.perturbation.layers or ())]
        parts += ["inner"] if self.inner else []
        parts += ["gradient"] if self.gradient else []
        return " ".join(parts)

    @property
    def plain(self) -> Branch:
        """The question without what changes from step to step: the blur of its condition, the noise of its time."""
        perturbation = self.perturbation
        if perturbation is not None and perturbation.name == "time-noise":
            perturbation = replace(perturbation, amount=1.0, seed=0)
        return replace(self, corruption=None, perturbation=perturbation)


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
        began: level that the step began at, where a step has several evaluations and this is a later one.
    """

    here: Level
    there: Level
    index: int = 0
    steps: int = 1
    began: Level | None = None

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

    @property
    def ramp(self) -> float:
        """Return 0 at the first step and 1 at the last."""
        return self.index / max(self.steps - 1, 1)


@dataclass(frozen=True, slots=True)
class Guided:
    """What a rule tells the solver.

    Args:
        x0: the clean image that the step moves towards (B, ...).
        eps: the noise that the step re-noises with (B, ...).
        variance_fraction: see `Prediction`; that of the given branch.
        noise_x0: the clean image that ``eps`` belongs to, where that is not ``x0`` (CFG++).
        drift: a score that the step follows by its own variance, mean + variance * drift (classifier guidance of DDPM).
        given: the belief without guidance, for a solver that treats the two apart (Rectified-CFG++).
    """

    x0: Tensor
    eps: Tensor
    variance_fraction: Tensor | None = None
    noise_x0: Tensor | None = None
    drift: Tensor | None = None
    given: Prediction | None = None

    @staticmethod
    def plain(prediction: Prediction) -> Guided:
        """Return a prediction as it is."""
        return Guided(prediction.x0, prediction.eps, prediction.variance_fraction)


@dataclass(frozen=True, slots=True)
class About:
    """What people want to know of a rule, a stage or a weight; `guidon rules` shows it.

    Args:
        formula: in plain text; D is a clean image, c given, u null, w the weight.
        cost: network evaluations a step and image.
        ranges: sensible values, by task.
        sources: keys of references.bib.
        notes: what differs from the source, and traps.
    """

    formula: str
    cost: str = "2"
    ranges: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    notes: str = ""


Predictions = Mapping[Branch, Prediction]
Which = bool | tuple[bool, ...]  # of the images of a batch
State = Any


class Link(ABC):
    """What may stand to the right of a ``|``."""

    about: ClassVar[About]


class Rule(ABC):
    """How the predictions of several branches become one.

    Attributes:
        about: for people.
        only_with: names of the solvers that can follow the rule; empty for any.
        why_only: what the others cannot do.
        tracks: whether its memory follows the state from where one step begins to where the next does.
        savable: whether it asks a belief beside that of given.
    """

    about: ClassVar[About]
    only_with: ClassVar[tuple[str, ...]] = ()
    why_only: ClassVar[str] = ""
    tracks: ClassVar[bool] = False
    savable: ClassVar[bool] = True

    def init(self) -> State:
        """Return the state before the first step; rules without memory have none."""
        return None

    @abstractmethod
    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        """Return the branches that the rule wants asked at a moment, at least one.

        In the state that `init` returns it wants all that it will ever want at that moment.
        """

    def rows(self, branch: Branch, at: Moment, state: State) -> tuple[int, ...] | None:
        """Return for which images of the batch a branch is wanted; None for all. The others' answers will be NaN."""
        return None

    def uses(self) -> frozenset[str]:
        """Return the names of the conditions and networks that the rule asks at some weight, beside given."""
        return frozenset()

    def zeros(self, at: Moment) -> Which:
        """Return the images in whose result the given branch has no part; False for none, True for all."""
        return False

    def measure(self, predictions: Predictions, at: Moment) -> Prediction:
        """Return the belief that the result is measured by: that of given, image by image of what there is instead."""
        usual = predictions[GIVEN] if GIVEN in predictions else next(iter(predictions.values()))
        return but_for(self.zeros(at), predictions.get(NULL, usual), usual)

    @abstractmethod
    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        """Return what the solver is told, and the state after the step.

        Args:
            predictions: one for each branch asked, for a batch (B, ...).
            at: the moment they were asked at.
            state: what the step before returned.
        """

    def __or__(self, other: object) -> Chain:
        from guidon.guidance.chain import Chain

        return Chain((self, other)) if isinstance(other, Link | Rule) else NotImplemented


def but_for(which: Which, other: Prediction, usual: Prediction) -> Prediction:
    """Return the usual belief, for some images another one."""
    if isinstance(which, bool):
        return other if which else usual
    if len(which) != usual.x0.shape[0]:
        raise ShapeMismatch(
            f"{len(which)} weights for {usual.x0.shape[0]} images; give one weight, or one for each image"
        )
    if not any(which):
        return usual
    rows = torch.tensor(which, device=usual.x0.device).reshape(-1, *[1] * (usual.x0.ndim - 1))
    fraction = usual.variance_fraction
    if fraction is not None and other.variance_fraction is not None:
        fraction = torch.where(rows, other.variance_fraction, fraction)
    x0, eps = torch.where(rows, other.x0, usual.x0), torch.where(rows, other.eps, usual.eps)
    return Prediction(usual.x, usual.level, x0, eps, fraction)
