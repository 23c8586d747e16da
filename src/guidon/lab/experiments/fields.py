"""Where a rule leads from every point of the plane, and what arrives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from guidon import registry
from guidon.errors import BadValue
from guidon.lab import drawing
from guidon.lab.distance import apart, chance, exact_draws
from guidon.lab.experiment import Experiment, Findings, Track, quietly
from guidon.lab.flow import LATTICE, REACH, Flow, flows
from guidon.lab.plane import CLASS, CLASSES, WEIGHTS, Plane, mixture
from guidon.noise import EDM, Level
from guidon.noise.grids import Karras
from guidon.registry import register, to_text
from guidon.sampling import PerImageNoise
from guidon.sampling.trajectory import Event
from guidon.solvers import Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PATHS = 32  # points whose way is drawn


@register("experiment", "fields")
@dataclass(frozen=True)
class Fields(Experiment):
    """Flow, paths and final densities of rules side by side, in a plane where the truth is known.

    The plane holds three classes of two or three Gaussian components, and the beliefs about them are formulas. Whatever a rule
    asks for is there: the other classes as negative and further conditions, a worse network whose components have four times
    the variance (`weak`), perturbed networks and an inner head with twice the variance, and the exact classifier. So any rule
    can be given, in the text form of the command line; only those that need an image with height and width are refused.

    The flow is where the rule's own solver leads in one step from each point, without noise, drawn over the density of the class at
    that noise level; with a solver of the ODE these are the streamlines of the guided ODE. The paths are runs from pure
    noise, in the scale of a variance-preserving process. The points that arrive are compared with exact draws of the class by the
    sliced Wasserstein-2 distance, which two sets of exact draws have too, by chance; with its exact spread and the exact weights of
    its modes; and by the share that looks like another class to the exact posterior. The posterior compares classes only: a
    point far outside of all of them still looks like one, so read it beside the distance.

    Beliefs are exact here, so plain conditional sampling is right and every guidance moves away from the truth. What a
    rule has to offer to a real, imperfect network cannot be read here. What can be read is its price: whether it gives up
    modes, and how narrow it makes the others.

    Args:
        rules: in their text form.
        rule: one to compare with cfg(1), instead of ``rules``.
        solver: in its text form; a rule that works with solvers of its own only is given the first of them.
        steps: of each run, from noise level 80 to the clean image.
        points: how many to draw.
        label: the class that is given, 0 to 2.
        noise_levels: at which to look at the flow.
    """

    page: ClassVar[int] = 9
    title: ClassVar[str] = "Flow fields and what arrives"
    asks: ClassVar[str] = "Which way does a rule push, and what is left of the class in the end?"
    sources: ClassVar[tuple[str, ...]] = (
        "ho2022classifier",
        "kynkaanniemi2024interval",
        "karras2024guiding",
        "sadat2025eliminating",
    )

    rules: tuple[str, ...] = ("cfg(1)", "cfg(3)", "cfg(3, when=interval(0.1, 0.7))", "autoguidance(3)", "cfg(6) | apg")
    rule: str = ""
    solver: str = "heun"
    steps: int = 40
    points: int = 2000
    label: int = 0
    noise_levels: tuple[float, ...] = (1.5, 0.7, 0.35, 0.15)

    def __post_init__(self) -> None:
        if not 0 <= self.label < CLASSES:
            raise BadValue(f"fields knows the classes 0 to {CLASSES - 1}, got {self.label}")
        if not all(0.002 < level < 80 for level in self.noise_levels) or not self.noise_levels:
            raise BadValue(f"fields looks at noise levels between 0.002 and 80, got {self.noise_levels}")
        if self.points < 2 or not (self.rules or self.rule):
            raise BadValue("fields needs at least two points and one rule")
        for text in self.shown:
            registry.parse("rule", text)
        registry.parse("solver", self.solver)

    @property
    def shown(self) -> tuple[str, ...]:
        """The rules to compare, in their text form."""
        return ("cfg(1)", self.rule) if self.rule else self.rules

    def run(self, track: Track[Any] = quietly) -> Findings:
        plane, draws = Plane(self.label), exact_draws(partial(mixture().sample, self.points, self.label), 0)
        truth = self._truth(draws)
        shown = [self._watch(plane, text) for text in track(self.shown, "rules")]
        rows = [self._row(one, draws) for one in shown]
        return Findings(
            self._sees(rows, truth, chance(draws)[1]),
            {"rules": [truth, *rows]},
            {"": self._ends_figure(shown), "flow": self._flow_figure(shown)},
        )

    def _watch(self, plane: Plane, text: str) -> Shown:
        rule = registry.parse("rule", text)
        solver = (
            registry.lookup("solver", rule.only_with[0])() if rule.only_with else registry.parse("solver", self.solver)
        )
        levels = Karras(7.0, 0.002, 80.0).levels(EDM(), self.steps)
        start = PerImageNoise(range(self.points), (2,), dtype=torch.float64)() * levels[0].sigma
        path: list[Tensor] = []

        def look_on(event: Event) -> None:
            if event.at.began is None:
                x = next(iter(event.predictions.values())).x[:PATHS]
                path.append(x / math.hypot(event.at.here.alpha, event.at.here.sigma))

        run = plane.run(rule, solver, levels, start, range(self.points), look_on)
        found = flows(plane, rule, solver, levels, self.noise_levels)
        return Shown(text, solver, torch.stack([*path, run.x[:PATHS]]), run.x, run.nfe, found)

    def _row(self, one: Shown, draws: Sequence[Tensor]) -> dict[str, Any]:
        parts, clean = mixture(classes=range(len(CLASS))), EDM().clean  # every component a class of its own
        own = mixture().log_posterior(one.ends, clean, torch.full((len(one.ends),), self.label))
        shares = [
            float((parts.log_posterior(one.ends, clean, torch.full((len(one.ends),), k)) - own).exp().mean())
            for k, label in enumerate(CLASS)
            if label == self.label
        ]
        spread = one.ends.var(0).sum().sqrt() / _spread(self.label)
        return {
            "rule": one.text,
            "solver": to_text(one.solver),
            "evaluations": one.nfe,
            "w2": round(apart(one.ends, draws), 4),
            "spread": round(float(spread), 4),
            **{f"mode_{k + 1}": round(share, 4) for k, share in enumerate(shares)},
            "looks_other": round(float(-torch.expm1(own).mean()), 4),
        }

    def _truth(self, draws: Sequence[Tensor]) -> dict[str, Any]:
        """Return the row of the class itself: exact, but for what chance makes of exact draws."""
        own = [weight for weight, label in zip(WEIGHTS, CLASS, strict=True) if label == self.label]
        every = torch.cat(list(draws))
        posterior = mixture().log_posterior(every, EDM().clean, torch.full((len(every),), self.label))
        return {
            "rule": "truth",
            "solver": None,
            "evaluations": None,
            "w2": round(chance(draws)[0], 4),
            "spread": 1.0,
            **{f"mode_{k + 1}": round(weight / sum(own), 4) for k, weight in enumerate(own)},
            "looks_other": round(float(-torch.expm1(posterior).mean()), 4),
        }

    def _sees(self, rows: Sequence[dict[str, Any]], truth: dict[str, Any], largest: float) -> list[str]:
        near, far = (choose(rows, key=lambda row: row["w2"]) for choose in (min, max))
        modes = [key for key in truth if key.startswith("mode_")]
        lost = {row["rule"]: min((row[mode] / truth[mode], mode) for mode in modes) for row in rows}
        worst = min(lost, key=lambda name: lost[name])
        share, mode = lost[worst]
        narrow, wide = (choose(rows, key=lambda row: row["spread"]) for choose in (min, max))
        inside, outside = (choose(rows, key=lambda row: row["looks_other"]) for choose in (min, max))
        return [
            f"Two sets of {self.points} exact draws of the class are {truth['w2']:.3f} apart on average (sliced W2, ten pairs), "
            f"{largest:.3f} at most. `{near['rule']}` comes nearest "
            f"to the truth, at {near['w2']:.3f}"
            + (f"; `{far['rule']}` is farthest, at {far['w2']:.3f}." if far is not near else "."),
            f"A mode suffers most under `{worst}`: {mode.replace('_', ' ')} has a share of {truth[mode]:.3f} in the class, and of "
            f"{truth[mode] * share:.3f} in what arrives.",
            f"The spread of what arrives is {narrow['spread']:.2f} of the true one under `{narrow['rule']}`"
            + (f" and {wide['spread']:.2f} under `{wide['rule']}`." if wide is not narrow else "."),
            f"By the exact posterior {truth['looks_other']:.2%} of true draws look like another class. Of what arrives it is "
            f"{inside['looks_other']:.2%} under `{inside['rule']}`, at a distance of {inside['w2']:.3f}"
            + (
                f", and {outside['looks_other']:.2%} under `{outside['rule']}`, at {outside['w2']:.3f}."
                if outside is not inside
                else "."
            ),
        ]

    def _ends_figure(self, shown: Sequence[Shown]) -> Figure:
        figure, panels = drawing.panels(2, len(shown), width=_width(len(shown)), height=_width(len(shown)) + 0.25)
        side: drawing.Extent = (-REACH, REACH, -REACH, REACH)
        for i, (one, (above, below)) in enumerate(zip(shown, panels.T, strict=True)):
            for axes in (above, below):
                for label in range(CLASSES):
                    style = {} if label == self.label else {"colors": "0.8"}
                    drawing.outline(axes, _log_density(label, EDM().clean), side, **style)
            above.plot(*one.path.unbind(-1), color=drawing.color(i), linewidth=0.6, alpha=0.7)
            above.plot(*one.path[-1].T, ".", color=drawing.color(i), markersize=3)
            above.set_title(_broken(one.text), fontsize=8)
            below.plot(*one.ends.T, ".", color=drawing.color(i), markersize=2, alpha=0.35, markeredgewidth=0)
        panels[0][0].set_ylabel("paths from noise", fontsize=8)
        panels[1][0].set_ylabel("where they end", fontsize=8)
        figure.suptitle("Dark lines: the true density of the class; light lines: the other classes", fontsize=9)
        return figure

    def _flow_figure(self, shown: Sequence[Shown]) -> Figure:
        figure, panels = drawing.panels(len(shown), len(self.noise_levels), width=2.25, height=2.3)
        for i, (one, row) in enumerate(zip(shown, panels, strict=True)):
            for flow, axes in zip(one.flows, row, strict=True):
                drawing.shade(axes, _log_density(self.label, flow.level), flow.extent, points=100)
                x, y, _ = drawing.lattice(flow.extent, LATTICE)
                u, v = flow.moves.reshape(LATTICE, LATTICE, 2).unbind(-1)
                axes.streamplot(
                    x.numpy(),
                    y.numpy(),
                    u.numpy(),
                    v.numpy(),
                    color=drawing.color(i),
                    density=0.75,
                    linewidth=0.7,
                    arrowsize=0.6,
                )
                drawing.square(axes, flow.extent)
                if i == 0:
                    axes.set_title(f"noise level {flow.level.noise_level:.2g}", fontsize=9)
            row[0].set_ylabel(_broken(one.text), fontsize=8)
        figure.suptitle("One step of the solver, without noise, over the density of the class", fontsize=9)
        return figure


@dataclass(frozen=True, eq=False)
class Shown:
    """What was seen of a rule.

    Args:
        text: its text form.
        solver: that it was run with.
        path: (evaluations, PATHS, 2) states on their way, in the scale of a variance-preserving process.
        ends: (points, 2) where all ended.
        nfe: network evaluations of a point.
        flows: one for each noise level.
    """

    text: str
    solver: Solver
    path: Tensor
    ends: Tensor
    nfe: float
    flows: Sequence[Flow]


def _spread(label: int) -> float:
    """Return the root of the sum of a class's variances along both axes."""
    truth = mixture()
    own = truth.component_class == label
    weights = truth.log_weights[own].softmax(0)[:, None]
    mean = (weights * truth.means[own]).sum(0)
    return float((weights * (truth.variances[own] + (truth.means[own] - mean) ** 2)).sum().sqrt())


def _log_density(label: int, level: Level) -> Any:
    """Return log p(x_t | class) as a function of points (N, 2) in x / alpha, up to a number."""
    return lambda z: mixture().log_density(z * level.alpha, level.alpha, level.sigma, torch.full((len(z),), label))


def _width(columns: int) -> float:
    return min(3.2, 9.4 / columns)


def _broken(text: str) -> str:
    """Return a rule in lines short enough for a panel."""
    return text.replace(", when", ",\nwhen").replace(" | ", "\n| ")
