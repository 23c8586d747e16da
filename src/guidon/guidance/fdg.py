"""Frequency-decoupled guidance: a weight for the fine structure of an image and another for the coarse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue, ShapeMismatch
from guidon.guidance.contrast import column, everywhere, those
from guidon.guidance.pyramid import collapse, laplacian
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Predictions, Rule, State, Which
from guidon.guidance.space import along, check_space, rescaled, view
from guidon.guidance.weights import Interval, PerImage, Weight, checked_weight, is_open, now
from guidon.registry import register


@register("rule", "fdg")
@dataclass(frozen=True)
class FDG(Rule):
    """Classifier-free guidance with a weight for each frequency band.

    Args:
        weights: one for each band, from high to low frequencies, each as for `CFG`. Equal ones are plain CFG.
        when: the noise levels at which to guide; elsewhere the weights are 1. A band that is to have an interval of its own
            takes a `Weight`.
        parallel: how much of the part along the given belief is kept of each band's difference; None for all, as 1.
        rescale: how far each band's standard deviation moves back to that of the given belief, in [0, 1]; None for not at all.
        space: the view that ``parallel`` and ``rescale`` act on; without them all views agree.

    Raises:
        BadValue: a setting is out of its range, or not one for each band.

    Source: Sadat et al., arXiv 2506.19713, alg. 2.
    """

    about: ClassVar[About] = About(
        formula="band_i(D) = band_i(D_c) + (w_i - 1) band_i(D_c - D_u), bands of a Laplacian pyramid",
        cost="2; 1 where all weights are 1, or all 0",
        ranges=("SDXL: [10, 5]", "EDM2-S: more for the high band than cfg takes, less for the low one"),
        sources=("sadat2025frequency",),
        notes="Images of any size; the code of diffusers pads those whose sides are no powers of two and does not cut the "
        "result. To rescale the whole image, as `guidance_rescale` there does, chain: fdg([10, 5]) | rescale(0.7).",
    )

    weights: tuple[float | PerImage | Weight, ...]
    when: Interval | None = None
    parallel: tuple[float, ...] | None = None
    rescale: tuple[float, ...] | None = None
    space: str = "x0"

    def __post_init__(self) -> None:
        check_space(self.space)
        if not isinstance(self.weights, tuple | list) or not self.weights:
            raise BadValue(f"fdg needs a weight for each band, high to low, such as [10, 5]; got {self.weights!r}")
        object.__setattr__(self, "weights", tuple(checked_weight(weight) for weight in self.weights))
        for name, values in (("parallel", self.parallel), ("rescale", self.rescale)):
            if values is not None and len(values) != len(self.weights):
                raise BadValue(
                    f"fdg has {len(self.weights)} bands, and {name} is for {len(values)}; give one for each band"
                )
        if self.rescale is not None and not all(0 <= mix <= 1 for mix in self.rescale):
            raise BadValue(f"fdg rescales by shares in [0, 1], got {self.rescale}")

    def _weights_at(self, at: Moment) -> tuple[float | PerImage, ...]:
        if not is_open(self.when, at):
            return (1.0,)
        return tuple(now(weight, at) for weight in self.weights)

    def zeros(self, at: Moment) -> Which:
        each = [those(weight, 0.0) for weight in self._weights_at(at)]
        many = [one for one in each if isinstance(one, tuple)]
        if not many:
            return all(each)
        rows = [one if isinstance(one, tuple) else (one,) * len(many[0]) for one in each]
        return tuple(all(row) for row in zip(*rows, strict=True))

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        weights = self._weights_at(at)
        if all(everywhere(weight, 1.0) for weight in weights):
            return (GIVEN,)
        return (NULL,) if all(everywhere(weight, 0.0) for weight in weights) else (GIVEN, NULL)

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        asked = self.branches(at, state)
        if len(asked) == 1:
            return Guided.plain(predictions[asked[0]]), state
        given, weights = predictions[GIVEN], self._weights_at(at)
        if given.x.ndim < 4:
            raise ShapeMismatch(f"fdg needs images (B, C, H, W), not {tuple(given.x.shape)}; use cfg")
        own = view(given, self.space)
        difference = own - view(predictions[NULL], self.space)
        bands = laplacian(difference, len(weights))
        owns = laplacian(own, len(weights)) if self.parallel or self.rescale else bands
        change = collapse([self._change(i, weights[i], band, owns[i]) for i, band in enumerate(bands)])
        moved = given.moved(self.space, change)
        return Guided(moved.x0, moved.eps, self.measure(predictions, at).variance_fraction), state

    def _change(self, band: int, weight: float | PerImage, difference: Tensor, own: Tensor) -> Tensor:
        """Return how far a band moves from the given belief's ``own`` one."""
        if self.parallel is not None:
            difference = difference + (self.parallel[band] - 1) * along(difference, own)
        change = (column(weight, difference) - 1) * difference
        return change if self.rescale is None else rescaled(own + change, own, self.rescale[band]) - own
