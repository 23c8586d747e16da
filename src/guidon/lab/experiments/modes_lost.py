"""How many of a class's modes survive a weight over time, on the line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from guidon import registry
from guidon.errors import BadValue
from guidon.guidance.cfg import CFG
from guidon.guidance.rule import Rule
from guidon.lab.drawing import TRUTH, color, curve, histogram, panels, plain
from guidon.lab.experiment import Experiment, Findings, Row, Track, quietly
from guidon.lab.four_modes import (
    CLASS,
    MIDDLE,
    follow,
    limit,
    log_levels,
    moment,
    plain_share,
    share,
    times,
    weight_of,
    world,
)
from guidon.noise import Level
from guidon.registry import register
from guidon.solvers import Solver

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
COLUMNS = 5  # rules of a picture
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
    backwards, the path that ends between the modes draws the line that divides the starts. "Reference" is what the project's
    reference sheet prints, found with steps of its own; a run of finitely many steps opens and closes an interval at its
    steps only, so that shares of an interval differ in the third digit. The two rules written with t, linear in time itself and
    not over the steps, are the sheet's; they are made in code and have no text form.

    A schedule is a weight over the *steps*, so what it does depends on where the steps are. The table has every rule with steps even
    in the time of the cosine process, and even in the logarithm of the noise level, where most steps are at little noise. Rules that
    project the difference (apg, tcfg, cfg-zero) have nothing to do on a line and are left out.

    For a user: where the modes are still one cloud, every pull decides between them; where they are apart, it can only move a
    sample within its own. So compare the intervals at much noise with those at little, and the schedules that begin high, as
    what is called progressive CFG does, with those that end high.

    Args:
        steps: of the solver, >= 2.
        starts: evenly spaced quantiles to start from, >= 2.
        rules: text forms, one or more; the first five are drawn, those of the default before others.

    Raises:
        BadValue: too few steps or starts, or no rule.
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
        if not self.rules:
            raise BadValue("modes-lost needs a rule to look at; give one or more")
        for text in self.rules:
            registry.parse("rule", text)

    def run(self, track: Track[Any] = quietly) -> Findings:
        rules: dict[str, Rule] = {text: registry.parse("rule", text) for text in self.rules}
        rows: list[Row] = []
        runs: dict[str, Run] = {}
        for text, rule in track(list((rules | IN_TIME).items()), "rules"):
            solver, steps = "heun", self.steps
            if rule.only_with:
                solver, steps = "ddim" if "ddim" in rule.only_with else rule.only_with[0], min(self.steps, 50)
            move: Solver = registry.parse("solver", solver)
            states, x = follow(rule, move, times(steps), self.starts)
            runs[text] = Run(rule, times(steps), states, x)
            other = follow(rule, move, log_levels(steps), self.starts)[1]
            steady = isinstance(rule, CFG) and weight_of(rule, moment(times(steps)[0], 0.0)) is not None
            rows.append(
                {
                    "rule": text,
                    "solver": solver,
                    "steps": steps,
                    SHARE: round(share(x), 3),
                    "in the limit": round(limit(rule), 3) if steady else None,
                    "reference": PRINTED.get(text),
                    IN_LOG: round(share(other), 3),
                    "mean": round(float(x.mean()), 4),
                    "std": round(float(x.std(correction=0)), 4),
                }
            )
        drawn = [text for text in (*DRAWN, *(text for text in rules if text not in DRAWN)) if text in rules]
        figures = {"": _paths({text: runs[text] for text in drawn[:COLUMNS]}), "shares": _shares(rows)}
        return Findings(_sees(rows), {"shares": rows}, figures)


@dataclass(frozen=True, eq=False)
class Run:
    """A rule followed along the way.

    Args:
        rule: that guided.
        levels: of the run, with the clean image.
        states: (steps, starts) at the beginning of each step.
        ends: (starts,).
    """

    rule: Rule
    levels: Sequence[Level]
    states: Tensor
    ends: Tensor


def _sees(rows: Sequence[Row]) -> list[str]:
    found = {row["rule"]: row[SHARE] for row in rows}
    other = {row["rule"]: row[IN_LOG] for row in rows}
    sees = []
    if "cfg(1)" in found:
        sees.append(
            f"Plain conditional sampling leaves {found['cfg(1)']:.3f} of the samples at the lower mode; in closed form it is "
            f"{plain_share():.3f}."
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
        f"`{up}` leaves {found[up]:.3f}, {'more' if found[up] > found[down] else 'no more'} than `{down}` with {found[down]:.3f}"
        for up, down in pairs
        if up in found and down in found
    ]
    if turned:
        sees.append("Upwards against downwards: " + "; ".join(turned) + ".")
    moved = max(found, key=lambda text: abs(found[text] - other[text]))
    sees.append(
        f"Where the steps are changes most for `{moved}`: {found[moved]:.3f} with steps even in time, {other[moved]:.3f} with steps "
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


def _paths(runs: Mapping[str, Run]) -> Figure:
    """Draw the weight, some paths and the density of the ends of each rule."""
    figure, axes = panels(3, len(runs), width=min(9.6 / len(runs), 4.0), height=1.9, sharex="row", sharey="row")
    for column, (text, run) in enumerate(runs.items()):
        top, middle, bottom = axes[:, column]
        t, last = [float(level.t) for level in run.levels], len(run.levels) - 2
        weights = [weight_of(run.rule, moment(level, i / last)) for i, level in enumerate(run.levels[:-1])]
        if None in weights:
            top.text(0.5, 0.5, "no weight of\nthe moment alone", transform=top.transAxes, fontsize=7, ha="center")
        else:
            top.plot(t[:-1], weights, color="black", linewidth=1.2)
        plain(top, _title(text), y="weight" if column == 0 else "")
        whole = torch.cat([run.states, run.ends[None]])
        every = max(1, len(run.ends) // 40)
        for i in range(every // 2, len(run.ends), every):
            middle.plot(t, whole[:, i], color=color(1) if run.ends[i] < MIDDLE else color(0), linewidth=0.6, alpha=0.8)
        plain(middle, x="time", y="state" if column == 0 else "")
        middle.set_xlim(t[0], 0)
        top.set_xlim(t[0], 0)
        curve(bottom, _density, 0.2, 3.6)
        histogram(bottom, run.ends, 0.2, 3.6, bins=68, color=color(0))
        bottom.set_ylim(0, 4)
        plain(bottom, f"share at 1: {share(run.ends):.3f}", "x0", "density" if column == 0 else "")
    axes[2, 0].plot([], [], color=TRUTH, label="the class")
    axes[2, 0].plot([], [], color=color(0), label="samples")
    axes[2, 0].legend(fontsize=7, frameon=False, loc="upper left")
    return figure


def _title(text: str) -> str:
    return text.replace("when=", "\n").replace("(linear", "\n(linear")


def _density(x: Tensor) -> Tensor:
    return world().log_density(x[:, None], 1.0, 0.0, torch.full((len(x),), CLASS)).exp()


def _shares(rows: Sequence[Row]) -> Figure:
    """Draw the share of the lower mode that every rule leaves."""
    figure, axes = panels(1, 1, width=8.2, height=0.32 * len(rows) + 1.0)
    names = [row["rule"] for row in rows]
    places = torch.arange(len(rows)).flip(0).double()
    (panel,) = axes[0]
    behind = {"facecolor": "white", "linewidth": 0, "pad": 0.5}  # the dashed line passes below the numbers
    for shift, key, label, shade in (
        (0.2, SHARE, "steps even in time", color(0)),
        (-0.2, IN_LOG, "steps even in log noise", "0.65"),
    ):
        values = [row[key] for row in rows]
        panel.barh(places + shift, values, height=0.36, color=shade, label=label)
        for place, value in zip(places + shift, values, strict=True):
            panel.text(value + 0.006, float(place), f"{value:.3f}", fontsize=7, va="center", color="0.25", bbox=behind)
    panel.axvline(0.5, color=TRUTH, linewidth=0.8, linestyle="--", zorder=1)
    panel.set_yticks(places, names)
    panel.set_xlim(0, 0.62 if max(row[SHARE] for row in rows) < 0.6 else 1.1)
    plain(panel, "share of the samples at the lower mode (half in truth)", "share", legend=True)
    panel.tick_params(axis="y", labelsize=8)
    return figure
