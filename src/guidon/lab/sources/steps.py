"""Errors in how one moves: a threshold, a step, a schedule, a formula for DDIM."""

from __future__ import annotations

from collections.abc import Callable

import torch

from guidon.guidance.cfg import CFG
from guidon.guidance.threshold import DynamicThreshold
from guidon.guidance.weights import CosineWeight, Interval
from guidon.lab.affine import propagate
from guidon.lab.endpoints import COUNTEREXAMPLE, counterexample
from guidon.lab.gaussian import Pair
from guidon.lab.mixture import Exact
from guidon.lab.sources import texts as text
from guidon.lab.sources.item import BLOG, TABLE, TUTORIAL, Item, Number, line, run, std, steps
from guidon.noise import VE
from guidon.noise.noise_grids import LogSNR
from guidon.solvers import DDIM, DDPM, Heun, Solver


def threshold(starts: int) -> Item:
    """Item 4: clipping the noise in place of the clean image; one quantile of a batch, so the batch is large."""
    wide, narrow = line((2.0,), 0.25), line((0.4,), 0.01)
    ends = {
        "source": run({"main": Exact(wide)}, CFG(1.0) | text.TutorialThreshold(0.995), steps(50), 20 * starts),
        "right": run({"main": Exact(wide)}, CFG(1.0), steps(50), starts),
    }
    kept, source, right = (
        run({"main": Exact(narrow)}, rule, steps(50), starts)
        for rule in (CFG(1.0), CFG(1.0) | text.TutorialThreshold(0.995), CFG(1.0) | DynamicThreshold(0.995))
    )
    return Item(
        4,
        TUTORIAL,
        "dynamic thresholding",
        "clips eps at a quantile of the whole batch, without max(1, s) and without division by s",
        "clips the clean image, each image at its own s >= 1, and divides by s (`dynamic-threshold`)",
        (
            Number(
                "std of N(2, 0.25), 50 steps; right: not thresholded",
                std(ends["source"]),
                std(ends["right"]),
                4.46,
                0.47,
            ),
            Number("largest |x|", float(ends["source"].abs().max()), float(ends["right"].abs().max())),
            Number(
                "largest change of samples of N(0.4, 0.01), all in [-1, 1]",
                float((source - kept).abs().max()),
                float((right - kept).abs().max()),
            ),
        ),
        ends,
    )


def denoise_step() -> Item:
    """Item 7: a denoising step that stays at its noise level; moments followed exactly."""
    unit = Pair(0.0, 1.0, 0.0, 1.0)

    def variance(solver: Solver, count: int) -> float:
        return float(propagate(solver, CFG(1.0), steps(count), unit, 0.0, 1.0)[1])

    half = text.TutorialStep()
    thousand = variance(half, 1000)

    def ddim(levels: int) -> float:  # the clean image is one of them
        times = torch.linspace(999, -1, levels, dtype=torch.float64).round().tolist()
        return float(propagate(DDIM(), CFG(1.0), [TABLE.level(t) for t in times], unit, 0.0, 1.0)[1])

    return Item(
        7,
        TUTORIAL,
        "the denoising step",
        "α is ᾱ there: it finds the clean image, noises it anew at the same level, and ignores the next time",
        "DDIM from t to s (`ddim`), or DDPM's posterior (`ddpm`)",
        (
            Number(
                "variance of N(0, 1), 1000 steps; right: DDPM",
                thousand,
                variance(DDPM(), 1000),
                0.505,
                0.994,
            ),
            Number("variance, 1000 steps; right: DDIM", thousand, ddim(1000), 0.505, 0.996),
            Number("variance, 50 steps; right: DDIM", variance(half, 50), ddim(50), 0.547, 0.927),
        ),
    )


def schedule(limit: Callable[[CFG], float]) -> Item:
    """Item 8: progressive guidance.

    Args:
        limit: the share of the lower mode of `modes-lost` that a rule leaves.
    """
    weight = text.tutorial_schedule(1000)
    return Item(
        8,
        TUTORIAL,
        "progressive guidance",
        "recommends much weight early and little late; its schedule does just that, the flip is right",
        "little early, or an interval in the middle (`interval`); see modes-lost",
        (
            Number("weight of the first step", float(weight[999]), None, 15.0),
            Number("weight of the last step", float(weight[0]), None, 1.00003),
            Number(
                "share left of the lower mode (modes-lost); right: cfg(6) in (0.1, 0.6]",
                limit(CFG(CosineWeight(15.0, 1.0))),
                limit(CFG(6.0, Interval(0.1, 0.6))),
                0.0,
                0.509,
            ),
        ),
    )


def blog_formulas() -> Item:
    """Item 13: what the blog writes for DDIM and for the scaled score."""
    wide = Pair(2.0, 0.5, 2.0, 0.5)
    (mean, variance), (right_mean, right_variance) = (
        propagate(solver, CFG(1.0), steps(1000), wide, 0.0, 1.0) for solver in (text.BlogDDIM(TABLE), DDIM())
    )
    levels = LogSNR(sigma_min=1e-3, sigma_max=1e3).levels(VE(sigma_min=1e-3, sigma_max=1e3), 200)
    start = COUNTEREXAMPLE.std**2 + 1e6
    guided = float(propagate(Heun(), CFG(3.0), levels, COUNTEREXAMPLE, 0.0, start)[1])
    powered = counterexample(3.0)[0]
    return Item(
        13,
        BLOG,
        "DDIM and the scaled score",
        "writes α for ᾱ in DDIM's formula, and ∇log p(x | y) for the score with γ; calls the usual sampler Langevin dynamics",
        "ᾱ, the product of all α; guidance by γ ≠ 1 samples neither p(x | y) nor the powered density",
        (
            Number("mean of N(2, 0.25), 1000 steps of DDIM with α = 1 − β for ᾱ", float(mean), float(right_mean)),
            Number("variance of N(2, 0.25)", float(variance), float(right_variance)),
            Number("variance of p(x | y) at γ = 3; right: what the ODE samples", 1.0, guided, None, 0.25),
            Number("variance of the powered density at γ = 3; right: what the ODE samples", powered, guided, 0.5, 0.25),
        ),
    )
