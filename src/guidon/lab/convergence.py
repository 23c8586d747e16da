"""How fast solvers converge: towards the guided ODE, and in distribution."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guidon import registry
from guidon.errors import NotSupported
from guidon.guidance import CFG
from guidon.lab.affine import propagate
from guidon.lab.gaussian import Pair
from guidon.lab.integrate import integrate
from guidon.lab.line import power
from guidon.lab.mixture import Exact, told
from guidon.lab.plane import CLASSES, mixture
from guidon.noise import EDM, Level
from guidon.noise.grids import Karras
from guidon.registry import to_text
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.solvers import Churn, Solver

VARIANTS = (
    "euler(clock=flow)",
    "heun(0.5)",
    "heun(clock=flow)",
    "lms(2)",
    "lms(3)",
    "deis(3)",
    "dpmpp-2m(form='heun')",
    "dpmpp-singlestep(3)",
    "unipc(1)",
    "unipc(variant='bh1')",
    "unipc(believes='eps')",
    "unipc(3)",
    "unipc(3, end='full')",
    "unipc(corrector_from=none)",
)
PAIR = Pair(1.0, 0.5, 0.0, 1.0)  # of the stochastic solvers


def followers() -> list[Solver]:
    """Return every registered solver that can follow the ODE under any rule, without noise, and `VARIANTS`."""
    found = []
    for _, member in registry.members("solver"):
        solver = member(eta=0.0) if _has_eta(member) else member()
        if not solver.stochastic and not solver.particular:
            found.append(solver)
    return [*found, *(registry.parse("solver", text) for text in VARIANTS)]


def noises() -> list[Solver]:
    """Return every registered solver that can draw noise, with all the noise of DDPM where it has a share of it."""
    found = [member(eta=1.0) if _has_eta(member) else member() for _, member in registry.members("solver")]
    # more fresh noise than its level asks for, as churn has it by default, never becomes right
    return [Churn(noise=1.0) if isinstance(solver, Churn) else solver for solver in found if solver.stochastic]


def _has_eta(member: Any) -> bool:
    return "eta" in {field.name for field in dataclasses.fields(member)}


def levels(steps: int) -> Sequence[Level]:
    """Return the levels of a run of so many steps, from noise level 80 to 0.002."""
    return Karras(7.0, 0.002, 80.0).levels(EDM(), steps + 1)[:-1]


@dataclass(frozen=True, eq=False)
class Run:
    """What was measured of a solver.

    Args:
        solver: which.
        errors: by weight, the median distance from the end of the ODE, for each number of steps.
        asked: by weight, how often the network was asked for a point, for each number of steps.
        few: by weight, the error where all solvers may ask equally often.
        evaluations: how often that run asked for a guided belief.
    """

    solver: Solver
    errors: dict[float, list[float]]
    asked: dict[float, list[float]]
    few: dict[float, float]
    evaluations: int

    def order(self, weight: float) -> float:
        """Return the slope of the error over the last refinement."""
        return power(self.asked[weight], self.errors[weight])

    def row(self) -> dict[str, Any]:
        """Return the row of the table."""
        plain, guided = self.errors
        return {
            "solver": to_text(self.solver),
            "stated": self.solver.order,
            "order": round(self.order(plain), 3),
            "order_guided": round(self.order(guided), 3),
            "evaluations": self.solver.evaluations,
            "asked": self.evaluations,
            "error": float(f"{self.few[plain]:.4g}"),
            "error_guided": float(f"{self.few[guided]:.4g}"),
        }


@dataclass(frozen=True, eq=False)
class Starts:
    """Points to start from, and where the ODE takes them.

    Args:
        start: (B, 2) at the noisiest level.
        labels: (B,) their classes.
        ends: (B, 2) by weight.
    """

    start: Tensor
    labels: Tensor
    ends: dict[float, Tensor]

    @classmethod
    def of(cls, points: int, weights: Sequence[float]) -> Starts:
        count, (first, last) = points * CLASSES, levels(1)
        start = PerImageNoise(range(count), (2,), dtype=torch.float64)() * first.sigma
        labels, networks = torch.arange(count) % CLASSES, {"main": Exact(mixture())}
        ends = {w: integrate(networks, CFG(w), [first, last], start, told(labels))[-1] for w in weights}
        return cls(start, labels, ends)

    def measure(self, solver: Solver, steps: Sequence[int], evaluations: int) -> Run:
        """Return the errors of a solver with numbers of steps, and with as many as a number of evaluations allows."""
        found = self._errors(solver, steps)
        errors, asked = ({w: [one[w][part] for one in found] for w in self.ends} for part in (0, 1))
        few, spent = self._within(solver, evaluations)
        return Run(solver, errors, asked, few, spent)

    def _within(self, solver: Solver, evaluations: int) -> tuple[dict[float, float], int]:
        """Return the errors by weight of the longest run within so many evaluations, or of one step, and how many it takes."""
        for steps in range(max(1, evaluations // solver.evaluations), 0, -1):  # some take one more in their first steps
            (found,) = self._errors(solver, (steps,))
            spent = round(min(asked for _, asked in found.values()))  # by the weight that asks one branch only
            if spent <= evaluations:
                break
        return {w: error for w, (error, _) in found.items()}, spent

    def _errors(self, solver: Solver, steps: Sequence[int]) -> list[dict[float, tuple[float, float]]]:
        """Return for each number of steps, by weight, the median error of a run, and how often it asked the network for a point."""
        contexts = told(self.labels)
        runs = [
            {w: Trajectory(self.start, levels(n), solver, CFG(w), contexts, _no_noise) for w in self.ends}
            for n in steps
        ]
        Engine({"main": Exact(mixture())}).run(run for one in runs for run in one.values())  # together: fewer forwards
        return [
            {w: (float((run.x - self.ends[w]).norm(dim=1).median()), run.nfe) for w, run in one.items()} for one in runs
        ]


def _no_noise() -> Tensor:
    raise NotSupported("an ODE draws no noise; compare solvers without any")


def in_distribution(solver: Solver, steps: Sequence[int], weight: float) -> tuple[dict[str, Any], list[float]]:
    """Return the row of a stochastic solver, and its W2 distance from the true Gaussian for each number of steps."""
    errors = []
    for n in steps:
        path = levels(n)
        first, last = path[0].sigma, path[-1].sigma
        mean, variance = propagate(solver, CFG(1.0), path, PAIR, PAIR.mean, PAIR.std**2 + float(first) ** 2)
        errors.append(
            math.hypot(float(mean) - PAIR.mean, math.sqrt(float(variance)) - math.hypot(PAIR.std, float(last)))
        )
    # guided, from pure noise
    mean, variance = propagate(solver, CFG(weight), path, PAIR, 0.0, float(first) ** 2)
    row = {
        "solver": to_text(solver),
        "stated": solver.order,
        "order": round(power(steps, errors), 3),
        "order_before": round(power(steps[:-1], errors[:-1]), 3) if len(steps) > 2 else None,
        "evaluations": solver.evaluations,
        "error": float(f"{errors[-1]:.4g}"),
        "guided_mean": round(float(mean), 4),
        "guided_std": round(math.sqrt(float(variance)), 4),
    }
    return row, errors
