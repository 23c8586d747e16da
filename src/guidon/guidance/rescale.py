"""Rescaling: gives the guided belief back the size that the belief under the condition has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guidon.errors import BadValue
from guidon.guidance.rule import About, Moment, State
from guidon.guidance.space import check_space, rescaled, view
from guidon.guidance.stage import Reshape
from guidon.noise.prediction import Prediction
from guidon.registry import register


@register("stage", "rescale")
@dataclass(frozen=True)
class Rescale(Reshape):
    """Moves the standard deviation of the guided belief, over each image, towards that of the given branch.

    Args:
        mix: how far, in [0, 1]; 0 leaves it.
        space: the view that it acts on; v, as the paper's network, or x0, eps, velocity, score.

    Raises:
        BadValue: a setting is out of its range.

    Source: Lin et al., arXiv 2305.08891, sec. 3.4, eq. 15 and 16.
    """

    about: ClassVar[About] = About(
        formula="o <- mix o std(c) / std(o) + (1 - mix) o, o the guided and c the given belief",
        ranges=("mix 0.5 to 0.75",),
        sources=("lin2024common",),
        notes="The paper rescales the output of a network that gives v: at the noisy end that is the clean image, whose "
        "contrast is what guidance overdoes. `guidance_rescale` of diffusers acts on whatever the network gives.",
    )

    mix: float = 0.7
    space: str = "v"

    def __post_init__(self) -> None:
        check_space(self.space)
        if not 0 <= self.mix <= 1:
            raise BadValue(f"rescale mixes with a share in [0, 1], got {self.mix}")

    def reshape(self, guided: Prediction, given: Prediction, at: Moment, state: State) -> tuple[Prediction, State]:
        have, want = view(guided, self.space), view(given, self.space)
        return guided.moved(self.space, rescaled(have, want, self.mix) - have), state
