"""What a run of finitely many steps does to a Gaussian, exactly.

Under linear beliefs a whole run is affine in the start and in each draw of noise, x = b + A x_T + sum_k C_k z_k, whatever the
solver remembers. So one run of the engine on unit vectors reads off A, b and C_k, and

    mean = A m + b,    variance = A^2 v + sum_k C_k^2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guidon.errors import NotSupported
from guidon.guidance import Rule
from guidon.lab.gaussian import Gaussians, Pair
from guidon.lab.mixture import NULL_LABEL, Exact, told
from guidon.noise import Level
from guidon.sampling import Engine, Trajectory
from guidon.solvers import Solver


def propagate(
    solver: Solver,
    rule: Rule,
    levels: Sequence[Level],
    gaussians: Gaussians | Pair,
    mean: float | Tensor,
    variance: float | Tensor,
    label: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the state at the end of a run, float64 (*shape) each.

    Args:
        solver: any whose step is linear in what it is told and in its noise.
        rule: any that is linear in the beliefs, such as cfg.
        levels: the levels of the run.
        gaussians: the beliefs, without covariance between the numbers of a state.
        mean, variance: of the state x_T at the first level; numbers, or one for each number of a state.
        label: the class that is given.

    Raises:
        NotSupported: the covariances have axes of their own, or the run is not affine.
    """
    truth = gaussians.gaussians if isinstance(gaussians, Pair) else gaussians
    if any(truth[which].axes is not None for which in (label, NULL_LABEL)):
        raise NotSupported(
            "moments are followed number by number; give Gaussians with variances instead of covariances"
        )
    draws = _Draws()
    _run(solver, rule, levels, truth, torch.zeros(1, *truth.shape, dtype=torch.float64), draws, label)
    rows = draws.count + 3  # from nothing, from a unit start, from each unit draw, and from everything at -10
    start = torch.zeros(rows, *truth.shape, dtype=torch.float64)
    start[1], start[-1] = 1.0, -10.0
    ends = _run(solver, rule, levels, truth, start, _Draws(), label)
    shift = ends[0]
    factors = ends[1:-1] - shift
    scale = ends.abs().amax().clamp_min(1.0)
    if bool(((shift - 10 * factors.sum(0) - ends[-1]).abs() > 1e-9 * scale * rows**0.5).any()):
        raise NotSupported("the run is not affine; take a solver and a rule that are linear in the beliefs")
    return factors[0] * mean + shift, factors[0] ** 2 * variance + (factors[1:] ** 2).sum(0)


class _Draws:
    """Noise that is 1 in the row of its own draw, counted from the third, and -10 in the last row.

    Attributes:
        count: how often noise was drawn.
    """

    def __init__(self) -> None:
        self.count = 0

    def of_shape(self, like: Tensor) -> Tensor:
        """Return the next draw (B, *shape); zeros for a batch of one."""
        noise = torch.zeros_like(like)
        if len(like) > 1:
            noise[2 + self.count], noise[-1] = 1.0, -10.0
        self.count += 1
        return noise


def _run(
    solver: Solver, rule: Rule, levels: Sequence[Level], truth: Gaussians, start: Tensor, draws: _Draws, label: int
) -> Tensor:
    contexts = told(torch.full((len(start),), label))
    trajectory = Trajectory(start, levels, solver, rule, contexts, lambda: draws.of_shape(start))
    return Engine({"main": Exact(truth)}).run([trajectory])[0]
