"""Four modes on the line, two of a class, and what share of the class a rule leaves at the lower one.

The class has two equal modes, N(1, 0.15^2) and N(2.5, 0.15^2); without the class there are four, at -2.5, -1, 1 and 2.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from guidon.guidance.cfg import CFG
from guidon.guidance.rule import GIVEN, NULL, Moment, Rule
from guidon.lab.line import quantiles
from guidon.lab.mixture import NULL_LABEL, Exact, Mixture, told
from guidon.noise import Cosine, Level, Prediction
from guidon.noise.noise_grids import LogSNR
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.sampling.trajectory import Event
from guidon.solvers import Solver

START, MIDDLE, CLASS = 80.0, 1.75, 1  # the noise level of the start, what lies between the modes, the class's label
MANY = 10**9  # steps that are as good as a continuous way


def world() -> Mixture:
    """Return four modes on the line; the class 1 has the two above 0."""
    means = torch.tensor([[-2.5], [-1.0], [1.0], [2.5]], dtype=torch.float64)
    return Mixture(torch.ones(4), means, torch.full_like(means, 0.15**2), torch.tensor([0, 0, 1, 1]))


def times(steps: int) -> tuple[Level, ...]:
    """Return levels evenly spaced in the time of the cosine process, from the start to the clean image."""
    process = Cosine()
    first = process.time_at(START)
    return (*(process.level(first * (1 - i / steps)) for i in range(steps)), process.clean)


def log_levels(steps: int) -> tuple[Level, ...]:
    """Return levels evenly spaced in log noise level, from the start to 0.005 and the clean image."""
    return LogSNR(sigma_min=0.005, sigma_max=START).levels(Cosine(), steps)


def follow(rule: Rule, solver: Solver, levels: Sequence[Level], starts: int) -> tuple[Tensor, Tensor]:
    """Return the states at the beginning of each step, float64 (steps, starts), and the ends (starts,), from even quantiles."""
    states: list[Tensor] = []

    def look_on(event: Event) -> None:
        if event.at.began is None:
            states.append(next(iter(event.predictions.values())).x[:, 0])

    contexts, start = told(torch.full((starts,), CLASS)), quantiles(starts)[:, None]
    trajectory = Trajectory(start, levels, solver, rule, contexts, RecordedNoise([]), look_on=look_on)
    (ends,) = Engine({"main": Exact(world())}).run([trajectory])
    return torch.stack(states), ends[:, 0]


def share(ends: Tensor) -> float:
    """Return the quantile of the start that ends between the modes, linear between neighbouring ends (starts,)."""
    ends = ends.sort().values  # paths keep their order, but for rounding
    below = int((ends < MIDDLE).sum())
    if below in (0, len(ends)):
        return below / len(ends)
    low, high = float(ends[below - 1]), float(ends[below])
    return (below - 0.5 + (MIDDLE - low) / (high - low)) / len(ends)


def moment(level: Level, ramp: float) -> Moment:
    """Return the moment of a run of very many steps at a level and a part of the way, 0 at the first step and 1 at the last."""
    return Moment(level, level, round(ramp * MANY), MANY + 1)


def weight_of(rule: Rule, at: Moment) -> float | None:
    """Return the weight of cfg at a moment; None for other rules, and where every image has its own."""
    weight = rule.weight_at(at) if isinstance(rule, CFG) else None
    return float(weight) if isinstance(weight, float | int) else None


def limit(rule: CFG) -> float:
    """Return the share at 1 in the limit of many steps even in time: where the path that ends between the modes began.

    Args:
        rule: with one weight for all images.
    """
    mixture, process = world(), Cosine()
    start = process.time_at(START)
    labels = {GIVEN: torch.tensor([CLASS]), NULL: torch.tensor([NULL_LABEL])}

    def slope(t: float, x: np.ndarray) -> np.ndarray:
        level = process.level(t)
        state = torch.from_numpy(x)[:, None]
        beliefs = {
            branch: Prediction(state, level, *mixture.believe(state, level.alpha, level.sigma, label))
            for branch, label in labels.items()
        }
        guided, _ = rule.combine(beliefs, moment(level, 1 - t / start), None)
        return (math.pi / 2) * (guided.eps * level.alpha - guided.x0 * level.sigma)[:, 0].numpy()

    found = solve_ivp(slope, (0.002, start), [MIDDLE], method="DOP853", rtol=1e-6, atol=1e-8, max_step=0.02)
    return NormalDist().cdf(float(found.y[0, -1]))


def plain_share() -> float:
    """Return the share at 1 of plain conditional sampling without error: the start is N(0, 1), the median of the class 1.75 alpha."""
    return NormalDist().cdf(MIDDLE * float(Cosine().level_at(START).alpha))
