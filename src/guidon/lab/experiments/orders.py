"""How fast every solver converges, with guidance and without."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from guidon import registry
from guidon.errors import BadValue
from guidon.lab import drawing, endpoints
from guidon.lab.convergence import PAIR, Run, Starts, followers, in_distribution, noises
from guidon.lab.experiment import Experiment, Findings, Track, quietly
from guidon.registry import register, to_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAR = 0.15  # how far a measured order may be from a stated one
SHOWN = ("euler", "heun", "dpmpp-2m", "dpmpp-3m", "deis(3)", "lms", "unipc")  # with colours in the picture of costs


@register("experiment", "orders")
@dataclass(frozen=True)
class Orders(Experiment):
    """The order of convergence of every solver, with guidance and without.

    The world is a mixture of Gaussians in the plane, three classes of two or three components, whose beliefs are formulas at
    every noise level. So nothing but the solver is wrong: points start at noise level 80 and follow the guided
    probability-flow ODE to 0.002 (EDM's range, on Karras' levels), and an adaptive integrator of order 8 says where they should end.

    With twice as many steps the error of a solver of order p falls by 2^p. The measured order is the slope of the median
    error over the last refinement; solvers with a share `eta` of noise take part with none. Guidance does not change an order,
    for it only makes another, equally smooth right-hand side of the ODE; what it changes is the size of the error.
    Multistep solvers begin with steps of lower order, and some end with such (`end="lower"`). Where a run begins in nearly pure
    noise and ends in nearly none these steps cost little, so that the order of all the others is what one measures; with many
    steps of a high order they begin to show, and the measured order is less than the stated one.

    A stochastic solver does not follow a path, so its order is one of distributions: of the W2 distance between the Gaussian
    that it ends with, exactly propagated through every step, and the true one. Beliefs are linear there, so what a solver makes
    of curved ones is not seen. `langevin` states 0, since it needs more corrections at a level, not more levels. Under guidance
    there is no true one: those that draw as much noise as DDPM end where the reverse SDE does, not where the ODE does.

    Args:
        steps: of the runs; orders are measured from the last but one to the last.
        noisy_steps: the same for stochastic solvers; both at least two, rising from 2 or more.
        weight: of the guided runs, by cfg; not 1, at most 100.
        points: how many points of each class, >= 1.
        evaluations: how many evaluations of the guided belief a run may take where the table compares errors, >= 2; each asks the
            network twice.

    Raises:
        BadValue: a setting out of its range.
    """

    page: ClassVar[int] = 7
    title: ClassVar[str] = "The order of every solver"
    asks: ClassVar[str] = "Does every solver converge at the order it states, and does guidance change that?"
    sources: ClassVar[tuple[str, ...]] = ("karras2022elucidating", "lu2022dpmsolver", "zhao2023unipc")

    steps: tuple[int, ...] = (12, 24, 48, 96, 288, 576)
    noisy_steps: tuple[int, ...] = (24, 48, 96, 192)
    weight: float = 3.0
    points: int = 8
    evaluations: int = 20

    def __post_init__(self) -> None:
        for steps in (self.steps, self.noisy_steps):
            if len(steps) < 2 or steps[0] < 2 or any(fine <= coarse for coarse, fine in itertools.pairwise(steps)):
                raise BadValue(
                    f"orders needs at least two numbers of steps from 2, each larger than the one before, got {steps}"
                )
        if self.weight == 1:
            raise BadValue("orders compares guided runs with those of weight 1; give another weight")
        if not 0 <= self.weight <= 100:
            raise BadValue(f"orders needs a weight from 0 to 100, got {self.weight}")
        if self.points < 1 or self.evaluations < 2:
            raise BadValue(f"orders needs points >= 1 and evaluations >= 2, got {self.points} and {self.evaluations}")

    def run(self, track: Track[Any] = quietly) -> Findings:
        solvers, world = followers(), Starts.of(self.points, (1.0, self.weight))
        runs = [world.measure(solver, self.steps, self.evaluations) for solver in track(solvers, "solvers")]
        noisy = [in_distribution(solver, self.noisy_steps, self.weight) for solver in track(noises(), "noise")]
        rows = [run.row() for run in runs]
        return Findings(
            self._sees(rows, noisy),
            {"deterministic": rows, "stochastic": [row for row, _ in noisy], "others": _others()},
            {
                "": _orders_figure(runs, self.weight),
                "cost": _cost_figure(runs),
                "noise": _noise_figure(noisy, self.noisy_steps),
            },
        )

    def _sees(self, rows: Sequence[dict[str, Any]], noisy: Sequence[tuple[dict[str, Any], list[float]]]) -> list[str]:
        names = {how: [f"`{row['solver']}`" for row in rows if _holds(row) == how] for how in ("at", "above", "below")}
        change = max(rows, key=lambda row: abs(row["order_guided"] - row["order"]))
        best = min(rows, key=lambda row: row["error_guided"])
        growth = statistics.median(row["error_guided"] / row["error"] for row in rows)
        euler = next(row for row in rows if row["solver"] == "euler")
        says = [
            f"{len(names['at'])} of {len(rows)} solvers and variants converge within {NEAR} of their stated order, with guidance "
            f"and without."
            + _list(" Faster than stated: ", names["above"])
            + _list(" Slower than stated: ", names["below"]),
            f"Guidance with weight {self.weight:g} moves a measured order by {abs(change['order_guided'] - change['order']):.2f} at "
            f"most (`{change['solver']}`).",
            f"Within {self.evaluations} guided evaluations `{best['solver']}` is nearest to the ODE, with a median error of "
            f"{best['error_guided']:.1e}; `euler` is at {euler['error_guided']:.1e}. "
            f"As often asked, the solvers' errors are {growth:.1f} times those without guidance (median).",
        ]
        found = [row for row, _ in noisy if row["stated"] == 1]
        near = [row for row in found if abs(row["order"] - 1) <= NEAR]
        coming = [row for row in found if row not in near and _nearing(row)]
        rest = [row for row in found if row not in near and row not in coming]
        slow, fast = (
            [f"`{row['solver']}` ({row['order']:.2f})" for row in rest if (row["order"] < 1) == few] for few in (1, 0)
        )
        says.append(
            f"Of {len(found)} stochastic solvers that state order 1 in distribution, {len(near)} are within {NEAR} of it at "
            f"{self.noisy_steps[-1]} steps."
            + _list(
                " Not there yet: ",
                [
                    f"`{row['solver']}` ({row['order']:.2f}, a refinement before {row['order_before']:.2f})"
                    for row in coming
                ],
            )
            + _list(" Faster: ", fast)
            + _list(" Slower: ", slow)
        )
        sde, ode = endpoints.sde(PAIR, self.weight), endpoints.ode(PAIR, self.weight)
        ddpm = next((row for row, _ in noisy if row["solver"] == "ddpm"), None)
        if ddpm is not None:
            says.append(
                f"Under cfg({self.weight:g}) `ddpm` in {self.noisy_steps[-1]} steps ends with mean {ddpm['guided_mean']:.4f} and "
                f"deviation {ddpm['guided_std']:.4f}: the reverse SDE has {sde.mean:.4f} and {sde.std:.4f}, the ODE {ode.mean:.4f} "
                f"and {ode.std:.4f}."
            )
        return says


def _others() -> list[dict[str, Any]]:
    """Return the solvers that follow rules of their own only, and so are in no comparison."""
    made = [member() for _, member in registry.members("solver")]
    return [
        {"solver": to_text(solver), "stated": solver.order, "evaluations": solver.evaluations}
        for solver in made
        if solver.particular
    ]


def _holds(row: dict[str, Any]) -> str:
    """Return whether the measured orders are "at", "above" or "below" the stated one."""
    apart = [row[key] - row["stated"] for key in ("order", "order_guided")]
    if min(apart) < -NEAR:
        return "below"
    return "at" if max(apart) <= NEAR else "above"


def _nearing(row: dict[str, Any]) -> bool:
    """Return whether the last refinement brought the measured order clearly nearer to the stated one."""
    before, now = row["order_before"], row["order"]
    return before is not None and abs(before - row["stated"]) - abs(now - row["stated"]) > NEAR / 3


def _list(start: str, names: Sequence[str]) -> str:
    return f"{start}{', '.join(names)}." if names else ""


def _orders_figure(runs: Sequence[Run], weight: float) -> Figure:
    figure, ((axes,),) = drawing.panels(1, 1, width=9.0, height=0.8 + 0.21 * len(runs))
    placed = sorted(runs, key=lambda run: (run.solver.order, to_text(run.solver)), reverse=True)
    plain, guided = runs[0].errors
    for y, run in enumerate(placed):
        stated = run.solver.order
        axes.plot([stated - NEAR, stated + NEAR], [y, y], color="0.85", linewidth=8, solid_capstyle="butt", zorder=1)
        axes.plot(
            stated, y, "|", color=drawing.TRUTH, markersize=9, zorder=2, label="stated, ± 0.15" if y == 0 else None
        )
        for w, mark, face, name in ((plain, "o", "white", "cfg(1)"), (guided, "D", None, f"cfg({weight:g})")):
            axes.plot(
                run.order(w),
                y,
                mark,
                color=drawing.color(0),
                markerfacecolor=face,
                markersize=5,
                zorder=3,
                label=f"measured, {name}" if y == 0 else None,
            )
    axes.set_yticks(range(len(placed)), [to_text(run.solver) for run in placed])
    axes.set_ylim(-0.7, len(placed) - 0.3)
    axes.grid(axis="x", color="0.93")
    axes.set_axisbelow(True)
    drawing.plain(axes, "Order of convergence on the guided ODE", "order", legend=True)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    return figure


def _cost_figure(runs: Sequence[Run]) -> Figure:
    figure, panels = drawing.panels(1, 2, width=4.5, height=4.2, sharey=True)
    for axes, weight in zip(panels[0], runs[0].errors, strict=True):
        for run in runs:
            name = to_text(run.solver)
            if name in SHOWN:
                style: dict[str, Any] = {
                    "color": drawing.color(SHOWN.index(name)),
                    "label": name,
                    "linewidth": 1.5,
                    "zorder": 3,
                }
            else:
                style = {"color": "0.8", "linewidth": 0.8, "zorder": 1}
            axes.loglog(run.asked[weight], run.errors[weight], marker="o", markersize=2.5, **style)
        axes.plot([], [], color="0.8", label="all others")
        drawing.plain(axes, f"cfg({weight:g})", "network evaluations of a point", "median error", legend=weight == 1)
    panels[0][1].set_ylabel("")
    figure.suptitle("What the error costs: distance from the end of the ODE", fontsize=10)
    return figure


def _together(noisy: Sequence[tuple[dict[str, Any], list[float]]]) -> list[tuple[str, list[float]]]:
    """Return labels and errors, the largest first; solvers whose errors are one line share a label."""
    lines: list[tuple[str, float, list[float]]] = []
    for row, errors in sorted(noisy, key=lambda found: found[1][-1], reverse=True):
        if lines and all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(lines[-1][2], errors, strict=True)):
            names, order, errors = lines.pop()
            lines.append((f"{names}, {row['solver']}", order, errors))
        else:
            lines.append((row["solver"], row["order"], errors))
    return [(f"{names}: {order:.2f}", errors) for names, order, errors in lines]


def _noise_figure(noisy: Sequence[tuple[dict[str, Any], list[float]]], steps: Sequence[int]) -> Figure:
    figure, ((axes,),) = drawing.panels(1, 1, width=6.5, height=4.2)
    for i, (names, errors) in enumerate(_together(noisy)):
        style = "-" if i < len(drawing.COLORS) else "--"
        axes.loglog(steps, errors, style, marker="o", markersize=3, linewidth=1.2, color=drawing.color(i), label=names)
    middle = statistics.median(errors[0] for _, errors in noisy)
    axes.loglog(
        steps,
        [middle * steps[0] / n for n in steps],
        color=drawing.TRUTH,
        linewidth=0.8,
        linestyle=":",
        label="slope 1",
    )
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.minorticks_off()
    drawing.plain(
        axes, "Solvers that draw noise: error of the distribution", "steps", "W2 distance from the true Gaussian"
    )
    axes.legend(
        fontsize=7, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left", title="measured order", title_fontsize=8
    )
    return figure
