"""DPM-Solver++ multistep: what is believed, extrapolated from the steps before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guidon.guidance.rule import Moment
from guidon.registry import register
from guidon.solvers.euler import renoise
from guidon.solvers.multistep import Memory, check_word, order_left, remember
from guidon.solvers.phi import phi
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step

FORMS, ENDS = ("midpoint", "heun"), ("clean", "lower")


@register("solver", "dpmpp-2m")
@dataclass(frozen=True)
class DPMpp2M(Solver):
    """DPM-Solver++(2M): second order with one evaluation a step, the clean image linear in log noise level.

    The carry holds the clean images of the steps before (under CFG++ those of the null branch, arXiv 2406.08070, appendix). The
    first step, one from a level without any signal and the step to the clean image are Euler's.

    Args:
        form: "midpoint" takes the slope at half a step's weight, "heun" at that of the integral.
        end: "clean" lowers the order in the step to the clean image only, "lower" in the last step wherever it goes.

    Raises:
        BadValue: another form or end.

    Source: Lu et al., arXiv 2211.01095, algorithm 2; the two forms and "lower": diffusers' ``DPMSolverMultistepScheduler``.
    """

    order: ClassVar[int] = 2
    remembers: ClassVar[bool] = True
    form: str = "midpoint"
    end: str = "clean"

    def __post_init__(self) -> None:
        check_word(self, "form", FORMS)
        check_word(self, "end", ENDS)

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        return multistep(x, at, carry, noise, order=2, form=self.form, end=self.end)


@register("solver", "dpmpp-3m")
@dataclass(frozen=True)
class DPMpp3M(DPMpp2M):
    """DPM-Solver++(3M): the clean image a parabola in log noise level, with one evaluation a step.

    The second step is that of dpmpp-2m. The reference codes give the curvature half the weight that its integral has, so that
    the order is 2, with a smaller error than dpmpp-2m; the weight is kept, so that images are theirs.

    Args:
        form: of the second step, see dpmpp-2m.
        end: "clean" lowers the order in the step to the clean image only, "lower" to 2 and 1 in the last steps wherever they go.

    Raises:
        BadValue: another form or end.

    Source: Lu et al., arXiv 2211.01095, section 4 and their code; diffusers' ``DPMSolverMultistepScheduler`` of order 3.
    """

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        return multistep(x, at, carry, noise, order=3, form=self.form, end=self.end)


@register("solver", "dpm-solver-2m")
@dataclass(frozen=True)
class DPMSolver2M(DPMpp2M):
    """DPM-Solver(2M): as dpmpp-2m, but it is the noise that is linear in log noise level.

    Args:
        form, end: see dpmpp-2m.

    Raises:
        BadValue: another form or end.

    Source: Lu et al., arXiv 2206.00927, in multistep form; diffusers' ``DPMSolverMultistepScheduler`` with "dpmsolver".
    """

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        memory, after = remember(carry, at, guided.eps, 2), renoise(guided, at.there)
        if len(memory) > 1 and order_left(at, 2, self.end) > 1:
            growth = math.log(float(at.there.noise_level) / at.noise_level)
            after = after.add_(slopes(memory, at)[0], alpha=float(at.there.sigma) * slope_weight(growth, self.form))
        return after, memory


def multistep(
    x: Tensor, at: Moment, carry: Carry, noise: Noise, *, order: int, form: str, end: str, eta: float = 0.0
) -> Step:
    """Take a step of DPM-Solver++ on the probability-flow ODE (``eta`` 0) or on an SDE with the same marginals.

    Args:
        x, at, carry, noise: see `Solver.step`.
        order: how many beliefs the step rests on, 2 or 3, once there are as many.
        form: of steps that rest on two.
        end: how the order falls at the end of the run.
        eta: how much noise the SDE puts in, >= 0; 1 as much as DDPM.
    """
    guided = yield Ask(x, at)
    clean = guided.x0 if guided.noise_x0 is None else guided.noise_x0
    memory = remember(carry, at, clean, order)
    if at.there.sigma == 0:
        return renoise(guided, at.there), memory
    alpha, sigma = float(at.there.alpha), float(at.there.sigma)
    ratio = float(at.there.noise_level) / at.noise_level
    after = (guided.x0 * alpha).add_(guided.eps, alpha=sigma * ratio**eta)
    used = memory[: order_left(at, order, end)]
    if len(used) > 1:
        length = -(1 + eta) * math.log(ratio)
        slope, *bend = slopes(used, at)
        after = after.add_(slope, alpha=alpha * slope_weight(length, "heun" if bend else form))
        for curvature in bend:
            after = after.add_(curvature, alpha=alpha * length * phi(3, -length))
    if eta > 0:
        after = after.add_(noise(), alpha=sigma * math.sqrt(1 - ratio ** (2 * eta)))
    return after, memory


def slope_weight(length: float, form: str) -> float:
    """Return what a belief that rises by 1 in a step adds to the state, for a step of a length in log noise level."""
    return -math.expm1(-length) / 2 if form == "midpoint" else length * phi(2, -length)


def slopes(memory: Memory, at: Moment) -> list[Tensor]:
    """Return a belief's derivatives in log noise level by divided differences, in units of the step.

    Two beliefs give the slope; three the slope of their parabola and half its second derivative.
    """
    levels, beliefs = [level for level, _ in memory], [belief for _, belief in memory]
    step = levels[0] - math.log(at.there.noise_level)
    each = [(beliefs[i] - beliefs[i + 1]) * (step / (levels[i + 1] - levels[i])) for i in range(len(memory) - 1)]
    if len(each) == 1:
        return each
    change, span = each[0] - each[1], levels[2] - levels[0]
    return [each[0] + change * ((levels[1] - levels[0]) / span), change * (step / span)]
