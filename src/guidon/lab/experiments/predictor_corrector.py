"""Guided DDPM as a predictor with Langevin corrections, in numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from scipy.optimize import brentq

from guidon.errors import BadValue
from guidon.guidance import CFG
from guidon.lab.affine import propagate
from guidon.lab.drawing import color, panels, plain
from guidon.lab.endpoints import COUNTEREXAMPLE, by_ode, counterexample, sharpened_at, with_corrections
from guidon.lab.experiment import Experiment, Findings, Row, Track, quietly
from guidon.lab.line import WIDE, extrapolated, levels, moments, powers
from guidon.registry import register
from guidon.solvers import DDIM, DDPM, PCG, Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STOPS = (10.0, 3.0, 1.0, 0.5, 0.2, 0.1)  # noise levels at which the way down is looked at
OFFSETS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the exponents that are tried, from 2 w - 1


@register("experiment", "predictor-corrector")
@dataclass(frozen=True)
class PredictorCorrector(Experiment):
    """Guided DDPM beside unguided DDIM with Langevin corrections towards a sharpened density.

    Predictor-corrector guidance (the solver `pcg`) follows the plain conditional ODE for a step. Then it takes K Langevin steps, as
    long as the noise that DDPM would draw, towards the sharpened density p_t(x | c)^γ′ p_t(x)^(1 − γ′) of that noise level. A step with
    one correction moves along ½ s_c + ½ (γ′ s_c + (1 − γ′) s_u) in terms of scores. With γ′ = 2w − 1 this is w s_c + (1 − w) s_u, the drift
    of DDPM under guidance of weight w, so with ever more steps the two become one process. It is a statement about DDPM: DDIM
    under guidance draws no noise and goes elsewhere.

    The world is that of the experiment `ode-vs-sde`, p(x | c) = N(0, 1) and p(x) = N(0, 2), where every run is affine and
    its variance is computed to rounding error. The closed forms come from the linear equation that the variance obeys in the
    limit of small steps; with K corrections it ends at K ∫ φ(0) / φ(u) du from 0 to ∞, φ(u) = (1 + u)^(1 + Kγ′) (2 + u)^(K (1 − γ′)).

    One correction a step is far from enough to reach equilibrium. With more of them the samples approach the sharpened density
    of the exponent γ′ itself, and the weight becomes what a guidance weight is often taken for. The price is 1 + 2K network
    evaluations a step in place of 2.

    For a user: under guidance DDPM, the ODE and the sharpened density are three things, and `pcg` with several corrections and
    the exponent as the weight of the rule leads to the last. That is shown for one Gaussian; of densities with several modes,
    between which Langevin steps would have to cross, it says nothing.

    Args:
        weights: w of guided DDPM, above 1, at most 100.
        weight: the one that is looked at closely, likewise; also the exponent γ′ of the runs with many corrections.
        steps: numbers of steps, rising, at least two of them; each at least 8.
        corrections: K, each at least 1.

    Raises:
        BadValue: a weight that is not above 1 or beyond 100, steps that do not rise, or no correction.
    """

    page: ClassVar[int] = 2
    title: ClassVar[str] = "Guided DDPM is a predictor-corrector"
    asks: ClassVar[str] = (
        "Towards which sharpened density does DDPM under a guidance weight correct its samples, and does it arrive?"
    )
    sources: ClassVar[tuple[str, ...]] = (
        "bradley2024predictor",
        "ho2022classifier",
        "ho2020denoising",
        "song2021denoising",
    )

    weights: tuple[float, ...] = (1.5, 2.0, 3.0, 5.0)
    weight: float = 3.0
    steps: tuple[int, ...] = (32, 64, 128, 256)
    corrections: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        if not self.weights or not all(1 < weight <= 100 for weight in (*self.weights, self.weight)):
            raise BadValue(
                f"predictor-corrector needs weights above 1 and up to 100, got {list(self.weights)} and {self.weight}"
            )
        if len(self.steps) < 2 or self.steps[0] < 8 or any(a >= b for a, b in itertools.pairwise(self.steps)):
            raise BadValue(f"predictor-corrector needs rising numbers of steps from 8, got {list(self.steps)}")
        if not self.corrections or not all(k >= 1 for k in self.corrections):
            raise BadValue(f"predictor-corrector needs corrections of at least 1, got {list(self.corrections)}")

    def run(self, track: Track[Any] = quietly) -> Findings:
        runs = [
            row
            for weight, steps in track(list(itertools.product(self.weights, self.steps)), "weights and steps")
            for row in pair(weight, steps)
        ]
        exponents = [self._tried(offset) for offset in track(OFFSETS, "exponents")]
        many = [self._corrected(k) for k in track(self.corrections, "corrections")]
        way = [self._stop(stop) for stop in track((*STOPS, 0.0), "noise levels")]
        tables = {"convergence": runs, "exponents": exponents, "corrections": many, "way": way}
        figures = {"": _convergence(runs), "corrections": _corrections(self.weight, way, many)}
        return Findings(self._sees(runs, exponents, many), tables, figures)

    def _tried(self, offset: float) -> Row:
        """Return where pcg of an exponent tends to, beside guided DDPM of the weight."""
        exponent = 2 * self.weight - 1 + offset
        found = limit(PCG(), exponent, self.steps)
        return {
            "exponent": exponent,
            "2w - 1": offset == 0,
            "pcg extrapolated": found,
            "ddpm closed form": (goal := counterexample(self.weight)[1]),
            "relative difference": found / goal - 1,
        }

    def _corrected(self, corrections: int) -> Row:
        """Return where pcg with many corrections tends to, beside the sharpened density."""
        sharpened = counterexample(self.weight)[0]
        found = limit(PCG(corrections), self.weight, self.steps[:-1] if len(self.steps) > 2 else self.steps)
        exact = with_corrections(self.weight, corrections)
        return {
            "corrections": corrections,
            "evaluations a step": 1 + 2 * corrections,
            "pcg extrapolated": found,
            "closed form": exact,
            "sharpened": sharpened,
            "excess": exact / sharpened - 1,
        }

    def _stop(self, stop: float) -> Row:
        """Return variances on the way, as parts of that of the noisy class."""
        places = levels(self.steps[-1])
        end = min(range(1, len(places)), key=lambda i: abs(float(places[i].noise_level) - stop))
        there = float(places[end].noise_level)

        def variance(solver: Solver, weight: float) -> float:
            start = WIDE.start_scale(places[0]) ** 2
            part = propagate(solver, CFG(weight), places[: end + 1], COUNTEREXAMPLE, 0.0, start)[1]
            return float(part) / (1 + there**2)

        return {
            "noise level": there,
            "ddpm": variance(DDPM(), self.weight),
            "pcg": variance(PCG(), 2 * self.weight - 1),
            "ddpm closed form": with_corrections(2 * self.weight - 1, 1, there) / (1 + there**2),
            "ddim": variance(DDIM(), self.weight),
            "ddim closed form": by_ode(self.weight, there) / (1 + there**2),
            "powered": sharpened_at(self.weight, there) / (1 + there**2),
        }

    def _sees(self, runs: Sequence[Row], exponents: Sequence[Row], many: Sequence[Row]) -> list[str]:
        last = {(row["solver"], row["weight"]): row for row in runs if row["steps"] == self.steps[-1]}
        weight = self.weight if ("pcg", self.weight) in last else self.weights[-1]
        pcg, ddpm = last["pcg", weight], last["ddpm", weight]
        sees = [
            f"In {self.steps[-1]} steps DDPM under `{ddpm['rule']}` ends with the variance {ddpm['variance']:.4f} and `pcg` under "
            f"`{pcg['rule']}` with {pcg['variance']:.4f}; the closed form of both is {pcg['closed form']:.4f}."
        ]
        for name in ("pcg", "ddpm"):
            low, high, off = extremes(runs, name)
            sees.append(
                f"The error of `{name}` falls as N to the power of −{low:.2f} to −{high:.2f}; extrapolated from the last two numbers of "
                f"steps it is within {100 * off:.2g} % of the closed form at every weight."
            )
        best = min(exponents, key=lambda row: abs(row["relative difference"]))
        others = min(abs(row["relative difference"]) for row in exponents if row is not best)
        tried = ", ".join(f"{row['exponent']:g}" for row in exponents)
        sees.append(
            f"Of the exponents {tried} the one that meets DDPM at w = {self.weight:g} best is {best['exponent']:g}, "
            f"{'which is' if best['2w - 1'] else 'not'} 2w − 1: extrapolated it is off by {100 * abs(best['relative difference']):.2g} %, "
            f"the next best by {100 * others:.2g} %."
        )
        ode = counterexample(self.weight)[2]
        twin = 2 * float(brentq(lambda w: counterexample(w)[1] - ode, 1, 2 / ode + 2)) - 1
        apart = with_corrections(twin, 1, 1.0) / by_ode(self.weight, 1.0) - 1
        sees.append(
            f"DDIM under `cfg({self.weight:g})` ends with {ode:.4g}. The exponent {twin:.3g} would bring `pcg` to this variance, but by "
            f"another way: at noise level 1 its variance is {100 * abs(apart):.2g} % {'larger' if apart > 0 else 'smaller'}."
        )
        first, final = many[0], many[-1]
        products = [row["corrections"] * row["excess"] for row in (first, final)]
        sees.append(
            f"`pcg` under `cfg({self.weight:g})` ends {100 * first['excess']:.2g} % above the variance {final['sharpened']:.4f} of the "
            f"sharpened density with K = {first['corrections']}, and {100 * final['excess']:.2g} % above it with K = "
            f"{final['corrections']}; K times the excess goes from {products[0]:.3f} to {products[1]:.3f}."
        )
        return sees


def pair(weight: float, steps: int) -> Sequence[Row]:
    """Return guided DDPM of a weight, and predictor-corrector guidance of the exponent that belongs to it."""
    exact = counterexample(weight)[1]
    rows = []
    for name, solver, given in (("pcg", PCG(), 2 * weight - 1), ("ddpm", DDPM(), weight)):
        variance = moments(solver, given, steps)[1]
        error = abs(variance / exact - 1)
        rows.append(
            {
                "weight": weight,
                "solver": name,
                "rule": f"cfg({given:g})",
                "steps": steps,
                "variance": variance,
                "closed form": exact,
                "relative error": error,
            }
        )
    return rows


def limit(solver: Solver, weight: float, steps: Sequence[int]) -> float:
    """Return the variance that a solver of order 1 tends to, from its last two numbers of steps."""
    return extrapolated(steps[-2:], [moments(solver, weight, n)[1] for n in steps[-2:]], 1)


def extremes(runs: Sequence[Row], name: str) -> tuple[float, float, float]:
    """Return the least and largest order of a solver, and how far it is off at most when extrapolated."""
    mine = [row for row in runs if row["solver"] == name]
    off = []
    for weight in dict.fromkeys(row["weight"] for row in mine):
        part = [row for row in mine if row["weight"] == weight]
        found = extrapolated([row["steps"] for row in part], [row["variance"] for row in part], 1)
        off.append(abs(found / part[-1]["closed form"] - 1))
    return *powers(mine), max(off)


def _convergence(runs: Sequence[Row]) -> Figure:
    figure, axes = panels(1, 2, width=4.5, height=3.3)
    values, errors = axes[0]
    for index, weight in enumerate(dict.fromkeys(row["weight"] for row in runs)):
        for name, style in (("pcg", "-"), ("ddpm", ":")):
            line = [row for row in runs if (row["weight"], row["solver"]) == (weight, name)]
            steps = [row["steps"] for row in line]
            look = {"color": color(index), "marker": "o", "markersize": 3, "linewidth": 1.3, "linestyle": style}
            rule = f"{name}, {line[0]['rule']}"
            values.semilogx(steps, [row["variance"] for row in line], label=rule, **look)
            errors.loglog(steps, [row["relative error"] for row in line], **look)
        values.hlines(line[0]["closed form"], steps[0], steps[-1], color=color(index), linewidth=0.7, alpha=0.6)
    errors.loglog(steps, [0.2 * steps[0] / n for n in steps], color="0.5", linewidth=0.8, linestyle="--", label="1/N")
    plain(values, "pcg under cfg(2w − 1), ddpm under cfg(w); lines: closed form", "steps N", "variance at the end")
    plain(errors, "their errors", "steps N", "relative error of the variance", legend=True)
    values.set_xlim(right=steps[-1] * 7)
    values.legend(fontsize=7, frameon=False, loc="center right")
    for panel in (values, errors):
        panel.set_xticks(steps, [str(n) for n in steps], minor=False)
        panel.minorticks_off()
    return figure


def _corrections(weight: float, way: Sequence[Row], many: Sequence[Row]) -> Figure:
    figure, axes = panels(1, 2, width=4.5, height=3.3)
    path, ends = axes[0]
    taus = torch.logspace(-1.5, 1.5, 80, dtype=torch.float64).tolist()
    curves = (
        ("powered density", 0, lambda tau: sharpened_at(weight, tau)),
        ("DDPM and pcg", 1, lambda tau: with_corrections(2 * weight - 1, 1, tau)),
        ("DDIM", 2, lambda tau: by_ode(weight, tau)),
    )
    for label, index, at in curves:
        path.semilogx(taus, [at(tau) / (1 + tau**2) for tau in taus], color=color(index), linewidth=1.3, label=label)
    inside = [row for row in way if row["noise level"] > taus[0]]
    for name, index, marker in (("ddpm", 1, "v"), ("pcg", 1, "^"), ("ddim", 2, "o")):
        rule = f"{name}, cfg({2 * weight - 1 if name == 'pcg' else weight:g}), measured"
        places = [row["noise level"] for row in inside]
        path.plot(
            places,
            [row[name] for row in inside],
            marker,
            color=color(index),
            markersize=5,
            fillstyle="none",
            label=rule,
        )
    path.invert_xaxis()
    plain(
        path,
        f"on the way down, w = {weight:g}",
        "noise level",
        "variance, as part of that of the noisy class",
    )
    path.set_ylim(0, 1.05)
    path.legend(fontsize=7, frameon=False, loc="lower left")
    ks = [row["corrections"] for row in many]
    ends.loglog(ks, [row["excess"] for row in many], color=color(1), marker="o", markersize=3, label="closed form")
    measured = [row["pcg extrapolated"] / row["sharpened"] - 1 for row in many]
    ends.loglog(ks, measured, "s", color="black", markersize=6, fillstyle="none", label="pcg, extrapolated")
    guide = [many[-1]["excess"] * ks[-1] / k for k in ks]
    ends.loglog(ks, guide, color="0.5", linewidth=0.8, linestyle="--", label="1/K")
    ends.set_xticks(ks, [str(k) for k in ks], minor=False)
    ends.minorticks_off()
    title = f"pcg under cfg({weight:g}) beside the sharpened density"
    plain(ends, title, "corrections a step, K", "excess over its variance (relative)", legend=True)
    return figure
