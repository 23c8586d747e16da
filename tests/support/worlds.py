"""A world in which every rule finds all that it may ask for, each part of it exact: networks, a classifier, conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.guidance import Rule
from guidon.noise import Level, Output, Prediction, Process
from guidon.noise.grids import Karras
from guidon.perturbation import Perturbation
from guidon.registry import lookup, to_text
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.sampling.trajectory import Event
from guidon.solvers import Euler, Solver
from support.mixtures import NULL_LABEL, Exact, ExactClassifier, Mixture

CLASSES = 5
SHAPE = (2, 8, 6)


def mixture(inflated: float = 1.0) -> Mixture:
    """Return five classes of small images, two components each; a worse model of them has inflated variances."""
    g = torch.Generator().manual_seed(11)
    means, var = (
        torch.randn(2 * CLASSES, *SHAPE, generator=g),
        0.05 + 0.2 * torch.rand(2 * CLASSES, *SHAPE, generator=g),
    )
    return Mixture(torch.ones(2 * CLASSES) / (2 * CLASSES), means, var * inflated, torch.arange(2 * CLASSES) // 2)


INFLATED = {"attention-identity": 1.5, "query-blur": 2.0, "skip": 2.5, "time-noise": 3.0}


class Weakenable(Exact):
    """An exact network that offers every perturbation, and an inner head: worse models of the same classes."""

    has_inner = True

    def __init__(self, output: Output | None = None, varied: bool = False) -> None:
        super().__init__(mixture(), output)
        self.varied = varied
        self.weakened = {name: mixture(factor) for name, factor in INFLATED.items()}
        self.halfway = mixture(4.0)
        self.asked: list[Tensor] = []

    def check(self, perturbation: Perturbation) -> None:
        assert perturbation.name in INFLATED

    def __call__(
        self, x: Tensor, level: Level, context: Context, perturbed: Sequence[tuple[Perturbation, slice]] = ()
    ) -> Prediction:
        assert context.vector is not None
        context = Context(
            vector=context.vector.round().clamp(NULL_LABEL, CLASSES - 1)
        )  # a blurred class may be another one
        plain = super().__call__(x, level, context)
        x0 = plain.x0.clone()
        for perturbation, rows in perturbed:
            x0[rows] = self._by(self.weakened[perturbation.name], x, level, context).x0[rows]
        inner = self._by(self.halfway, x, level, context)
        told = Prediction.from_x0(x, x0, level) if perturbed else plain
        fraction = None
        if self.varied:
            fraction = torch.zeros_like(x) + 0.1 * (context.vector[:, 0] + 2).reshape(-1, 1, 1, 1)
            inner = replace(inner, variance_fraction=fraction + 0.01)
            for i, (_, rows) in enumerate(perturbed, start=1):
                fraction[rows] += 0.02 * i
        return replace(told, inner=inner, variance_fraction=fraction)

    def _by(self, other: Mixture, x: Tensor, level: Level, context: Context) -> Prediction:
        assert context.vector is not None
        return Prediction(x, level, *other.believe(x, level.alpha, level.sigma, context.vector[:, 0].long()))


@dataclass
class World:
    """Runs rules on a few images.

    Args:
        process, solver: of the runs.
        steps: of the runs.
        output: what the networks' raw tensors mean; None: they give x0 and eps.
        fraction: whether the main network also gives a learned variance, another one for each branch.
    """

    process: Process
    solver: Solver = field(default_factory=Euler)
    steps: int = 6
    output: Output | None = None
    fraction: bool = False

    def __post_init__(self) -> None:
        self.main, self.weak = (
            Weakenable(self.output, self.fraction),
            Exact(mixture(3.0), self.output, 0.7 if self.fraction else None),
        )
        self.networks = {"main": self.main, "weak": self.weak, "classifier": ExactClassifier(mixture())}

    def trajectory(self, rule: Rule, labels: Sequence[int], seeds: Sequence[int], **more: object) -> Trajectory:
        levels = Karras(sigma_min=0.05, sigma_max=8.0).levels(self.process, self.steps)
        solver = lookup("solver", rule.only_with[0])() if rule.only_with else self.solver
        noise = PerImageNoise(seeds, SHAPE, dtype=torch.float64)
        rows = PerImageNoise([seed + 1000 for seed in seeds], SHAPE, dtype=torch.float64)
        x = noise() * self.process.start_scale(levels[0])
        return Trajectory(x, levels, solver, rule, conditions(labels, seeds), noise, row_noise=rows.of_shape, **more)  # type: ignore[arg-type]

    def run(self, rule: Rule, labels: Sequence[int], seeds: Sequence[int], **engine: object) -> Tensor:
        """Return the images."""
        return Engine(self.networks, **engine).run([self.trajectory(rule, labels, seeds)])[0]  # type: ignore[arg-type]

    def watched(self, rule: Rule, labels: Sequence[int], seeds: Sequence[int]) -> tuple[Tensor, list[Event], Engine]:
        """Return the images, every event, and the engine."""
        events: list[Event] = []
        engine = Engine(self.networks)
        x = engine.run([self.trajectory(rule, labels, seeds, look_on=events.append)])[0]
        return x, events, engine


def conditions(labels: Sequence[int], seeds: Sequence[int]) -> dict[str, object]:
    """Return every condition that a rule may ask with; each image's own, so that neighbours do not matter."""
    given = torch.as_tensor(list(labels))

    def told(ids: Tensor) -> Context:
        # wide enough that a blurred condition keeps its class: the first of three numbers is read
        ids = ids.double().reshape(-1, 1)
        return Context(vector=torch.cat([ids, ids + 0.2, ids + 0.4], dim=1))

    def random(index: int) -> Context:
        return told(torch.tensor([(label + 1 + (seed + index) % (CLASSES - 1)) % CLASSES for label, seed in pairs]))

    pairs = list(zip(labels, seeds, strict=True))
    shifted = {"negative": 1, "negative-2": 2, "also": 2, "also-2": 3, "also-3": 1, "partial": 4}
    return {
        "given": told(given),
        "null": told(torch.full_like(given, NULL_LABEL)),
        "random": random,
        **{name: told((given + by) % CLASSES) for name, by in shifted.items()},
    }


def named(rule: Rule) -> str:
    """Return a rule's text form, as the name of a test case."""
    return to_text(rule)
