"""Which way a rule and its solver lead from every point of the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from guidon.guidance import Moment, Rule
from guidon.lab import drawing
from guidon.lab.plane import Plane
from guidon.noise import Level
from guidon.registry import to_text
from guidon.solvers import Solver
from guidon.solvers.solver import Carry, Noise, Step

REACH = 2.3  # half the side of a picture, beside sqrt(1 + noise level^2)
LATTICE = 21  # points along a side at which a flow is looked at


@dataclass(frozen=True, eq=False)
class Flow:
    """Where one step leads from the points of a lattice.

    Args:
        level: where it begins.
        extent: of the lattice, in x / alpha.
        moves: (N, 2) in x / alpha.
    """

    level: Level
    extent: drawing.Extent
    moves: Tensor


@dataclass(frozen=True, eq=False)
class _Standing(Solver):
    """Takes every step of another solver from the same places, without noise, and notes where it led.

    Args:
        solver: the other one.
        places: (N, 2), in x / alpha; in units of sqrt(1 + noise level^2).
        moves: filled with the move (N, 2), in x / alpha, of each step by its number; a rehearsal's is overwritten by the run's.
    """

    order: ClassVar[int] = 0
    solver: Solver
    places: Tensor
    moves: dict[int, Tensor] = field(default_factory=dict)

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return self.solver.evaluations

    def to_text(self) -> str:
        """Pass for the other solver, so that rules made for it go along."""
        return to_text(self.solver)

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        start = self.places * math.hypot(1, at.noise_level)
        after, _ = yield from self.solver.step(
            start * at.here.alpha, at, self.solver.init(), lambda: torch.zeros_like(start)
        )
        self.moves[at.index] = after / at.there.alpha - start
        return after, carry


def flows(
    plane: Plane, rule: Rule, solver: Solver, levels: Sequence[Level], noise_levels: Sequence[float]
) -> list[Flow]:
    """Return where the steps that begin next to noise levels lead; the rule has seen the steps before them."""
    _, _, pairs = drawing.lattice((-REACH, REACH, -REACH, REACH), LATTICE)
    standing, found = _Standing(solver, pairs), []
    plane.run(rule, standing, levels, pairs * levels[0].sigma, range(len(pairs)))
    for wanted in noise_levels:
        apart = [abs(math.log(float(level.noise_level) / wanted)) for level in levels[:-1]]
        index = apart.index(min(apart))
        side = REACH * math.hypot(1, float(levels[index].noise_level))
        found.append(Flow(levels[index], (-side, side, -side, side), standing.moves[index]))
    return found
