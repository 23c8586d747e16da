"""The guided probability-flow ODE by an adaptive integrator: the endpoints that solvers of few steps are judged by.

In z = x / alpha and tau = sigma / alpha every process has the ODE dz/dtau = eps(z, tau). It is integrated in the angle
theta = arctan(tau) and y = x / sqrt(alpha^2 + sigma^2), where it reads dy/dtheta = cos(theta) eps - sin(theta) x0 and is
regular from a level without signal to the clean image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from guidon.errors import BadValue, NotSupported, NumericalError
from guidon.guidance import Moment, Rule
from guidon.noise import Level
from guidon.registry import to_text
from guidon.sampling import Denoises, Engine, Trajectory
from guidon.sampling.trajectory import Told
from guidon.solvers import Ask, Solver
from guidon.solvers.solver import Carry, Noise, Step

NEARLY_CLEAN = 1e-8  # where beliefs are asked for in place of noise level 0


def integrate(
    networks: Mapping[str, Denoises],
    rule: Rule,
    levels: Sequence[Level],
    x: Tensor,
    contexts: Mapping[str, Told],
    *,
    rtol: float = 1e-10,
    atol: float = 1e-12,
) -> Tensor:
    """Return the states that the guided ODE visits at ``levels``, float64 (len(levels), B, *shape).

    Args:
        networks: as the engine's, {"main": Exact(mixture)}.
        rule: without memory; what it does may change with the noise level, and between two levels is to be smooth: put a
            level where an interval opens or closes.
        levels: noisiest first, at least two, made by a process; the last may be the clean image.
        x: the state at the first level, (B, *shape).
        contexts: what the networks are told, as a trajectory's.
        rtol, atol: relative and absolute error of a step, root mean square over all numbers.

    Raises:
        BadValue: fewer than two levels, or levels that do not fall.
        NotSupported: the rule has memory, or works with solvers of its own only.
        NumericalError: the integrator gave up.
    """
    if rule.init() is not None:
        raise NotSupported(f"the rule {to_text(rule)} has memory, so its path depends on the steps; use one without")
    angles = [math.atan(float(level.noise_level)) for level in levels]
    if len(levels) < 2 or any(high <= low for high, low in itertools.pairwise(angles)):
        raise BadValue("a path needs at least two levels, each less noisy than the one before")
    engine, path = Engine(networks), [x.double()]
    for (here, there), span in zip(itertools.pairwise(levels), itertools.pairwise(angles), strict=True):

        def slope(
            angle: float,
            y: np.ndarray,
            here: Level = here,
            there: Level = there,
            span: tuple[float, float] = span,
        ) -> np.ndarray:
            at = here if angle >= span[0] else there.with_noise_level(_inside(angle, there, span[1]))
            state = torch.from_numpy(y).reshape(x.shape) * math.hypot(at.alpha, at.sigma)
            trajectory = Trajectory(state, [at, there], _Slope(), rule, contexts, _no_noise)
            return engine.run([trajectory])[0].numpy().ravel()

        start = (path[-1] / math.hypot(here.alpha, here.sigma)).numpy().ravel()
        found = solve_ivp(slope, span, start, method="DOP853", rtol=rtol, atol=atol, t_eval=span[1:])
        if not found.success:
            raise NumericalError(f"the integrator gave up: {found.message}; allow larger errors (rtol, atol)")
        path.append(torch.from_numpy(found.y[:, -1]).reshape(x.shape) * math.hypot(there.alpha, there.sigma))
    return torch.stack(path)


def _inside(angle: float, there: Level, low: float) -> float:
    """Return the noise level at an angle; at the lower end one just above, for intervals are open below and no rule divides by 0."""
    if angle > low:
        return math.tan(angle)
    end = float(there.noise_level)
    return math.nextafter(end, math.inf) if end > 0 else NEARLY_CLEAN


def _no_noise() -> Tensor:
    raise NotSupported("an ODE draws no noise; use a rule that draws none")


@dataclass(frozen=True)
class _Slope(Solver):
    """Gives dy/dtheta in place of the next state."""

    order = 1

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        alpha, sigma = float(at.here.alpha), float(at.here.sigma)
        return (guided.eps * alpha - guided.x0 * sigma) / math.hypot(alpha, sigma), carry
