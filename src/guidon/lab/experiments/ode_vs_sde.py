"""Where the same guidance weight leads by the ODE, by the SDE, and where the powered density lies: three places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from guidon import registry
from guidon.errors import BadValue
from guidon.lab.drawing import color, curve, panels, plain
from guidon.lab.endpoints import counterexample
from guidon.lab.experiment import Experiment, Findings, Row, Track, quietly
from guidon.lab.line import extrapolated, moments, normal, powers
from guidon.registry import register
from guidon.solvers import DDIM, DDPM, Heun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOLVERS = (DDPM(), DDIM(), Heun())


@register("experiment", "ode-vs-sde")
@dataclass(frozen=True)
class OdeVsSde(Experiment):
    """Variances of guided samples of a Gaussian by DDPM and DDIM, beside that of the powered density.

    Classifier-free guidance is often said to sample the *powered* (sharpened) density p(x | c)^γ p(x)^(1 − γ). It mixes scores as
    if it did, at every noise level, but noising does not commute with powers: the powered densities of noisy images are not noisy
    versions of one powered density of images. So what comes out depends on the sampler, even with exact scores and infinitely
    many steps.

    Here everything is Gaussian: p(x | c) = N(0, 1) and p(x) = N(0, 2), noised by adding noise (variance exploding), with the guidance
    weight γ, for which 1 is plain conditional. The powered density has the variance 2 / (γ + 1), DDPM (the reverse SDE) ends with
    (2 − 2^(2 − 2γ)) / (2γ − 1), DDIM (the probability-flow ODE) with 2^(1 − γ). The closed forms are compared with what the solvers do in
    N steps. Beliefs are linear here, so that a whole run is an affine map of the start and of each draw of noise, and its variance
    is computed to rounding error instead of being estimated from samples.

    For a user: a weight belongs to a sampler. By the closed forms the same number above 1 leaves the ODE narrower than the SDE, and both
    narrower than the powered density; change the sampler, and the weight should be searched again.

    Args:
        weights: γ, each from 1 to 100.
        steps: numbers of steps, rising; each at least 2.

    Raises:
        BadValue: nothing to measure, a weight outside 1 to 100, or steps that do not rise.
    """

    page: ClassVar[int] = 1
    title: ClassVar[str] = "ODE, SDE and the powered density"
    asks: ClassVar[str] = (
        "Do DDIM and DDPM under the same guidance weight sample the same distribution, and is it the powered one?"
    )
    sources: ClassVar[tuple[str, ...]] = (
        "bradley2024predictor",
        "ho2022classifier",
        "song2021denoising",
        "ho2020denoising",
    )

    weights: tuple[float, ...] = (2.0, 3.0, 5.0, 7.0)
    steps: tuple[int, ...] = (32, 64, 128, 256, 512)

    def __post_init__(self) -> None:
        if not self.weights or not all(1 <= weight <= 100 for weight in self.weights):
            raise BadValue(f"ode-vs-sde needs weights from 1 to 100, got {list(self.weights)}")
        if not self.steps or self.steps[0] < 2 or any(a >= b for a, b in itertools.pairwise(self.steps)):
            raise BadValue(f"ode-vs-sde needs rising numbers of steps from 2, got {list(self.steps)}")

    def run(self, track: Track[Any] = quietly) -> Findings:
        cases = list(itertools.product(SOLVERS, self.weights, self.steps))
        runs: list[Row] = []
        for solver, weight, steps in track(cases, "runs"):
            _, ddpm, ddim = counterexample(weight)
            exact, measured = ddpm if solver.stochastic else ddim, moments(solver, weight, steps)[1]
            runs.append(
                {
                    "solver": registry.to_text(solver),
                    "weight": weight,
                    "steps": steps,
                    "variance": measured,
                    "closed form": exact,
                    "relative error": abs(measured / exact - 1),
                }
            )
        table = [self._row(weight, runs) for weight in self.weights]
        figures = {"": _densities(table), "convergence": _convergence(runs)}
        return Findings(self._sees(table, runs), {"variances": table, "convergence": runs}, figures)

    def _row(self, weight: float, runs: Sequence[Row]) -> Row:
        """Return the closed forms at a weight, and what each solver tends to, by its last two numbers of steps."""
        powered, ddpm, ddim = counterexample(weight)
        row: dict[str, float] = {"weight": weight, "powered": powered, "ddpm": ddpm, "ddim": ddim}
        for solver in SOLVERS:
            name = registry.to_text(solver)
            mine = [run for run in runs if (run["solver"], run["weight"]) == (name, weight)]
            row[f"{name} in {mine[-1]['steps']} steps"] = mine[-1]["variance"]
            row[f"{name} extrapolated"] = extrapolated(
                [run["steps"] for run in mine], [run["variance"] for run in mine], solver.order
            )
        return {**row, "ddim weight for powered": 1 - math.log2(powered)}

    def _sees(self, table: Sequence[Row], runs: Sequence[Row]) -> list[str]:
        row, above = table[-1], [row for row in table if row["weight"] > 1]
        sees = [
            f"At weight {row['weight']:g} the powered density has the variance {row['powered']:.4f}, DDPM tends to {row['ddpm']:.4f} "
            f"and DDIM to {row['ddim']:.4f}."
        ]
        if above:
            same = sum(row["heun extrapolated"] < row["ddpm extrapolated"] < row["powered"] for row in above)
            sees.append(
                f"Measured, `heun` ends narrower than `ddpm` and `ddpm` narrower than the powered density at {same} of {len(above)} "
                "weights above 1."
            )
        for solver in SOLVERS:
            name = registry.to_text(solver)
            mine = [run for run in runs if run["solver"] == name]
            worst = max(run["relative error"] for run in mine if run["steps"] == self.steps[-1])
            said = (
                f"`{name}` in {self.steps[-1]} steps is within {100 * worst:.2g} % of its closed form at every weight"
            )
            if len(self.steps) > 1:
                low, high = powers(mine)
                off = max(
                    abs(row[f"{name} extrapolated"] / row["ddpm" if solver.stochastic else "ddim"] - 1) for row in table
                )
                said += (
                    f"; from {self.steps[-2]} steps on its error falls as N to the power of −{low:.2f} to −{high:.2f}, and "
                    f"extrapolated by its order {solver.order} it is within {100 * off:.2g} %"
                )
            sees.append(said + ".")
        few = next(run for run in runs if (run["solver"], run["weight"]) == ("ddpm", row["weight"]))
        if above:
            sees.append(
                f"For the variance of the powered density at γ = {row['weight']:g} the ODE needs the weight "
                f"{row['ddim weight for powered']:.3g}."
            )
        sees.append(
            f"Few steps make DDPM {'narrower' if few['variance'] < few['closed form'] else 'wider'} than it is in the limit: with "
            f"{few['steps']} at weight {row['weight']:g} the variance is {few['variance']:.4f} in place of {few['closed form']:.4f}."
        )
        return sees


def _densities(table: Sequence[Row]) -> Figure:
    columns = min(len(table), 2)
    figure, axes = panels(math.ceil(len(table) / columns), columns, width=4.5, height=2.7)
    for panel, row in zip(axes.flat, table, strict=False):
        curve(panel, normal(0.0, 1.0), -3, 3, label="p(x | c), variance 1")
        for index, name in enumerate(("powered", "ddpm", "ddim")):
            variance = row[name]
            label = f"{ {'powered': 'powered', 'ddpm': 'DDPM (SDE)', 'ddim': 'DDIM (ODE)'}[name] }, {variance:.4f}"
            curve(panel, normal(0.0, variance**0.5), -3, 3, color=color(index), linewidth=1.6, label=label)
        plain(panel, f"weight {row['weight']:g}", "x", "density", legend=True)
    for panel in axes.flat[len(table) :]:
        panel.set_visible(False)
    return figure


def _convergence(runs: Sequence[Row]) -> Figure:
    figure, axes = panels(1, 3, height=3.0, sharey=True)
    for panel, solver in zip(axes.flat, dict.fromkeys(row["solver"] for row in runs), strict=True):
        mine = [row for row in runs if row["solver"] == solver]
        for index, weight in enumerate(dict.fromkeys(row["weight"] for row in mine)):
            line = [row for row in mine if row["weight"] == weight]
            steps, errors = [row["steps"] for row in line], [row["relative error"] for row in line]
            panel.loglog(
                steps, errors, color=color(index), marker="o", markersize=3, linewidth=1.2, label=f"weight {weight:g}"
            )
        order = registry.parse("solver", solver).order
        guide = [errors[-1] * (steps[-1] / n) ** order * 0.35 for n in steps]
        label = f"slope of 1/N{'' if order == 1 else f'^{order}'}"
        panel.loglog(steps, guide, color="0.5", linewidth=0.8, linestyle="--", label=label)
        plain(panel, solver, "steps N", "relative error of the variance" if panel is axes[0, 0] else "", legend=True)
        panel.set_xticks(steps, [str(n) for n in steps], minor=False)
        panel.minorticks_off()
    return figure
