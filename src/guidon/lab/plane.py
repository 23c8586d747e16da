"""Three classes in the plane, and all that a rule may ask about them, exactly: worse networks, a classifier, conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.guidance import Rule
from guidon.lab.mixture import NULL_LABEL, Exact, ExactClassifier, Mixture
from guidon.noise import Level, Prediction
from guidon.perturbation import Perturbation
from guidon.sampling import Denoises, Engine, PerImageNoise, Trajectory
from guidon.sampling.trajectory import Event, Told
from guidon.solvers import Solver

WEIGHTS = (0.16, 0.12, 0.06, 0.18, 0.15, 0.18, 0.15)
MEANS = ((0.95, 0.55), (-0.35, 1.15), (0.15, -0.3), (-1.25, -0.1), (-0.6, -1.05), (1.35, -0.7), (0.5, -1.25))
SPREADS = (  # deviations along the axes of a component, and their angle
    (0.36, 0.17, 0.5),
    (0.25, 0.25, 0.0),
    (0.20, 0.20, 0.0),
    (0.24, 0.40, 0.2),
    (0.32, 0.20, -0.4),
    (0.20, 0.34, 0.3),
    (0.28, 0.19, 0.0),
)
CLASS = (0, 0, 0, 1, 1, 2, 2)
CLASSES = 3
WORSE = 4.0  # times the variances, in the network "weak"
PERTURBED = 2.0  # times the variances, in a perturbed network and at its inner head


def mixture(inflated: float = 1.0, classes: Sequence[int] = CLASS) -> Mixture:
    """Return the three classes, of three, two and two components.

    Args:
        inflated: times the variances; more than 1 is a worse model.
        classes: of each component; 0, 1, 2, ... makes every one a class of its own.
    """
    weights, means, spreads = (torch.tensor(part, dtype=torch.float64) for part in (WEIGHTS, MEANS, SPREADS))
    cos, sin = spreads[:, 2].cos(), spreads[:, 2].sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
    cov = turn @ torch.diag_embed(spreads[:, :2] ** 2) @ turn.mT
    return Mixture(weights, means, cov * inflated, torch.tensor(classes))


class Weakenable(Exact):
    """The perfect network of the plane, which also offers every perturbation and an inner head: a worse model, exactly."""

    has_inner = True

    def __init__(self) -> None:
        super().__init__(mixture())
        self.worse = mixture(PERTURBED)

    def check(self, perturbation: Perturbation) -> None:
        """Offer every perturbation."""

    def __call__(
        self, x: Tensor, level: Level, context: Context, perturbed: Sequence[tuple[Perturbation, slice]] = ()
    ) -> Prediction:
        """Return what is believed at ``x`` (B, 2), by the worse model in the rows that are perturbed."""
        assert context.vector is not None
        labels = context.vector[:, :1].round().clamp(NULL_LABEL, CLASSES - 1)  # a blurred class may be another one
        told = super().__call__(x, level, Context(vector=labels))
        worse = Prediction(x, level, *self.worse.believe(x, level.alpha, level.sigma, labels[:, 0]))
        x0, eps = told.x0.clone(), told.eps.clone()
        for _, rows in perturbed:
            x0[rows], eps[rows] = worse.x0[rows], worse.eps[rows]
        return replace(told, x0=x0, eps=eps, inner=worse)


@dataclass(frozen=True)
class Plane:
    """Runs any rule on points of the plane, all of one class.

    Args:
        label: the class that is given; "negative" and the other conditions of rules are the classes after it, in turn.
    """

    label: int = 0

    def networks(self) -> dict[str, Denoises]:
        """Return the exact network, a worse one with inflated variances, and the exact classifier."""
        classifier: object = ExactClassifier(mixture())
        return {"main": Weakenable(), "weak": Exact(mixture(WORSE)), "classifier": classifier}  # type: ignore[dict-item]

    def contexts(self, count: int) -> dict[str, Told]:
        """Return every condition that a rule may ask with, for so many points."""

        def told(label: int) -> Context:
            ids = torch.full((count, 1), float(label), dtype=torch.float64)
            # three numbers, so that a blur that keeps their mean and deviation keeps the class, the first of them
            return Context(vector=torch.cat([ids, ids + 0.2, ids + 0.4], 1))

        def other(by: int) -> Context:
            return told((self.label + by) % CLASSES)

        names = {"negative": 1, "negative-2": 2, "also": 1, "also-2": 2, "also-3": 1, "partial": 2}
        return {
            "given": told(self.label),
            "null": told(NULL_LABEL),
            "random": lambda step: other(1 + step % (CLASSES - 1)),
            **{name: other(by) for name, by in names.items()},
        }

    def run(
        self,
        rule: Rule,
        solver: Solver,
        levels: Sequence[Level],
        start: Tensor,
        seeds: Sequence[int],
        look_on: Callable[[Event], None] | None = None,
    ) -> Trajectory:
        """Take states ``start`` (B, 2) at the first level to their end; any noise on the way is that of their seeds."""
        noise, rows = (PerImageNoise([seed + by for seed in seeds], (2,), dtype=torch.float64) for by in (10**6, 10**7))
        told = self.contexts(len(start))
        trajectory = Trajectory(start, levels, solver, rule, told, noise, row_noise=rows.of_shape, look_on=look_on)
        Engine(self.networks()).run([trajectory])
        return trajectory
