"""Ask the other branch every few steps only, and steer by the last difference in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.economy import Economy
from guidon.guidance.rule import About, Moment
from guidon.guidance.space import check_space, view
from guidon.noise.prediction import Prediction
from guidon.registry import register


class Difference(NamedTuple):
    """The difference (B, ...) between the given belief and the other one, and the step that found it."""

    step: int
    value: Tensor


@register("stage", "reuse")
@dataclass(frozen=True)
class Reuse(Economy[Difference]):
    """Asks the other branch every few steps only; in between the last difference to the given belief is used again.

    Args:
        every: a branch is asked at the first step that wants it, and then when so many steps have passed, >= 1; 1 saves nothing.
        space: the view whose difference is kept.

    Raises:
        BadValue: a setting is out of its range.

    Source: the plain form of what arXiv 2312.12487 does by regression (`LinearAG`).
    """

    about: ClassVar[About] = About(
        formula="eps_u = eps_c - (eps_c - eps_u at the last step that asked)",
        cost="1 + 1/every with cfg",
        ranges=("every 2 to 4",),
        sources=("castillo2025adaptive",),
        notes="Where a run starts without any signal, as flows do, all beliefs agree on eps at first; "
        "keep the difference in x0, v or velocity there.",
    )

    every: int = 2
    space: str = "eps"

    def __post_init__(self) -> None:
        check_space(self.space)
        if not self.every >= 1:
            raise BadValue(f"reuse asks every so many steps, 1 or more, got {self.every}")

    def due(self, at: Moment, memory: Difference | None) -> bool:
        return memory is None or at.index - memory.step >= self.every

    def supply(
        self, given: Prediction, asked: Prediction | None, at: Moment, memory: Difference | None
    ) -> tuple[Prediction, Difference]:
        if asked is not None:
            return asked, Difference(at.index, view(given, self.space) - view(asked, self.space))
        assert memory is not None
        return given.moved(self.space, -memory.value), memory
