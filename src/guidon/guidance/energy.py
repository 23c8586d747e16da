"""Classifier guidance: up the gradient of what a classifier of noisy images says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.contrast import column, everywhere
from guidon.guidance.push import Push
from guidon.guidance.rule import About, Branch, Guided, Moment, Predictions, State, Which
from guidon.guidance.space import length
from guidon.guidance.weights import Interval, PerImage, Weight, checked_weight, is_open, now
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("rule", "classifier")
@dataclass(frozen=True)
class ClassifierGuidance(Push):
    """Classifier guidance, up the gradient of a classifier's log p(y | x_t) at the noisy image.

    Args:
        weight: a number, one number an image, or a `Weight`; 0 asks no classifier. Over an unconditional base, 1 samples p(x | y) if
            both networks are right, as weight 1 of cfg does.
        form: "eps" changes the belief, for any solver; "mean" shifts the mean of a step of ddpm by its variance times the gradient.
        base: what the network is told, "null" or "given", where the rule stands first; right of a ``|`` it pushes what stands left.
        condition: what the classifier is told.
        normalise: give the gradient of each image the length of the belief's own score, so that only its direction counts.
        clip: the largest root mean square of each image's gradient, > 0; None for any.
        when: the noise levels at which to guide; elsewhere the base is left alone.

    Raises:
        BadValue: a setting is out of its range.

    Source: Dhariwal & Nichol, arXiv 2105.05233, algorithms 1 ("mean") and 2 ("eps").
    """

    about: ClassVar[About] = About(
        formula="eps = eps_base - w sigma grad log p(y | x_t); form mean: mu = mu_base + w variance grad log p(y | x_t)",
        cost="2: the network, and the classifier forwards and backwards",
        ranges=("conditional base: 0.5 to 4", "unconditional base: 1 to 10", "clip 0.05 (as with CLIP)"),
        sources=("dhariwal2021diffusion",),
        notes="The classifier must have learned noisy images. Right of a bar it pushes what stands left: cfg(1) | threshold | "
        "classifier(4) clips the belief and not the push, as guided-diffusion does. Normalised, w is a part of the noise, 0.1 to 1, and "
        "the relation to p(x | y) is lost. Normalising and clipping are practice, not the paper's.",
    )

    savable: ClassVar[bool] = False

    weight: float | PerImage | Weight
    form: str = "eps"
    base: str = "null"
    condition: str = "given"
    normalise: bool = False
    clip: float | None = None
    when: Interval | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_weight(self.weight))
        if self.form not in ("eps", "mean"):
            raise BadValue(f"classifier takes form eps or mean, got {self.form!r}")
        if self.base not in ("given", "null"):
            raise BadValue(f"classifier takes base given or null, got {self.base!r}")
        if self.clip is not None and not self.clip > 0:
            raise BadValue(f"classifier needs clip > 0, or none, got {self.clip}")

    @property
    def only_with(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("ddpm",) if self.form == "mean" else ()

    why_only: ClassVar[str] = (
        "form mean multiplies the gradient with the variance of a DDPM step; form eps goes with any solver"
    )

    @property
    def judge(self) -> Branch:
        """The question to the classifier."""
        return Branch(self.condition, network="classifier", gradient=True)

    def uses(self) -> frozenset[str]:
        return frozenset((self.condition, "classifier"))

    def zeros(self, at: Moment) -> Which:
        return self.base == "null"

    def weight_at(self, at: Moment) -> float | PerImage:
        """Return the weight at a moment."""
        if not is_open(self.when, at) or at.here.alpha == 0:  # pure noise has no class
            return 0.0
        return now(self.weight, at)

    @property
    def shifts_mean(self) -> bool:
        return self.form == "mean"

    def asks(self, at: Moment) -> tuple[Branch, ...]:
        return () if everywhere(self.weight_at(at), 0.0) else (self.judge,)

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return (Branch(self.base), *self.asks(at))

    def push(self, predictions: Predictions, at: Moment, belief: Prediction) -> Tensor:
        return column(self.weight_at(at), belief.x) * self._gradient(predictions[self.judge].score, belief)

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        belief = predictions[Branch(self.base)]
        plain = Guided.plain(belief)
        if not self.asks(at):
            return plain, state
        push = self.push(predictions, at, belief)
        if self.shifts_mean:
            return replace(plain, drift=push), state
        return Guided.plain(belief.moved("score", push)), state

    def _gradient(self, gradient: Tensor, belief: Prediction) -> Tensor:
        """Return the gradient (B, ...), normalised and clipped."""
        if not self.normalise and self.clip is None:
            return gradient
        direction, size = _parted(gradient)
        if self.normalise:
            size = length(belief.score)
        if self.clip is not None:
            size = size.clamp_max(self.clip * gradient[0].numel() ** 0.5)
        return direction * size


def _parted(vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return direction and length of each image's vector; in two goes, so that squares neither vanish nor overflow."""
    tiny = torch.finfo(vector.dtype).tiny
    largest = vector.abs().amax(tuple(range(1, vector.ndim)), keepdim=True).clamp_min(tiny)
    scaled = vector / largest
    rest = length(scaled).clamp_min(tiny)
    return scaled / rest, largest * rest
