"""The guidance weight that ends closest to the truth: with exact scores, and with scores that are too smooth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from scipy.interpolate import CubicSpline

from guidon.errors import BadValue
from guidon.guidance import CFG
from guidon.lab.drawing import color, panels, plain
from guidon.lab.endpoints import Normal, ode, sde
from guidon.lab.experiment import Experiment, Findings, Row, Track, quietly
from guidon.lab.gaussian import Pair
from guidon.lab.line import WIDE, extrapolated, levels, moments
from guidon.lab.optimal import (
    Distance,
    Ends,
    best_weight,
    best_weight_of_equal_means,
    best_weight_to_first_order,
    kl,
    smoothed,
    w2,
)
from guidon.lab.sampled import sample
from guidon.registry import register
from guidon.solvers import DDPM, Heun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES = ((0.5, 0.25, 0.0), (0.5, 0.25, 0.5), (0.5, 0.25, 1.0), (0.3, 0.3, 0.0), (0.3, 0.3, 1.0))
LOW, HIGH = 0.5, 2.5  # weights to measure and to draw; up to more where the best one is larger
BEYOND = 10.0  # a best weight from here on is not given


@register("experiment", "optimal-weight")
@dataclass(frozen=True)
class OptimalWeight(Experiment):
    """The guidance weight whose samples come closest to the true class, under exact and over-smoothed scores of Gaussians.

    If the network's scores are exact, plain conditional sampling gives the class itself, so every weight but 1 makes samples worse.
    Why then is guidance worth anything? One answer: networks blur. Here the network believes in densities that are a little too
    wide, s_c² + δ² for the class in place of s_c² and 1 + δ² for all in place of 1, and samples without guidance are too wide as
    well. Guidance narrows them: by the ODE to the deviation s̃ r̃^w, with s̃_c and s̃ those that the network believes in and r̃ = s̃_c / s̃. So
    some weight above 1 gives the true width back. Where class and all have the same mean, that weight is the best one,
    1 + ln(1 + δ² / s_c²) / ln(s̃² / s̃_c²), and the samples are exactly right.

    Guidance also moves the mean of the samples away from the others. If the class has a mean of its own this harm weighs
    against the benefit: the best weight is lower, and nothing is quite right at it. If the network believes that the class is as
    wide as all (r̃ = 1), guidance cannot narrow at all, and the best weight is 1 again.

    Distances are Wasserstein-2 (W2) and KL(samples || class). Closed forms give where ODE and SDE end; as
    a check the real solvers do it too, Heun for the ODE and DDPM for the SDE, their affine maps followed exactly, and the weight with
    the least W2 is looked for among what they gave. The formulas follow from the model, not from a paper, and are no theorem
    about networks: they say what one cause, blur, does in the simplest case, and networks err in other ways too.

    For a user: there is no best weight as such. In this model the better the network, the nearer the best weight is to 1; the
    farther a class is from the rest, the less guidance it stands; and the weight depends on the sampler and on the measure.

    Args:
        cases: s_c below 1, δ >= 0 and the distance of the means, >= 0, for p(x) of deviation 1; three numbers a case.
        steps: of Heun, at least 50; DDPM takes as many and twice as many, to extrapolate.
        weights: how many weights are measured, at least 5; in between cubic splines.

    Raises:
        BadValue: a case that is not three such numbers, or too few steps or weights.
    """

    page: ClassVar[int] = 5
    title: ClassVar[str] = "The best weight"
    asks: ClassVar[str] = "Which guidance weight brings samples closest to the truth, and why is it not 1?"
    sources: ClassVar[tuple[str, ...]] = ("ho2022classifier", "bradley2024predictor")

    cases: tuple[tuple[float, ...], ...] = CASES
    steps: int = 200
    weights: int = 13

    def __post_init__(self) -> None:
        if not self.cases or not all(_is_case(case) for case in self.cases):
            raise BadValue(
                f"optimal-weight needs cases of 0 < s_c < 1, δ >= 0 and a distance of means >= 0, got {list(self.cases)}"
            )
        if self.steps < 50 or self.weights < 5:
            raise BadValue(f"optimal-weight needs steps >= 50 and weights >= 5, got {self.steps} and {self.weights}")

    def run(self, track: Track[Any] = quietly) -> Findings:
        rows: list[Row] = []
        measured: list[Ends] = []
        for case in track(self.cases, "cases"):
            believed, high = worlds(*case)[1], reach(case)
            measured.append(self._by_heun(believed, high))
            rows.append(row_of(case, measured[-1], self._by_ddpm(believed, high)))
        tables = {"weights": rows, "limits": limits(self.cases)}
        figures = {"": _curves(self.cases, measured), "causes": _causes(self.cases)}
        return Findings(self._sees(rows, tables["limits"]), tables, figures)

    def _by_heun(self, believed: Pair, high: float) -> Ends:
        """Return where Heun ends, at any weight: one run of two starts for each of some weights, and splines in between."""
        path = levels(self.steps)
        weights = torch.linspace(LOW, high, self.weights, dtype=torch.float64)
        rule = CFG(tuple(weights.repeat_interleave(2).tolist()))
        start = torch.tensor([[0.0], [WIDE.start_scale(path[0])]], dtype=torch.float64).repeat(self.weights, 1)
        count = len(start)
        ends = sample(believed.gaussians, rule, Heun(), path, [0] * count, range(count), start=start)[:, 0]
        return splined(weights, ends[::2], (ends[1::2] - ends[::2]).abs())

    def _by_ddpm(self, believed: Pair, high: float) -> Ends:
        """Return where DDPM ends with ever more steps, at any weight, extrapolated from runs of two numbers of steps."""
        weights = torch.linspace(LOW, high, max(5, self.weights // 2), dtype=torch.float64)
        steps, ends = (self.steps, 2 * self.steps), []
        for weight in weights.tolist():
            runs = [moments(DDPM(), weight, n, believed) for n in steps]
            ends.append([extrapolated(steps, values, 1) for values in zip(*runs, strict=True)])
        means, variances = torch.tensor(ends, dtype=torch.float64).T
        return splined(weights, means, variances.sqrt())

    def _sees(self, rows: Sequence[Row], limits: Sequence[Row]) -> list[str]:
        exact = max(abs(row["exact scores"] - 1) for row in rows)
        known = [row for row in rows if row["W2"] is not None]
        sees = [f"With exact scores the best weight is off 1 by at most {exact:.1g}, in {len(rows)} worlds."]
        if len(known) < len(rows):
            beyond = [said(row) for row in rows if row not in known]
            sees.append(f"With blurred scores it is {BEYOND:g} or more where {'; '.join(beyond)}.")
        if known:
            lowest, highest = (choose(known, key=lambda row: row["W2"]) for choose in (min, max))
            sees.append(
                f"With blurred scores it runs from {lowest['W2']:.4f} ({said(lowest)}) to {highest['W2']:.4f} ({said(highest)}) by W2."
            )
        if equal := [row for row in known if row["gap"] == 0]:
            off_by = max(abs(row["W2"] - row["W2 of equal means"]) for row in equal)
            sees.append(
                f"Where the means are equal, the formula for the best weight and the search agree to {off_by:.1g}, in {len(equal)} "
                f"worlds; e.g. {equal[0]['W2 of equal means']:.4f} for {said(equal[0])}."
            )
        off = {
            name: [abs(row[f"{name} W2"] - row[key]) for row in rows if row[key] is not None]
            for name, key in (("heun", "W2"), ("ddpm", "SDE W2"))
        }
        if all(off.values()):
            sees.append(
                f"Measured, the weight with the least W2 is within {max(off['heun']):.1g} of the closed form for Heun in {self.steps} "
                f"steps, and within {max(off['ddpm']):.1g} for DDPM, extrapolated from {self.steps} and {2 * self.steps}."
            )
        pairs = [
            (a, b)
            for a in known
            for b in known
            if (a["s_c"], a["blur"]) == (b["s_c"], b["blur"]) and a["gap"] < b["gap"]
        ]
        if pairs:
            lower = sum(b["W2"] < a["W2"] for a, b in pairs)
            near, far = max(pairs, key=lambda pair: pair[1]["gap"] - pair[0]["gap"])
            sees.append(
                f"With means farther apart the best weight is lower in {lower} of {len(pairs)} comparisons, e.g. {near['W2']:.4f} at a gap "
                f"of {near['gap']:g} and {far['W2']:.4f} at {far['gap']:g}. From weight 1 to the best one the W2 distance goes from "
                f"{far['W2 distance at 1']:.4f} to {far['W2 distance at best']:.4f} at the larger gap, and from "
                f"{near['W2 distance at 1']:.4f} to {near['W2 distance at best']:.1g} at the smaller."
            )
        if both := [row for row in known if row["KL"] is not None and row["SDE W2"] is not None]:
            larger = sum(row["KL"] >= row["W2"] - 1e-6 for row in both), sum(row["SDE W2"] > row["W2"] for row in both)
            sees.append(
                f"The best weight of KL is at least that of W2 in {larger[0]} of {len(both)} worlds, and the SDE's is larger than the "
                f"ODE's in {larger[1]}."
            )
        sees.append(
            f"If the network believes that class and all are equally wide, the best weight is {limits[0]['W2']:.4f}; if it blurs p(x) but "
            f"not the class, it is {limits[1]['W2']:.4f} (means {limits[0]['gap']:g} apart)."
        )
        return sees


def _is_case(case: Sequence[float]) -> bool:
    return len(case) == 3 and 0 < case[0] < 1 and all(0 <= value < math.inf for value in case[1:])


def worlds(std: float, blur: float, gap: float) -> tuple[Pair, Pair]:
    """Return the true densities, p(x) = N(0, 1) and the class N(gap, std^2), and the ones that the network believes in."""
    truth = Pair(gap, std, 0.0, 1.0)
    return truth, smoothed(truth, blur, blur)


def closed(truth: Pair, believed: Pair) -> dict[str, float | None]:
    """Return the best weights by closed forms, None from `BEYOND` on."""
    found = {
        "W2": best_weight(truth, believed, high=BEYOND),
        "KL": best_weight(truth, believed, kl, high=BEYOND),
        "SDE W2": best_weight(truth, believed, ends=sde, high=BEYOND),
    }
    return {name: weight if weight < BEYOND - 1e-3 else None for name, weight in found.items()}


def reach(case: Sequence[float]) -> float:
    """Return up to which weight a world is measured: past its best ones."""
    return max([HIGH, *(1.2 * weight for weight in closed(*worlds(*case)).values() if weight is not None)])


def row_of(case: Sequence[float], heun: Ends, ddpm: Ends) -> Row:
    """Return the best weights of a world: by closed forms, and by what two solvers gave."""
    std, blur, gap = case
    truth, believed = worlds(std, blur, gap)
    best, high = closed(truth, believed), reach(case)

    def measured(key: str, ends: Ends, distance: Distance = w2) -> float | None:
        return None if best[key] is None else best_weight(truth, believed, distance, ends, LOW, high)

    return {
        "s_c": std,
        "blur": blur,
        "gap": gap,
        "exact scores": best_weight(truth, truth),
        "W2": best["W2"],
        "W2 of equal means": best_weight_of_equal_means(truth, believed),
        "W2 first order": best_weight_to_first_order(truth, believed),
        "KL": best["KL"],
        "SDE W2": best["SDE W2"],
        "heun W2": measured("W2", heun),
        "heun KL": measured("KL", heun, kl),
        "ddpm W2": measured("SDE W2", ddpm),
        "W2 distance at 1": apart(truth, ode(believed, 1.0)),
        "W2 distance at best": None if best["W2"] is None else apart(truth, ode(believed, best["W2"])),
    }


def limits(cases: Sequence[tuple[float, ...]]) -> Sequence[Row]:
    """Return what is believed where guidance has nothing to mend, and the best weights there; with equal means all are."""
    std, blur, gap = next((case for case in cases if case[2] > 0), (*cases[0][:2], 1.0))
    truth, believed = worlds(std, blur, gap)
    wide = believed.std
    kinds = {
        "class as wide as all": Pair(gap, wide, 0.0, wide),
        "only p(x) blurred": smoothed(truth, 0.0, blur),
    }
    return [
        {"network": name, "gap": gap, "W2": best_weight(truth, network), "KL": best_weight(truth, network, kl)}
        for name, network in kinds.items()
    ]


def splined(weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor) -> Ends:
    """Return where a solver ends at any weight within the range of those measured."""
    mean, log_std = CubicSpline(weights.numpy(), means.numpy()), CubicSpline(weights.numpy(), stds.log().numpy())
    return lambda _, weight: Normal(float(mean(weight)), float(torch.tensor(float(log_std(weight))).exp()))


def said(row: Row) -> str:
    """Return a world in words."""
    return f"s_c = {row['s_c']:g}, δ = {row['blur']:g}, means {row['gap']:g} apart"


def _curves(cases: Sequence[tuple[float, ...]], measured: Sequence[Ends]) -> Figure:
    figure, axes = panels(1, 2, width=4.5, height=3.4, sharey=True)
    weights = torch.linspace(LOW, max(reach(case) for case in cases), 101, dtype=torch.float64).tolist()
    for index, (case, heun) in enumerate(zip(cases, measured, strict=True)):
        truth, blurred = worlds(*case)
        label = f"s_c {case[0]:g}, δ {case[1]:g}, gap {case[2]:g}"
        for panel, believed in zip(axes[0], (truth, blurred), strict=True):
            panel.plot(
                weights,
                [apart(truth, ode(believed, w)) for w in weights],
                color=color(index),
                linewidth=1.3,
                label=label,
            )
            if (best := closed(truth, believed)["W2"]) is not None:
                panel.plot(best, apart(truth, ode(believed, best)), "o", color=color(index), markersize=6)
        some = [w for w in weights[::10] if w <= reach(case)]
        axes[0, 1].plot(some, [apart(truth, heun(blurred, w)) for w in some], "x", color=color(index), markersize=5)
    axes[0, 1].plot([], [], "x", color="black", markersize=5, label="measured, Heun")
    plain(
        axes[0, 0],
        "exact scores (dot: best weight)",
        "guidance weight",
        "W2 distance of the samples from the class",
    )
    plain(axes[0, 1], "blurred scores (dot: best weight)", "guidance weight", legend=True)
    axes[0, 0].set_ylim(-0.02, 0.7)
    return figure


def _causes(cases: Sequence[tuple[float, ...]]) -> Figure:
    figure, axes = panels(1, 3, height=3.0)
    width, shift, best = axes[0]
    std, blur, _ = cases[0]
    truth, believed = worlds(std, blur, 0.0)
    weights = torch.linspace(LOW, HIGH, 81, dtype=torch.float64).tolist()
    for index, (name, pair) in enumerate((("exact scores", truth), ("blurred scores", believed))):
        width.plot(weights, [ode(pair, w).std for w in weights], color=color(index), linewidth=1.3, label=name)
    width.axhline(std, color="0.4", linewidth=0.8, linestyle="--", label="the class")
    plain(width, f"width of the samples (s_c {std:g}, δ {blur:g})", "guidance weight", "deviation", legend=True)
    gaps = (0.0, 0.5, 1.0)
    for index, gap in enumerate(gaps):
        _, pair = worlds(std, blur, gap)
        shift.plot(
            weights, [ode(pair, w).mean - gap for w in weights], color=color(index), linewidth=1.3, label=f"gap {gap:g}"
        )
        blurs = torch.linspace(0, 2 * blur, 25, dtype=torch.float64).tolist()
        found = [best_weight(*worlds(std, b, gap)) for b in blurs]
        best.plot(blurs, found, color=color(index), linewidth=1.3, label=f"gap {gap:g}")
    shift.axhline(0, color="0.4", linewidth=0.8, linestyle="--")
    plain(
        shift,
        "how far their mean is off, blurred scores",
        "guidance weight",
        "mean, from that of the class",
        legend=True,
    )
    plain(best, f"best weight by W2 (s_c {std:g})", "blur δ", "w*", legend=True)
    return figure


def apart(truth: Pair, end: Normal) -> float:
    """Return the W2 distance of an end from the true class."""
    return w2(end, Normal(truth.mean, truth.std)) ** 0.5
