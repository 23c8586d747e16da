"""How many of a class's modes survive a weight over time, on the line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from guidon import registry
from guidon.errors import BadValue
from guidon.guidance.cfg import CFG
from guidon.guidance.rule import Moment, Rule
from guidon.lab.drawing import TRUTH, color, curve, histogram, panels, plain
from guidon.lab.experiment import Experiment, Findings, Row, Track, quietly
from guidon.lab.mixture import NULL_LABEL, Exact, Mixture, told
from guidon.noise import Cosine, Level
from guidon.noise.noise_grids import LogSNR
from guidon.registry import register
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.sampling.trajectory import Event
from guidon.solvers import Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure

START, MIDDLE, CLASS = 80.0, 1.75, 1  # the noise level of the start, what lies between the modes, the class's label
MANY = 10**9  # steps that are as good as a continuous way

RULES = (
    "cfg(1)",
    "cfg(3)",
    "cfg(6)",
    "cfg(6, when=interval(0.1, 0.6))",
    "cfg(6, when=interval(0.3, 1.5))",
    "cfg(6, when=interval(0.3, 1.5, whole_steps=true))",
    "cfg(linear(1, 11))",
    "cfg(linear(11, 1))",
    "cfg(cosine(1, 11))",
    "cfg(cosine(15, 1))",
    "cfg(power(1, 11, 4))",
    "cfg(clamp-linear(1, 11, 3))",
    "cfg(beta(6))",
    "cfg(6) | mambo-g",
    "dynamic-scale(6)",
    "cfgpp(0.6)",
)
PRINTED = {
    "cfg(1)": 0.509,
    "cfg(3)": 0.023,
    "cfg(6)": 0.0,
    "cfg(6, when=interval(0.1, 0.6))": 0.509,
    "cfg(6, when=interval(0.3, 1.5))": 0.398,
    "cfg(1 + 10 (1 - t))": 0.014,
    "cfg(1 + 10 t)": 0.0,
}
IN_TIME: dict[str, Rule] = {  # linear in time itself, not over the steps
    "cfg(1 + 10 (1 - t))": CFG(lambda at: 1 + 10 * (1 - at.t)),  # type: ignore[arg-type]
    "cfg(1 + 10 t)": CFG(lambda at: 1 + 10 * at.t),  # type: ignore[arg-type]
}
SHARE, IN_LOG = "share at 1", "share at 1, steps even in log noise"
DRAWN = ("cfg(1)", "cfg(6)", "cfg(linear(11, 1))", "cfg(linear(1, 11))", "cfg(6, when=interval(0.1, 0.6))")


@register("experiment", "modes-lost")
@dataclass(frozen=True)
class ModesLost(Experiment):
    """How much of a class with two modes is left after guidance by constant weights, intervals and schedules.

    A class has two equal modes, N(1, 0.15²) and N(2.5, 0.15²); without the class there are four, at −2.5, −1, 1 and 2.5. Half of
    the samples belong at 1. The mode at 2.5 lies farther from the other class, so a pull away from that class favours it.

    The beliefs are exact, the steps many and the solver deterministic (Heun in 400 steps; CFG++, which has no limit for small
    steps, by DDIM in 50). A deterministic path on the line never crosses another one. So instead of drawing noise the run begins at
    evenly spaced quantiles of N(0, 1), and the share of the lower mode is the quantile that ends between the modes: no Monte
    Carlo noise. For plain conditional sampling that share is known in closed form, Φ(1.75 α) with the signal α at the start, and
    a little above one half, because the start N(0, 1) still holds a trace of signal that it ought not to have.

    For the rules whose weight depends on the moment alone the table also has the share in the limit of many steps: followed
    backwards, the path that ends between the modes draws the line that divides the starts.

    A schedule is a weight over the *steps*, so what it does depends on where the steps are. The table has every rule with steps even
    in the time of the cosine process, and even in the logarithm of the noise level, where most steps are at little noise. Rules that
    project the difference (apg, tcfg, cfg-zero) have nothing to do on a line and are left out.

    For a user: guidance at high noise decides between modes before the modes exist; later guidance only sharpens what has been
    decided. Starting high and ending low, as in what is called progressive CFG, spends the weight where it costs modes.

    Args:
        steps: of the solver, >= 2.
        starts: evenly spaced quantiles to start from, >= 2.
        rules: text forms.

    Raises:
        BadValue: too few steps or starts.
    """

    page: ClassVar[int] = 6
    title: ClassVar[str] = "Modes lost under schedules"
    asks: ClassVar[str] = "When in a run does guidance cost a class one of its modes?"
    sources: ClassVar[tuple[str, ...]] = (
        "ho2022classifier",
        "kynkaanniemi2024interval",
        "wang2024schedulers",
        "chung2025cfgpp",
    )

    steps: int = 400
    starts: int = 1000
    rules: tuple[str, ...] = RULES

    def __post_init__(self) -> None:
        if self.steps < 2 or self.starts < 2:
            raise BadValue(f"modes-lost needs at least two steps and two starts, got {self.steps} and {self.starts}")

    def run(self, track: Track[Any] = quietly) -> Findings:
        rules: dict[str, Rule] = {text: registry.parse("rule", text) for text in self.rules}
        rows: list[Row] = []
        ends: dict[str, tuple[Tensor, Tensor]] = {}
        for text, rule in track(list((rules | IN_TIME).items()), "rules"):
            solver, steps = ("ddim", min(self.steps, 50)) if "ddim" in rule.only_with else ("heun", self.steps)
            move: Solver = registry.parse("solver", solver)
            ends[text] = follow(rule, move, times(steps), self.starts)
            x, other = ends[text][1], follow(rule, move, log_levels(steps), self.starts)[1]
            rows.append(
                {
                    "rule": text,
                    "solver": solver,
                    "steps": steps,
                    SHARE: round(share(x), 4),
                    "in the limit": round(limit(rule), 4) if isinstance(rule, CFG) else None,
                    "reference": PRINTED.get(text),
                    IN_LOG: round(share(other), 4),
                    "mean": round(float(x.mean()), 4),
                    "std": round(float(x.std(correction=0)), 4),
                }
            )
        drawn = [text for text in DRAWN if text in ends]
        figures = {"": _paths(drawn, ends, times(self.steps)), "shares": _shares(rows)} if drawn else {}
        return Findings(_sees(rows), {"shares": rows}, figures)


def world() -> Mixture:
    """Return four modes on the line; the class 1 has the two above 0."""
    means = torch.tensor([[-2.5], [-1.0], [1.0], [2.5]], dtype=torch.float64)
    return Mixture(torch.ones(4), means, torch.full_like(means, 0.15**2), torch.tensor([0, 0, 1, 1]))


def times(steps: int) -> tuple[Level, ...]:
    """Return levels evenly spaced in the time of the cosine process, from the start to the clean image."""
    process = Cosine()
    first = process.time_at(START)
    return (*(process.level(first * (1 - i / steps)) for i in range(steps)), process.clean)


def log_levels(steps: int) -> tuple[Level, ...]:
    """Return levels evenly spaced in log noise level, from the start to 0.005 and the clean image."""
    return LogSNR(sigma_min=0.005, sigma_max=START).levels(Cosine(), steps)


def follow(rule: Rule, solver: Solver, levels: Sequence[Level], starts: int) -> tuple[Tensor, Tensor]:
    """Return the states at the beginning of each step, float64 (steps, starts), and the ends (starts,), from even quantiles."""
    quantiles = (torch.arange(starts, dtype=torch.float64) + 0.5) / starts
    states: list[Tensor] = []

    def look_on(event: Event) -> None:
        if event.at.began is None:
            states.append(next(iter(event.predictions.values())).x[:, 0])

    contexts = told(torch.full((starts,), CLASS))
    trajectory = Trajectory(
        torch.special.ndtri(quantiles)[:, None], levels, solver, rule, contexts, RecordedNoise([]), look_on=look_on
    )
    (ends,) = Engine({"main": Exact(world())}).run([trajectory])
    return torch.stack(states), ends[:, 0]


def share(ends: Tensor) -> float:
    """Return the quantile of the start that ends between the modes, linear between neighbouring ends (starts,)."""
    ends = ends.sort().values  # paths keep their order, but for rounding
    below = int((ends < MIDDLE).sum())
    if below in (0, len(ends)):
        return below / len(ends)
    low, high = float(ends[below - 1]), float(ends[below])
    return (below - 0.5 + (MIDDLE - low) / (high - low)) / len(ends)


def limit(rule: CFG) -> float:
    """Return the share at 1 in the limit of many steps even in time: where the path that ends between the modes began."""
    mixture, process = world(), Cosine()
    start = process.time_at(START)
    contexts = torch.tensor([CLASS]), torch.tensor([NULL_LABEL])

    def slope(t: float, x: np.ndarray) -> np.ndarray:
        level = process.level(t)
        state = torch.from_numpy(x)[:, None]
        (x0, eps), (null_x0, null_eps) = (mixture.believe(state, level.alpha, level.sigma, label) for label in contexts)
        weight = _weight(rule, level, 1 - t / start)
        x0, eps = torch.lerp(null_x0, x0, weight), torch.lerp(null_eps, eps, weight)
        return (math.pi / 2) * (eps * level.alpha - x0 * level.sigma)[:, 0].numpy()

    found = solve_ivp(slope, (0.002, start), [MIDDLE], method="DOP853", rtol=1e-6, atol=1e-8, max_step=0.02)
    return NormalDist().cdf(float(found.y[0, -1]))


def plain_share() -> float:
    """Return the share at 1 of plain conditional sampling without error: the start is N(0, 1), the median of the class 1.75 alpha."""
    return NormalDist().cdf(MIDDLE * float(Cosine().level_at(START).alpha))


def _sees(rows: Sequence[Row]) -> list[str]:
    found = {row["rule"]: row[SHARE] for row in rows}
    other = {row["rule"]: row[IN_LOG] for row in rows}
    sees = []
    if "cfg(1)" in found:
        sees.append(
            f"Plain conditional sampling leaves {found['cfg(1)']:.4f} of the samples at the lower mode; in closed form it is "
            f"{plain_share():.4f}."
        )
    constant = [text for text in ("cfg(3)", "cfg(6)") if text in found]
    if constant:
        sees.append("Of a constant weight " + ", ".join(f"`{t}` leaves {found[t]:.3f}" for t in constant) + ".")
    intervals = sorted((t for t in found if "interval" in t), key=lambda text: -found[text])
    if intervals:
        sees.append(
            "In an interval of noise levels " + ", ".join(f"`{t}` leaves {found[t]:.3f}" for t in intervals) + "."
        )
    pairs = [("cfg(linear(1, 11))", "cfg(linear(11, 1))"), ("cfg(cosine(1, 11))", "cfg(cosine(15, 1))")]
    turned = [
        f"`{up}` leaves {found[up]:.4f}, {'more' if found[up] > found[down] else 'no more'} than `{down}` with {found[down]:.4f}"
        for up, down in pairs
        if up in found and down in found
    ]
    if turned:
        sees.append("Upwards against downwards: " + "; ".join(turned) + ".")
    moved = max(found, key=lambda text: abs(found[text] - other[text]))
    sees.append(
        f"Where the steps are changes most for `{moved}`: {found[moved]:.4f} with steps even in time, {other[moved]:.4f} with steps "
        "even in log noise."
    )
    kept = [text for text in found if text != "cfg(1)" and abs(found[text] - plain_share()) < 0.05]
    lost = [text for text in found if found[text] < 0.05]
    sees.append(
        f"Within 0.05 of plain conditional sampling stay {_named(kept)}; fewer than one in twenty samples at the lower mode are "
        f"left by {len(lost)} of {len(found)} rules."
    )
    return sees


def _named(texts: Sequence[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts) if texts else "none of the others"


def _paths(texts: Sequence[str], ends: dict[str, tuple[Tensor, Tensor]], levels: Sequence[Level]) -> Figure:
    """Draw the weight, some paths and the density of the ends of each rule."""
    figure, axes = panels(3, len(texts), width=9.6 / len(texts), height=1.9, sharex="row", sharey="row")
    t = [float(level.t) for level in levels]
    mixture = world()
    for column, text in enumerate(texts):
        states, last = ends[text]
        top, middle, bottom = axes[:, column]
        rule = registry.parse("rule", text)
        weights = [_weight(rule, level, i / (len(t) - 2)) for i, level in enumerate(levels[:-1])]
        top.plot(t[:-1], weights, color="black", linewidth=1.2)
        plain(top, _title(text), y="weight" if column == 0 else "")
        every = max(1, len(last) // 40)
        whole = torch.cat([states, last[None]])
        for i in range(every // 2, len(last), every):
            middle.plot(t, whole[:, i], color=color(1) if last[i] < MIDDLE else color(0), linewidth=0.6, alpha=0.8)
        plain(middle, x="time", y="state" if column == 0 else "")
        middle.set_xlim(t[0], 0)
        top.set_xlim(t[0], 0)
        curve(bottom, _density(mixture), 0.2, 3.6)
        histogram(bottom, last, 0.2, 3.6, bins=68, color=color(0))
        bottom.set_ylim(0, 4)
        plain(bottom, f"share at 1: {share(last):.3f}", "x0", "density" if column == 0 else "")
    axes[2, 0].plot([], [], color=TRUTH, label="the class")
    axes[2, 0].plot([], [], color=color(0), label="samples")
    axes[2, 0].legend(fontsize=7, frameon=False, loc="upper left")
    return figure


def _title(text: str) -> str:
    return text.replace("when=", "\n").replace("(linear", "\n(linear")


def _density(mixture: Mixture) -> Any:
    return lambda x: mixture.log_density(x[:, None], 1.0, 0.0, torch.full((len(x),), CLASS)).exp()


def _weight(rule: CFG, level: Level, ramp: float) -> float:
    """Return the weight of cfg at a level and a part of the way, 0 at the first step and 1 at the last."""
    weight = rule.weight_at(Moment(level, level, round(ramp * MANY), MANY + 1))
    assert isinstance(weight, float | int)
    return float(weight)


def _shares(rows: Sequence[Row]) -> Figure:
    """Draw the share of the lower mode that every rule leaves."""
    figure, axes = panels(1, 1, width=8.2, height=0.32 * len(rows) + 1.0)
    names = [row["rule"] for row in rows]
    places = torch.arange(len(rows)).flip(0).double()
    (panel,) = axes[0]
    for shift, key, label, shade in (
        (0.2, SHARE, "steps even in time", color(0)),
        (-0.2, IN_LOG, "steps even in log noise", "0.65"),
    ):
        values = [row[key] for row in rows]
        panel.barh(places + shift, values, height=0.36, color=shade, label=label)
        for place, value in zip(places + shift, values, strict=True):
            panel.text(value + 0.006, float(place), f"{value:.3f}", fontsize=7, va="center", color="0.25")
    panel.axvline(0.5, color=TRUTH, linewidth=0.8, linestyle="--")
    panel.set_yticks(places, names)
    panel.set_xlim(0, 0.62 if max(row[SHARE] for row in rows) < 0.6 else 1.1)
    plain(panel, "share of the samples at the lower mode (half in truth)", "share", legend=True)
    panel.tick_params(axis="y", labelsize=8)
    return figure
