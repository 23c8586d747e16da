"""Condition annealing: a condition that comes out of noise while the image does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from guidon.errors import BadValue
from guidon.guidance.rule import About, Branch, Moment, Predictions, State
from guidon.guidance.stage import Relay
from guidon.noise.level import ddpm_time
from guidon.perturbation import Corruption
from guidon.registry import register


@register("stage", "cads")
@dataclass(frozen=True)
class CADS(Relay):
    """Blurs the given condition with noise, wholly at first and less and less, for more diverse images.

    Every branch that is told the given condition is told the same blurred one; null and negative conditions stay. Times are those of
    `ddpm_time`: 1 at pure noise, 0 at the clean image.

    Args:
        tau1: up to this time the condition is as it was given, >= 0.
        tau2: from this time on it is noise alone, > tau1.
        scale: how strong the noise is, >= 0.
        mixing: in [0, 1]; 1 brings the blurred condition back to the mean and deviation of the given one, 0 leaves it.

    Raises:
        BadValue: a setting is out of its range.

    Source: Sadat et al., arXiv 2310.17347.
    """

    about: ClassVar[About] = About(
        formula="y <- sqrt(g) y + scale sqrt(1 - g) n, g from 0 at t >= tau2 to 1 at t <= tau1; then to y's mean and deviation",
        cost="that of the rule",
        ranges=("tau1 0.6, tau2 0.9, scale 0.05 to 0.1 (ImageNet, DiT)",),
        sources=("sadat2024cads",),
        notes="t is the time of DDPM's process at the same noise level, so that the settings mean the same for every process "
        "and grid; the paper counts steps, which is the same for DDPM's process with even steps. Mean and deviation are those of "
        "each image; the paper's pseudocode takes the batch's. The noise is new at each evaluation.",
    )

    not_after: ClassVar[tuple[str, ...]] = ("rectified-cfgpp",)  # whose solver also asks the given branch by itself

    tau1: float = 0.6
    tau2: float = 0.9
    scale: float = 0.1
    mixing: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.tau1 < self.tau2:
            raise BadValue(f"cads needs 0 <= tau1 < tau2, got {self.tau1} and {self.tau2}")
        if not self.scale >= 0:
            raise BadValue(f"cads needs a scale >= 0, got {self.scale}")
        if not 0 <= self.mixing <= 1:
            raise BadValue(f"cads needs a mixing in [0, 1], got {self.mixing}")

    def keep(self, at: Moment) -> float:
        """Return how much of the condition is left at a moment, in [0, 1]: the paper's gamma."""
        way = (self.tau2 - ddpm_time(at.noise_level)) / (self.tau2 - self.tau1)
        return min(max(way, 0.0), 1.0)

    def ask(self, wanted: tuple[Branch, ...], at: Moment, state: State) -> tuple[Branch, ...]:
        return tuple(self._blurred(branch, at) for branch in wanted)

    def answer(
        self, wanted: tuple[Branch, ...], predictions: Predictions, at: Moment, state: State
    ) -> tuple[Predictions, State]:
        return {branch: predictions[self._blurred(branch, at)] for branch in wanted}, state

    def _blurred(self, branch: Branch, at: Moment) -> Branch:
        keep = self.keep(at)
        if (
            keep == 1 or branch.condition != "given" or branch.gradient
        ):  # a classifier is told a class, not an embedding
            return branch
        return replace(branch, corruption=Corruption(keep, self.scale, self.mixing))
