"""Adaptive guidance: stop asking the other branch once it says the same as the given one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from guidon.errors import BadValue
from guidon.guidance.economy import Economy, Memory, others
from guidon.guidance.rule import About, Branch, Moment
from guidon.guidance.space import check_space, dot, length, view
from guidon.noise.prediction import Prediction
from guidon.registry import register

Done = tuple[bool, ...]  # for each image, whether the branch is no longer asked


@register("stage", "adaptive")
@dataclass(frozen=True)
class Adaptive(Economy[Done]):
    """Asks the other branch only until it agrees with the given one, image by image; from then on the image is given alone.

    The step that finds the agreement is still guided, since its answers are there; the next one no longer asks.

    Args:
        threshold: the cosine of the angle between the two beliefs from which on they agree, in [-1, 1].
        space: the view whose angle is taken.

    Raises:
        BadValue: a setting is out of its range.

    Source: Castillo et al., arXiv 2312.12487.
    """

    about: ClassVar[About] = About(
        formula="D = D_c once cos(D_c, D_u) >= threshold, for good",
        cost="that of the rule until the threshold is passed, then 1",
        ranges=(
            "threshold 0.999; 0.99 ends guidance too early on CIFAR-10",
            "in eps, Stable Diffusion: 0.991 to 0.996 (a quarter fewer evaluations)",
        ),
        sources=("castillo2025adaptive",),
        notes="The paper takes the angle in eps, where on most processes both branches agree at first, for both see the noise: "
        "guidance would end with the first step. The threshold belongs to a network. Every branch but the "
        "given one is treated so on its own; one that says something else (conjunction, two-scale) should not be.",
    )

    threshold: float = 0.999
    space: str = "x0"

    def __post_init__(self) -> None:
        check_space(self.space)
        if not -1 <= self.threshold <= 1:
            raise BadValue(f"adaptive needs a threshold in [-1, 1], the cosine of an angle, got {self.threshold}")

    def due(self, at: Moment, memory: Done | None) -> bool:
        return memory is None or not all(memory)

    def rows(
        self, branch: Branch, wanted: tuple[Branch, ...], at: Moment, state: Memory[Done]
    ) -> tuple[int, ...] | None:
        done = state.get(branch.plain, ())
        if not any(done) or branch.plain not in [other.plain for other in others(wanted)]:
            return None
        return tuple(i for i, image_done in enumerate(done) if not image_done)

    def supply(
        self, given: Prediction, asked: Prediction | None, at: Moment, memory: Done | None
    ) -> tuple[Prediction, Done]:
        if asked is None:
            assert memory is not None
            return given, memory
        here, there = view(given, self.space), view(asked, self.space)
        norms = (length(here) * length(there)).clamp_min(torch.finfo(here.dtype).tiny)
        agree = (dot(here, there) >= self.threshold * norms).flatten().tolist()  # false where it was not asked
        if memory is None:
            return asked, tuple(agree)
        done = torch.tensor(memory, device=here.device).reshape(-1, *[1] * (here.ndim - 1))
        x0, eps = torch.where(done, given.x0, asked.x0), torch.where(done, given.eps, asked.eps)
        now = tuple(before or now for before, now in zip(memory, agree, strict=True))
        return Prediction(given.x, given.level, x0, eps, given.variance_fraction), now
