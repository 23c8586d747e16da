"""Rules that keep the path itself close to an unguided one: CFG++ and Rectified-CFG++."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from guidon.errors import BadValue
from guidon.guidance.contrast import Contrast, everywhere
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Predictions, State
from guidon.guidance.weights import PerImage, Weight, checked_weight, now
from guidon.registry import register


@register("rule", "cfgpp")
@dataclass(frozen=True)
class CFGpp(Contrast):
    """CFG++: towards the guided clean image, but with the noise of the null branch.

    Weight 0 is unconditional and asks the null branch alone. No weight is plain conditional: 1 asks both branches too.

    Args:
        weight: a number, one number an image, or a `Weight`; in [0, 1], where DDIM with cfg would take about 12 times as much.

    Source: Chung et al., arXiv 2406.08070, algorithm 2.
    """

    about: ClassVar[About] = About(
        formula="D = D_u + w (D_c - D_u), eps = eps_u",
        cost="2; 1 where w is 0",
        ranges=("0.2 to 1; 0.6 is near cfg(7.5) with 50 steps of ddim on Stable Diffusion",),
        sources=("chung2025cfgpp",),
        notes=(
            "One step is DDIM's with the weight w / (1 - e^-h) of cfg, h the step in log noise level: more steps guide more. "
            "The second-order term of dpmpp-2m is the null branch's, as in the paper and the SDXL code; the SD 1.5 code differs."
        ),
    )
    adds: ClassVar[bool] = False
    only_with: ClassVar[tuple[str, ...]] = ("euler", "ddim", "euler-ancestral", "dpmpp-2m", "dpmpp-2s-ancestral")
    why_only: ClassVar[str] = "its noise and its clean image are of two beliefs, which a solver must keep apart"

    from_away: ClassVar[bool] = True

    weight: float | PerImage | Weight

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_weight(self.weight))

    @property
    def away(self) -> Branch:
        return NULL

    def weight_at(self, at: Moment) -> float | PerImage | None:
        return now(self.weight, at)

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return (self.away,) if everywhere(self.weight_at(at), 0.0) else (GIVEN, self.away)

    def finish(self, guided: Guided, predictions: Predictions, at: Moment) -> Guided:
        null = predictions[self.away]
        return replace(guided, eps=null.eps, noise_x0=null.x0)


@register("rule", "rectified-cfgpp")
@dataclass(frozen=True)
class RectifiedCFGpp(Contrast):
    """Rectified-CFG++: a step along the given branch, bent by the guidance found halfway of it.

    Args:
        weight: a number, one number an image, or a `Weight`; 1 is plain conditional, the paper's lambda_max is w - 1.
        power: >= 0; how fast guidance grows while the noise goes. 0 is the same weight at all times.

    Source: Saini et al., arXiv 2510.07631.
    """

    about: ClassVar[About] = About(
        formula="v = v_c(x) + (w - 1)(1 - t)^power (v_c - v_u)(x + dt/2 v_c(x))",
        cost="3; 2 where w is 1",
        ranges=("w 5.5 with power 0 in the authors' code",),
        sources=("saini2025rectified",),
        notes=(
            "t is 1 at noise, as in the paper's formula; its project page has the guidance fade towards the image instead. "
            "The authors' code takes a whole step to the second point, with a little noise; this is the paper's half step. "
            "Ours: t = sigma / (alpha + sigma), which is the paper's on flow and carries over to any process."
        ),
    )
    adds: ClassVar[bool] = False
    only_with: ClassVar[tuple[str, ...]] = ("rectified",)
    why_only: ClassVar[str] = "it guides halfway along a step of the given branch, which is what that solver takes"

    weight: float | PerImage | Weight
    power: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_weight(self.weight))
        if not self.power >= 0:
            raise BadValue(f"rectified-cfgpp needs a power >= 0, got {self.power}")

    @property
    def away(self) -> Branch:
        return NULL

    def weight_at(self, at: Moment) -> float | PerImage | None:
        weight = now(self.weight, at)
        level = at.began or at.here  # the weight of a step is that of its start
        part = float(level.alpha / (level.alpha + level.sigma)) ** self.power
        if isinstance(weight, tuple):
            return tuple(1 + (w - 1) * part for w in weight)
        return 1 + (weight - 1) * part

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return (GIVEN,) if everywhere(self.weight_at(at), 1.0) else (GIVEN, self.away)

    def finish(self, guided: Guided, predictions: Predictions, at: Moment) -> Guided:
        return replace(guided, given=predictions[GIVEN])
