"""Steering away from a weaker model: another network, the same one perturbed, or one that was told something else.

One arithmetic for all of them, ``weak + w (given - weak)``; they differ in what is weak.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from guidon.errors import BadValue, NotSupported
from guidon.guidance.contrast import Pull, Weighted
from guidon.guidance.rule import GIVEN, About, Branch, Moment, Predictions, State
from guidon.guidance.weights import Interval, PerImage, Weight
from guidon.noise.level import ddpm_time
from guidon.perturbation import Perturbation
from guidon.registry import register, to_text

Layers = tuple[str, ...] | None


@register("rule", "autoguidance")
@dataclass(frozen=True)
class Autoguidance(Weighted):
    """Autoguidance, away from a worse version of the network that is told the same condition.

    Args:
        weight: 1 is the network alone.
        network: name of the worse one: a smaller network, an earlier checkpoint or average, or the same one degraded.
        when: the noise levels at which to guide.

    Source: Karras et al., arXiv 2406.02507.
    """

    about: ClassVar[About] = About(
        formula="D = D_weak + w (D_c - D_weak)",
        cost="1 + one of the weak network",
        ranges=("classes: 1.5 to 3 (EDM2-S: 2.1 with a smaller network and a sixteenth of the training)",),
        sources=("karras2024guiding",),
        notes="The weak network must be worse in the same way (less capacity, less training); otherwise w = 1 is best.",
    )

    weight: float | PerImage | Weight
    network: str = "weak"
    when: Interval | None = None

    @property
    def away(self) -> Branch:
        return Branch("given", self.network)


class Perturbed(Weighted):
    """A rule whose weak side is the same network, perturbed; the first use makes sure that the perturbation does something."""

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = getattr(self, "layers", None)
        if layers is not None:
            object.__setattr__(self, "layers", (layers,) if isinstance(layers, str) else tuple(layers))

    @property
    @abstractmethod
    def perturbation(self) -> Perturbation:
        """How the network is weakened."""

    @property
    def away(self) -> Branch:
        return Branch("given", perturbation=self.perturbation)

    def init(self) -> State:
        return False  # whether the perturbation was seen to change the answer

    def pull(self, predictions: Predictions, at: Moment, state: State) -> tuple[Pull | None, State]:
        pull, _ = super().pull(predictions, at, state)
        if not state and pull is not None and GIVEN in predictions:
            if torch.equal(predictions[GIVEN].x0, pull.away.x0):
                raise NotSupported(
                    f"{to_text(self)} changes nothing in what this network believes; choose other layers, or leave it out"
                )
            state = True
        return pull, state


@register("rule", "pag")
@dataclass(frozen=True)
class PAG(Perturbed):
    """Perturbed-attention guidance, away from the network whose self-attention looks only at itself.

    Args:
        weight: 1 is the network alone; the paper's s is w - 1.
        layers: names of the attention layers to perturb; None: those that the network suggests.
        when: the noise levels at which to guide.

    Source: Ahn et al., arXiv 2403.17377.
    """

    about: ClassVar[About] = About(
        formula="D = D_id + w (D_c - D_id), D_id with attention maps replaced by the identity",
        cost="2; 3 with cfg",
        ranges=("2 to 4", "with cfg: cfg(4) | pag(2.5)"),
        sources=("ahn2024perturbed",),
        notes="Needs no null condition, so it also guides models without classes.",
    )

    weight: float | PerImage | Weight
    layers: Layers = None
    when: Interval | None = None

    @property
    def perturbation(self) -> Perturbation:
        return Perturbation("attention-identity", self.layers)


@register("rule", "seg")
@dataclass(frozen=True)
class SEG(Perturbed):
    """Smoothed-energy guidance, away from the network whose attention asks blurred questions.

    Args:
        weight: 1 is the network alone; the code's s is w - 1.
        blur: deviation of the Gaussian that blurs the queries over positions, in positions, > 0; inf is their mean.
        layers: names of the attention layers to blur; None: those that the network suggests.
        when: the noise levels at which to guide.

    Source: Hong, arXiv 2408.00760, eq. 9.
    """

    about: ClassVar[About] = About(
        formula="D = D_blur + w (D_c - D_blur), D_blur with blurred attention queries",
        cost="2; 3 with cfg",
        ranges=("4 with blur inf",),
        sources=("hong2024smoothed",),
    )

    weight: float | PerImage | Weight
    blur: float = math.inf
    layers: Layers = None
    when: Interval | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.blur > 0:
            raise BadValue(f"seg needs a blur > 0 (inf for the mean query), got {self.blur}")

    @property
    def perturbation(self) -> Perturbation:
        return Perturbation("query-blur", self.layers, self.blur)


@register("rule", "slg")
@dataclass(frozen=True)
class SLG(Perturbed):
    """Skip-layer guidance, away from the network without some of its layers.

    Args:
        weight: 1 is the network alone; the code's scale is w - 1.
        layers: names of the layers to skip; None: those that the network suggests.
        when: the noise levels at which to guide.

    Source: Stability AI, the sampling code of Stable Diffusion 3.5.
    """

    about: ClassVar[About] = About(
        formula="D = D_skip + w (D_c - D_skip), D_skip with layers skipped",
        cost="2; 3 with cfg",
        ranges=("SD 3.5 medium: 3.5 beside cfg(4), layers 7 to 9, between 1 and 20 % of the run",),
        sources=("stability2024skip",),
    )

    weight: float | PerImage | Weight
    layers: Layers = None
    when: Interval | None = None

    @property
    def perturbation(self) -> Perturbation:
        return Perturbation("skip", self.layers)


@register("rule", "tsg")
@dataclass(frozen=True)
class TSG(Perturbed):
    """Time-step guidance, away from the network that is unsure what time it is.

    Args:
        weight: 1 is the network alone.
        scale: deviation of the noise in the time embedding at pure noise, in deviations of the embedding, > 0.
        power: how fast the noise falls with the time, >= 0; 0 stays.
        when: the noise levels at which to guide.

    Source: Sadat et al., arXiv 2407.02687.
    """

    about: ClassVar[About] = About(
        formula="D = D(t~) + w (D(t) - D(t~)), embedding(t~) = embedding(t) + scale t^power n",
        cost="2",
        ranges=("DiT: w 2.5, scale 2, power 1", "Stable Diffusion: w 4, scale 3, power 0.25, noisy half"),
        sources=("sadat2025notraining",),
        notes="t is the time of DDPM's process at the same noise level, 1 at pure noise. The noise is new at each step and the same "
        "for all images, so that a batch changes nothing.",
    )

    weight: float | PerImage | Weight
    scale: float = 2.0
    power: float = 1.0
    when: Interval | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.scale > 0 and self.power >= 0):
            raise BadValue(f"tsg needs scale > 0 and power >= 0, got {self.scale} and {self.power}")

    @property
    def perturbation(self) -> Perturbation:
        return Perturbation("time-noise", None, self.scale, tag=f"{self.scale:g}, {self.power:g}")

    def away_at(self, at: Moment) -> Branch:
        amount = self.scale * ddpm_time(at.noise_level) ** self.power
        return replace(self.away, perturbation=replace(self.perturbation, amount=amount, seed=at.index))


@register("rule", "icg")
@dataclass(frozen=True)
class ICG(Weighted):
    """Independent-condition guidance, away from a condition drawn at random; for models that never learned a null.

    Args:
        weight: 1 is plain conditional.
        when: the noise levels at which to guide.

    Source: Sadat et al., arXiv 2407.02687.
    """

    about: ClassVar[About] = About(
        formula="D = D_r + w (D_c - D_r), r a condition drawn anew at each step for each image",
        cost="2",
        ranges=("as cfg, or a little less",),
        sources=("sadat2025notraining",),
    )

    weight: float | PerImage | Weight
    when: Interval | None = None

    @property
    def away(self) -> Branch:
        return Branch("random")


@register("rule", "internal")
@dataclass(frozen=True)
class Internal(Weighted):
    """Internal guidance, away from what the network believes halfway through; for networks with an inner head.

    Args:
        weight: 1 is the network alone.
        when: the noise levels at which to guide.

    Source: arXiv 2512.24176.
    """

    about: ClassVar[About] = About(
        formula="D = D_inner + w (D_c - D_inner)",
        cost="1: one forward answers both",
        ranges=("1.4 to 2", "with cfg: cfg(1.35) | internal(1.4)"),
        sources=("zhou2025internal",),
        notes="Train with inner_head: true. Beside cfg it acts on the given branch only; the paper's code acts on both.",
    )

    weight: float | PerImage | Weight
    when: Interval | None = None

    @property
    def away(self) -> Branch:
        return Branch("given", inner=True)
