"""What guidance does to one of two modes, where the powered density leaves it as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG
from guidon.lab.affine import propagate
from guidon.lab.drawing import color, curve, histogram, panels, plain
from guidon.lab.experiment import Experiment, Findings, Row, Track, quietly
from guidon.lab.gaussian import Pair
from guidon.lab.integrate import integrate
from guidon.lab.mixture import NULL_LABEL, Exact, Mixture, told
from guidon.lab.sampled import sample
from guidon.noise import EDM, Level
from guidon.noise.noise_grids import LogSNR
from guidon.registry import register
from guidon.solvers import DDPM, Heun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROCESS = EDM()
HIGH, LOW = 80.0, 0.01  # the noise levels of the run before the clean image


@register("experiment", "two-modes")
@dataclass(frozen=True)
class TwoModes(Experiment):
    """Mean and deviation of guided samples of one of two modes, by ODE, SDE and in the powered density.

    Two classes lie on the line, p(x | ±) = N(±2, 0.25), equally often. They hardly overlap: near 2 the label + is certain anyway, so
    p(x | +)^w p(x)^(1 − w) = p(x | +) p(+ | x)^(w − 1), up to a factor, is all but the class itself. If guidance sampled this
    powered density, it would change nothing here.

    It does change something, for at high noise the classes do overlap. There guidance pushes away from the other class, more than
    is needed to be right about the label; when the noise is gone the samples are too far out and, by the ODE, too close together.
    The SDE forgets a part of what happened at high noise, so it is pushed less far and stays wider.

    The beliefs are those of the mixture, exactly. The ODE starts at evenly spaced points, weighted by the density of the start,
    so its numbers have no Monte Carlo error: once by Heun in many steps, once by an adaptive integrator of tiny error. The SDE is DDPM
    with one seed an image. Its numbers have a standard error, a small one: what guidance changed in each sample is added to the
    exact result of DDPM without guidance. The powered density is integrated numerically. All runs start from N(0, σ²) at the noise
    level 80, which knows nothing of where the class is and so costs the ODE without guidance a little of its mean.

    For a user: guidance is not a temperature of the clean image. What it adds is decided at noise levels where the classes overlap,
    so look at the mean of samples too, not at their spread alone, even where the class was never in doubt.

    Args:
        weights: w to look at, rising, at least two, the first at least 1; the pictures show the last three.
        steps: of Heun and of DDPM, at least 8.
        samples: of the SDE at each weight, at least 100.
        points: starts of the ODE, at least 50.

    Raises:
        BadValue: weights that do not rise, or too few of something.
    """

    page: ClassVar[int] = 3
    title: ClassVar[str] = "One of two modes"
    asks: ClassVar[str] = "Does guidance sharpen a class that is already far from the other, or move it?"
    sources: ClassVar[tuple[str, ...]] = ("bradley2024predictor", "ho2022classifier", "karras2022elucidating")

    weights: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5)
    steps: int = 800
    samples: int = 6000
    points: int = 400

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.weights, self.weights[1:], strict=False))
        if len(self.weights) < 2 or not rising or self.weights[0] < 1:
            raise BadValue(f"two-modes needs at least two weights, rising from 1 or more, got {list(self.weights)}")
        if self.steps < 8 or self.samples < 100 or self.points < 50:
            raise BadValue(
                f"two-modes needs steps >= 8, samples >= 100 and points >= 50, got {self.steps}, {self.samples}, {self.points}"
            )

    def run(self, track: Track[Any] = quietly) -> Findings:
        rows: list[Row] = []
        ends: dict[float, tuple[Tensor, Tensor]] = {}
        plain = self._by_ddpm(1.0)
        known = self._known()
        for weight in track(self.weights, "weights"):
            exact, heun, drawn = by_integrator(weight, self.points), self._by_heun(weight), self._by_ddpm(weight)
            ends[weight] = exact, drawn
            rows.append(
                {
                    "weight": weight,
                    **named("ode", weighted(exact)),
                    **named("heun", weighted(heun)),
                    **paired(drawn, plain, known),
                    **named("powered", powered(weight)),
                }
            )
        figures = {"": _densities(ends), "moments": _moments(rows)}
        return Findings(self._sees(rows, math.sqrt(known[1])), {"moments": rows}, figures)

    def _levels(self) -> Sequence[Level]:
        return LogSNR(sigma_min=LOW, sigma_max=HIGH).levels(PROCESS, self.steps)

    def _by_heun(self, weight: float) -> Tensor:
        start, labels = HIGH * spaced(self.points)[:, None], [0] * self.points
        return sample(world(), CFG(weight), Heun(), self._levels(), labels, range(self.points), start=start)[:, 0]

    def _by_ddpm(self, weight: float) -> Tensor:
        return sample(world(), CFG(weight), DDPM(), self._levels(), [0] * self.samples, range(self.samples))[:, 0]

    def _known(self) -> tuple[float, float]:
        """Return mean and variance of DDPM without guidance, exactly: it sees one Gaussian only."""
        mean, variance = propagate(DDPM(), CFG(1.0), self._levels(), Pair(2.0, 0.5, 2.0, 0.5), 0.0, HIGH**2)
        return float(mean), float(variance)

    def _sees(self, rows: Sequence[Row], known: float) -> list[str]:
        sees = [
            f"At w = {row['weight']:g} the ODE ends with mean {row['ode mean']:.3f} and deviation {row['ode std']:.3f}, the SDE with "
            f"{row['sde mean']:.3f} ± {row['sde mean error']:.4f} and {row['sde std']:.3f} ± {row['sde std error']:.4f}, and the "
            f"powered density has {row['powered mean']:.4f} and {row['powered std']:.4f}; the class has 2 and 0.5."
            for row in rows
            if row["weight"] in (3.0, 7.5) or row is rows[-1]
        ]
        first, last = rows[0], rows[-1]
        moved, powered_moved = last["ode mean"] - first["ode mean"], last["powered mean"] - first["powered mean"]
        sees.append(
            f"From w = {first['weight']:g} to {last['weight']:g} the mean moves by {moved:.3f} with the ODE, by "
            f"{last['sde mean'] - first['sde mean']:.3f} with the SDE, and by {powered_moved:.1g} in the powered density; the deviation "
            f"changes by the factors {last['ode std'] / first['ode std']:.2f}, {last['sde std'] / first['sde std']:.2f} and "
            f"{last['powered std'] / first['powered std']:.4f}."
        )
        between = sum(row["powered mean"] < row["sde mean"] < row["ode mean"] for row in rows if row["weight"] > 1)
        count = sum(row["weight"] > 1 for row in rows)
        sees.append(
            f"The mean of the SDE lies between that of the powered density and of the ODE at {between} of {count} weights above 1."
        )
        worst = max(abs(row[f"heun {key}"] - row[f"ode {key}"]) for row in rows for key in ("mean", "std"))
        sees.append(
            f"Heun in {self.steps} steps and the adaptive integrator agree to {worst:.1g} in mean and deviation at every weight."
        )
        sees.append(
            f"DDPM in {self.steps} steps without guidance has the deviation {known:.4f} in place of 0.5, exactly: so much error "
            "is left to its steps."
        )
        return sees


def world() -> Mixture:
    """Return two classes on the line, N(2, 0.25) with the label 0 and N(-2, 0.25) with the label 1."""
    means = torch.tensor([[2.0], [-2.0]], dtype=torch.float64)
    return Mixture(torch.ones(2), means, torch.full_like(means, 0.25), torch.tensor([0, 1]))


def spaced(points: int) -> Tensor:
    """Return standard normal scores z, evenly spaced: with the weights of `weighted` a quadrature of tiny error."""
    return torch.linspace(-7, 7, points, dtype=torch.float64)


def by_integrator(weight: float, points: int) -> Tensor:
    """Return where the guided ODE ends from `spaced` of the start, to about 1e-9."""
    start, labels = HIGH * spaced(points)[:, None], torch.zeros(points)
    levels = [PROCESS.level_at(HIGH), PROCESS.clean]
    path = integrate({"main": Exact(world())}, CFG(weight), levels, start, told(labels), rtol=1e-9, atol=1e-11)
    return path[-1, :, 0]


def weighted(ends: Tensor) -> tuple[float, float]:
    """Return mean and deviation of what starts at `spaced`."""
    share = torch.softmax(-(spaced(len(ends)) ** 2) / 2, 0)
    mean = (share * ends).sum()
    return float(mean), float((share * (ends - mean) ** 2).sum().sqrt())


def paired(drawn: Tensor, plain: Tensor, known: tuple[float, float]) -> Row:
    """Return mean and deviation of guided samples, with standard errors, by what guidance changed in each of them.

    Args:
        drawn, plain: (N,) guided samples, and those of the same seeds without guidance.
        known: exact mean and variance of the latter.
    """
    moved, spread = drawn - plain, (drawn - drawn.mean()) ** 2 - (plain - plain.mean()) ** 2
    std, root = math.sqrt(known[1] + float(spread.mean())), math.sqrt(len(drawn))
    return {
        "sde mean": known[0] + float(moved.mean()),
        "sde mean error": float(moved.std()) / root,
        "sde std": std,
        "sde std error": float(spread.std()) / root / (2 * std),
    }


def log_powered(weight: float, x: Tensor) -> Tensor:
    """Return the logarithm of p(x | +)^w p(x)^(1 - w) at clean points (N,), not normalised."""
    mixture, zeros = world(), torch.zeros(len(x))
    given, null = (mixture.log_density(x[:, None], 1.0, 0.0, zeros + label) for label in (0, NULL_LABEL))
    return weight * given + (1 - weight) * null


def powered(weight: float) -> tuple[float, float]:
    """Return mean and deviation of the powered density, by quadrature."""
    x = torch.linspace(-6, 8, 20001, dtype=torch.float64)
    share = torch.softmax(log_powered(weight, x), 0)
    mean = (share * x).sum()
    return float(mean), float((share * (x - mean) ** 2).sum().sqrt())


def named(name: str, moments: tuple[float, float]) -> dict[str, float]:
    """Return mean and deviation under names for a table."""
    return {f"{name} mean": moments[0], f"{name} std": moments[1]}


def _densities(ends: dict[float, tuple[Tensor, Tensor]]) -> Figure:
    weights = list(ends)[-3:]
    figure, axes = panels(1, len(weights), width=9 / len(weights), height=3.1, sharex=True, sharey=True)
    mixture = world()
    for panel, weight in zip(axes[0], weights, strict=True):
        ode, sde = ends[weight]
        curve(
            panel,
            lambda x: mixture.log_density(x[:, None], 1.0, 0.0, torch.zeros(len(x))).exp(),
            0,
            5,
            label="the class",
        )
        x = torch.linspace(0, 5, 1001, dtype=torch.float64)
        share = torch.softmax(log_powered(weight, x), 0) / (x[1] - x[0])
        panel.plot(x, share, color=color(0), linewidth=1.4, linestyle="--", label="powered density")
        histogram(panel, sde, 0, 5, bins=40, color=color(1), label="DDPM (SDE)")
        z = spaced(len(ode))
        slope = np.gradient(ode.numpy(), z.numpy())
        panel.plot(
            ode, torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / slope, color=color(2), linewidth=1.6, label="ODE"
        )
        plain(panel, f"weight {weight:g}", "x", "density" if panel is axes[0, 0] else "", legend=panel is axes[0, -1])
        panel.set_xlim(0, 5)
    return figure


def _moments(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(1, 2, width=4.5, height=3.0)
    weights = [row["weight"] for row in rows]
    for panel, key, title in ((axes[0, 0], "mean", "mean (class: 2)"), (axes[0, 1], "std", "deviation (class: 0.5)")):
        for index, (name, label) in enumerate(
            (("powered", "powered density"), ("sde", "DDPM (SDE)"), ("ode", "ODE, exact"))
        ):
            values = [row[f"{name} {key}"] for row in rows]
            errors = [2 * row[f"sde {key} error"] for row in rows] if name == "sde" else None
            look = {"color": color(index), "linewidth": 1.3, "marker": "o", "markersize": 3}
            panel.errorbar(weights, values, errors, capsize=2, label=label, **look)
        panel.plot(weights, [row[f"heun {key}"] for row in rows], "x", color="black", markersize=5, label="Heun")
        plain(panel, title, "guidance weight", "", legend=key == "mean")
    return figure
