"""Singlestep DPM-Solvers: blocks of steps that all start from the first one's state."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Guided, Moment
from guidon.noise.level import Level
from guidon.registry import register
from guidon.solvers.euler import renoise
from guidon.solvers.multistep import check_word
from guidon.solvers.phi import phi
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


class Singlestep(Solver):
    """A run cut into blocks; the k-th step of a block goes from the block's first state, with order k.

    Every level of the run is visited once, so that a step takes one evaluation; one of order 2 or 3 uses that and the first one of
    its block. A step to the clean image, or from a level without any signal, is Euler's, and a block begins after the latter.
    """

    remembers: ClassVar[bool] = True

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        if at.there.sigma == 0 or math.isinf(at.noise_level):
            return renoise(guided, at.there), None
        place, length = self._block(at)
        first, began, order = (guided, at.here, 1) if place == 0 or carry is None else carry
        after = renoise(first, at.there)
        if order > 1:
            begin, here, there = (-math.log(float(level.noise_level)) for level in (began, at.here, at.there))
            share = self._weight(there - begin, at.there, order, length) * (there - begin) / (here - begin)
            after.add_(self._believed(guided) - self._believed(first), alpha=share)
        return after, (first, began, order + 1)

    @abstractmethod
    def _block(self, at: Moment) -> tuple[int, int]:
        """Return the place of a step in its block, from 0, and the length of the block."""

    @abstractmethod
    def _believed(self, guided: Guided) -> Tensor:
        """Return what is taken to be a polynomial in the log of the noise level."""

    @abstractmethod
    def _weight(self, h: float, there: Level, order: int, length: int) -> float:
        """Return what a change of the belief over the whole step adds to its end, for a step of order 2 or 3.

        Args:
            h: how far log(alpha / sigma) goes, from the block's first level.
            there: where it goes.
            order: of the step.
            length: of the block.
        """


@register("solver", "dpmpp-singlestep")
@dataclass(frozen=True)
class DPMppSinglestep(Singlestep):
    """DPM-Solver++ in blocks, over the levels of any grid.

    Args:
        order: length of the blocks and order of their last steps, 1 to 3.
        end: "lower" splits a last block that would be whole, so that the run ends with a step of order 1; "full" keeps it.

    Raises:
        BadValue: a value is none of these.

    Source: Lu et al., arXiv 2211.01095, algorithm 1 for order 2; arXiv 2206.00927, appendix B.4, with the clean image for order 3;
    ``DPMSolverSinglestepScheduler`` of diffusers.
    """

    order: int = 2  # type: ignore[misc]
    end: str = "lower"

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 3:
            raise BadValue(f"dpmpp-singlestep takes orders 1 to 3, got {self.order}")
        check_word(self, "end", ("lower", "full"))

    def _block(self, at: Moment) -> tuple[int, int]:
        return block(at.index, at.steps, self.order, self.end == "lower")

    def _believed(self, guided: Guided) -> Tensor:
        return guided.x0

    def _weight(self, h: float, there: Level, order: int, length: int) -> float:
        return float(there.alpha) * (-math.expm1(-h) / 2 if order == 2 else h * phi(2, -h))


@register("solver", "dpm-fast")
@dataclass(frozen=True)
class DPMFast(Singlestep):
    """DPM-Solver-3 in blocks of three steps, and of two and one at the end.

    Meant for levels in thirds of equal strides in log(alpha / sigma), the last one above zero; it works with those of any grid.

    Source: Lu et al., arXiv 2206.00927, algorithms 1, 2 and 5 and section 3.4; k-diffusion's ``sample_dpm_fast``.
    """

    order: ClassVar[int] = 3

    def _block(self, at: Moment) -> tuple[int, int]:
        return block(at.index, at.steps, 3, True)

    def _believed(self, guided: Guided) -> Tensor:
        return guided.eps

    def _weight(self, h: float, there: Level, order: int, length: int) -> float:
        return -float(there.sigma) * (math.expm1(h) / 2 if length == 2 else h * phi(2, h))


def block(index: int, steps: int, longest: int, lower: bool) -> tuple[int, int]:
    """Return the place of a step in its block, from 0, and the length of the block.

    Blocks are of length ``longest``, the last one of what is left. If nothing is left and the order is to be lower at the end, the
    last block is one step shorter and another of one step follows.
    """
    place, left = index % longest, steps - (index - index % longest)
    if lower and left == longest > 1:
        return (0, 1) if place == longest - 1 else (place, longest - 1)
    return place, min(longest, left)
