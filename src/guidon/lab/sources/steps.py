"""Errors in how one moves: a threshold, a step, a schedule, a formula for DDIM."""

from __future__ import annotations

from collections.abc import Callable

import torch

from guidon.guidance.cfg import CFG
from guidon.guidance.threshold import DynamicThreshold
from guidon.guidance.weights import CosineWeight, Interval
from guidon.lab.affine import propagate
from guidon.lab.endpoints import counterexample
from guidon.lab.gaussian import Pair
from guidon.lab.line import moments
from guidon.lab.mixture import Exact
from guidon.lab.sources import texts as text
from guidon.lab.sources.item import BLOG, TABLE, TUTORIAL, Item, Number, line, run, std, steps
from guidon.solvers import DDIM, DDPM, Heun, Solver


def threshold(starts: int) -> Item:
    """Item 4: clipping the noise in place of the clean image; one quantile of a batch, so the batch is large."""
    wide, narrow, clip = line((2.0,), 0.25), line((0.4,), 0.01), text.TutorialThreshold(0.995)
    few, many = 5 * starts, 20 * starts
    fewer, source = (run({"main": Exact(wide)}, CFG(1.0) | clip, steps(50), count) for count in (few, many))
    right = run({"main": Exact(wide)}, CFG(1.0), steps(50), starts)
    kept, clipped, mended = (
        run({"main": Exact(narrow)}, rule, steps(50), starts)
        for rule in (CFG(1.0), CFG(1.0) | clip, CFG(1.0) | DynamicThreshold(0.995))
    )
    return Item(
        4,
        TUTORIAL,
        "dynamic thresholding",
        "clips eps at a quantile of the whole batch, without max(1, s) and without division by s",
        "clips the clean image, each image at its own s >= 1, and divides by s (`dynamic-threshold`)",
        (
            Number(
                f"std of N(2, 0.25), 50 steps, a batch of {many}; right: not thresholded",
                std(source),
                std(right),
                4.46,
                0.47,
            ),
            Number(f"std, a batch of {few}", std(fewer), None),
            Number("largest |x|", float(source.abs().max()), float(right.abs().max())),
            Number(
                "largest change of samples of N(0.4, 0.01), all in [-1, 1]",
                float((clipped - kept).abs().max()),
                float((mended - kept).abs().max()),
            ),
        ),
        {"source": source, "right": right},
    )


def denoise_step() -> Item:
    """Item 7: a denoising step that stays at its noise level; moments followed exactly."""
    unit = Pair(0.0, 1.0, 0.0, 1.0)

    def variance(solver: Solver, count: int) -> float:
        return float(propagate(solver, CFG(1.0), steps(count), unit, 0.0, 1.0)[1])

    half = text.TutorialStep()
    thousand = variance(half, 1000)

    times = torch.linspace(999, -1, 50, dtype=torch.float64).round().tolist()  # the clean image is one of them
    fifty = float(propagate(DDIM(), CFG(1.0), [TABLE.level(t) for t in times], unit, 0.0, 1.0)[1])
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
            Number("variance, 1000 steps; right: DDIM", thousand, variance(DDIM(), 1000), 0.505, 0.996),
            Number("variance, 50 steps; right: DDIM", variance(half, 50), variance(DDIM(), 50), 0.547),
            Number("variance, 50 levels, the clean image one of them: 49 steps; right: DDIM", None, fifty, None, 0.927),
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
    (_, plain), (_, guided) = (moments(Heun(), weight, 200) for weight in (1.0, 3.0))
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
            Number(
                "variance of p(x | y), sampled at γ = 1; right: what the ODE samples at γ = 3", plain, guided, 1.0, 0.25
            ),
            Number("variance of the powered density at γ = 3; right: what the ODE samples", powered, guided, 0.5, 0.25),
        ),
    )
