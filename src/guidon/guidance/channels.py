"""Guidance of some channels only, as DiT's own sampling has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.contrast import Pull
from guidon.guidance.rule import About, Moment, State
from guidon.guidance.stage import Shape
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("stage", "channels")
@dataclass(frozen=True)
class Channels(Shape):
    """Guides the first channels only; the others stay as the given branch has them.

    Args:
        first: how many are guided, >= 1 and fewer than the images have.

    Raises:
        BadValue: fewer than one, or no channel is left unguided.

    Source: Peebles & Xie, arXiv 2212.09748, in the authors' code: three of the four latent channels.
    """

    about: ClassVar[About] = About(
        formula="D[first:] of u <- D[first:] of c",
        ranges=("3, to repeat the numbers of DiT",),
        sources=("peebles2023scalable",),
        notes="DiT guides three of four latent channels, by its authors for exact reproducibility of what they had measured; "
        "without this stage all channels are guided.",
    )

    not_after: ClassVar[tuple[str, ...]] = (
        "cfgpp",
    )  # whose weight counts from the other side: no difference is the null there

    first: int

    def __post_init__(self) -> None:
        if self.first < 1:
            raise BadValue(f"channels guides at least the first one, got {self.first}")

    def shape(self, pull: Pull, at: Moment, state: State) -> tuple[Prediction, State]:
        if (there := pull.away.x0.shape[1]) <= self.first:
            raise BadValue(
                f"images of {there} channels have none beside the first {self.first}; leave channels({self.first}) out"
            )

        def mixed(away: Tensor, given: Tensor) -> Tensor:
            shaped = away.clone()
            shaped[:, self.first :] = given[:, self.first :]
            return shaped

        given, away = pull.given, pull.away
        return replace(away, x0=mixed(away.x0, given.x0), eps=mixed(away.eps, given.eps)), state
