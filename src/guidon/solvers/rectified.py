"""The predictor-corrector step of Rectified-CFG++."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guidon.guidance.rule import GIVEN, Moment
from guidon.noise.level import Level
from guidon.registry import register
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step


@register("solver", "rectified")
@dataclass(frozen=True)
class Rectified(Solver):
    """A step with the given branch's velocity at its start, and the guidance of its middle, where that velocity leads.

    For the rule rectified-cfgpp. In y = x / (alpha + sigma) and u = sigma / (alpha + sigma) every process is a rectified flow,
    dy/du = eps - x0, so the step is the paper's on flow and means the same elsewhere.

    Source: Saini et al., arXiv 2510.07631.
    """

    order: ClassVar[int] = 1
    evaluations: ClassVar[int] = 2
    particular: ClassVar[bool] = True

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        here, there = flow_time(at.here), flow_time(at.there)
        y = x / (at.here.alpha + at.here.sigma)
        start = yield Ask(x, at, plain=GIVEN)
        velocity = start.eps - start.x0
        time = (here + there) / 2
        halfway = at.here.with_noise_level(time / (1 - time))
        middle = (y + velocity * (time - here)) * (halfway.alpha + halfway.sigma)
        guided = yield Ask(middle, replace(at, here=halfway, began=at.here))
        assert guided.given is not None  # a trajectory lets no other rule here
        velocity = velocity + (guided.eps - guided.x0) - guided.given.velocity
        return (y + velocity * (there - here)) * (at.there.alpha + at.there.sigma), carry


def flow_time(level: Level) -> float:
    """Return sigma / (alpha + sigma): the time of the rectified flow with the same noise level."""
    return float(level.sigma) / float(level.alpha + level.sigma)
