"""A step seen in the time and the scale of another process.

The probability-flow ODE has one solution, but what is straight about a step depends on the coordinates: in the time of a process
it is dx/dt = alpha'(t) x0 + sigma'(t) eps. Solvers of guidon step in noise level, which is the time of EDM's process; with a clock
they step as the code did that was written for another one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.rule import Guided
from guidon.noise.level import Level
from guidon.noise.process import EDM, Process
from guidon.noise.tables import VPTable


def checked_clock(clock: Process | None) -> Process | None:
    """Return a clock that steps can be taken in; raises `BadValue` for a table, whose time has no derivative."""
    if not (clock is None or isinstance(clock, Process)):
        raise BadValue(f"a clock is a continuous process such as Flow(), not {clock!r}")
    if isinstance(clock, VPTable):
        raise BadValue("a table has no derivative in time; take a continuous process as the clock, such as vp or flow")
    return clock


def seen(clock: Process, level: Level) -> Level:
    """Return the level of a clock with the noise level of another process's level."""
    return clock.clean if level.sigma == 0 else clock.level_at(float(level.noise_level))


def knows(clock: Process, level: Level) -> bool:
    """Return whether a clock has a time for a level; some have none for a level without any signal."""
    return math.isfinite(float(level.noise_level)) or float(clock.alpha(clock.level_at(math.inf).t)) < 1e-9


def scale(before: Level, after: Level) -> float:
    """Return what takes a state from one level to another one of the same noise level."""
    if before.sigma == 0:
        return 1.0  # both are the clean image
    return float(after.sigma) / float(before.sigma)


def slope(guided: Guided, clock: Process, t: float) -> Tensor:
    """Return dx/dt of the guided ODE at a time of the clock, in the clock's scale (B, ...)."""
    if isinstance(clock, EDM):
        return guided.eps  # alpha' = 0, sigma' = 1
    with torch.inference_mode(False), torch.enable_grad():
        time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        alpha, sigma = (
            torch.autograd.grad(value, time, retain_graph=True)[0].item() if value.requires_grad else 0.0
            for value in clock.alpha_sigma(time)
        )
    return guided.x0 * alpha + guided.eps * sigma
