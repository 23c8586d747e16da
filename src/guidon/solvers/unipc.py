"""UniPC: a predictor, and a corrector that uses the evaluation that the next step needs anyway."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Guided, Moment
from guidon.noise.level import Level
from guidon.registry import register
from guidon.solvers.euler import renoise
from guidon.solvers.multistep import check_word, order_left, remember
from guidon.solvers.phi import phi
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


@register("solver", "unipc")
@dataclass(frozen=True)
class UniPC(Solver):
    """UniPC: Euler's step bent by what was believed before, and bent anew once it is known what is believed at its end.

    The state between steps is the predictor's. A step first corrects the one before it, with its own evaluation, and moves on
    from the corrected state: so steps take one evaluation each, and the last one is not corrected. A step to the clean image, or
    from a level without any signal, is Euler's.

    Args:
        predictor: its order, 1 to 3, diffusers' solver_order; the corrector adds one to the order of convergence.
        variant: B(h) of the paper, "bh1" for h, "bh2" for e^h - 1.
        believes: what is extrapolated, "x0" or "eps".
        corrector_from: number of the first step that is corrected, >= 0; none for no corrector.
        end: "lower" lets the order fall to 1 along the last steps, "full" keeps it.

    Raises:
        BadValue: a value is none of these.

    Source: Zhao et al., arXiv 2302.04867, section 3; diffusers' ``UniPCMultistepScheduler``.
    """

    remembers: ClassVar[bool] = True
    predictor: int = 2
    variant: str = "bh2"
    believes: str = "x0"
    corrector_from: int | None = 0
    end: str = "lower"

    def __post_init__(self) -> None:
        if not 1 <= self.predictor <= 3:
            raise BadValue(f"unipc takes predictors of order 1 to 3, got {self.predictor}")
        check_word(self, "variant", ("bh1", "bh2"))
        check_word(self, "believes", ("x0", "eps"))
        check_word(self, "end", ("lower", "full"))
        if self.corrector_from is not None and self.corrector_from < 0:
            raise BadValue(f"unipc needs corrector_from >= 0, got {self.corrector_from}")

    @property
    def order(self) -> int:  # type: ignore[override]
        return self.predictor + (self.corrector_from is not None)

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        after = renoise(guided, at.there)
        before, used = carry or ((), 0)
        memory = remember(before, at, self._believed(guided), self.predictor)
        if at.there.sigma == 0 or not memory:
            return after, None
        if used and self.corrector_from is not None and at.index > self.corrector_from:
            start, *others = before[:used]
            change = self._bend(start, [*others, memory[0]], at.here) - self._bend(start, others, at.here)
            after.add_(change, alpha=self._unit(at.there) / self._unit(at.here))
        order = min(len(memory), order_left(at, self.predictor, self.end))
        return after.add_(self._bend(memory[0], memory[1:order], at.there)), (memory, order)

    def _believed(self, guided: Guided) -> Tensor:
        return guided.x0 if self.believes == "x0" else guided.eps

    def _unit(self, level: Level) -> float:
        """Return what the state is measured in, so that it moves by what is believed alone."""
        return float(level.sigma if self.believes == "x0" else level.alpha)

    def _bend(self, start: tuple[float, Tensor], others: Sequence[tuple[float, Tensor]], there: Level) -> Tensor:
        """Return what beliefs at other levels add, at ``there``, to an Euler step from ``start``."""
        length = start[0] - math.log(there.noise_level)
        z, gain = (-length, there.alpha) if self.believes == "x0" else (length, there.sigma)
        scale = z if self.variant == "bh1" else math.expm1(z)
        ratios = [(start[0] - log_level) / length for log_level, _ in others]
        total = torch.zeros_like(start[1])
        for (_, belief), ratio, weight in zip(others, ratios, weights(ratios, z, scale), strict=True):
            total.add_(belief - start[1], alpha=-float(gain) * scale * weight / ratio)
        return total


def weights(ratios: Sequence[float], z: float, scale: float) -> list[float]:
    """Return what each difference of beliefs counts: sum_j w_j r_j^(k-1) = k! z phi_{k+1}(z) / B(z) for k = 1, 2, ...

    Args:
        ratios: where the differences end, in steps from the start.
        z: length of the step in log noise level, negative for the clean image.
        scale: B(z).

    Returns:
        The weights; 1/2 for one difference alone, which is as accurate as the solution and the same for every B.
    """
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    powers = [[ratio**k for ratio in ratios] for k in range(len(ratios))]
    moments = [math.factorial(k) * z * phi(k + 1, z) / scale for k in range(1, len(ratios) + 1)]
    return [float(weight) for weight in np.linalg.solve(powers, moments)]
