"""Errors in how beliefs are combined: a gradient, a negative condition, a weight and what it counts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guidon.guidance import Rule
from guidon.guidance.cfg import CFG
from guidon.guidance.conditions import Avoid
from guidon.guidance.energy import ClassifierGuidance
from guidon.guidance.renoise import CFGpp
from guidon.guidance.rule import GIVEN, NULL, Branch, Moment
from guidon.lab.guided import guided
from guidon.lab.mixture import Exact, ExactClassifier, told
from guidon.lab.sources import texts as text
from guidon.lab.sources.item import TABLE, TUTORIAL, Item, Number, line, run, std, steps, two_classes
from guidon.noise import EDM, Prediction
from guidon.noise.noise_grids import LogSNR


def classifier_gradient(starts: int) -> Item:
    """Item 1: the sign and the scale of classifier guidance, and which pairs of images and labels are differentiated."""
    truth = two_classes()
    networks = {"main": Exact(truth), "classifier": ExactClassifier(truth)}
    rules = {
        "right": ClassifierGuidance(1.0),
        "source": text.TutorialClassifier(1.0),
        "only the sign mended": text.TutorialClassifier(-1.0),
    }
    ends = {name: run(networks, rule, steps(1000), starts, label=1) for name, rule in rules.items()}
    source, right, mended = ends["source"], ends["right"], ends["only the sign mended"]

    def in_class(x: Tensor) -> float:
        return float((x > 0).double().mean())

    level = TABLE.level(500.0)
    x = torch.linspace(-2, 2, 8, dtype=torch.float64)[:, None].requires_grad_()
    log_p = torch.stack([truth.log_posterior(x, level, torch.full((8,), k)) for k in (0, 1)], 1)
    labels = torch.ones(8, dtype=torch.long)
    pairs, own = (
        torch.autograd.grad(total, x, retain_graph=True)[0]
        for total in (text.tutorial_picked(log_p, labels), log_p[torch.arange(8), labels].sum())
    )
    half = torch.tensor([0, 1] * 4)
    mixed, apart = (
        torch.autograd.grad(total, x, retain_graph=True)[0]
        for total in (text.tutorial_picked(log_p, half), log_p[torch.arange(8), half].sum())
    )
    numbers = (
        Number("share in the class", in_class(source), in_class(right), 0.197, 1.0),
        Number("mean", float(source.mean()), float(right.mean()), -2.82, 1.997),
        Number("std", std(source), std(right), None, 0.494),
        Number("share in the class, only the sign mended", in_class(mended), in_class(right), 0.974, 1.0),
        Number("std, only the sign mended", std(mended), std(right), 0.657, 0.494),
        Number("gradient over the right one, 8 images of one class", float((pairs / own).mean()), 1.0),
        Number("correlation with the right gradient, 4 images each of two classes", _correlation(mixed, apart), 1.0),
    )
    return Item(
        1,
        TUTORIAL,
        "classifier guidance",
        "eps + γ (1 − ᾱ) ∇log p; log_prob[:, y] pairs every image with every label; nobody tells the classifier the time (page 10)",
        "eps − γ √(1 − ᾱ) ∇log p, each image with its own label (`classifier`)",
        numbers,
        ends,
    )


def negative_prompt(starts: int) -> Item:
    """Item 5: the sign of a negative prompt."""
    x, level = torch.zeros(1, 1, dtype=torch.float64), TABLE.level(500.0)
    told_eps = {GIVEN: 1.0, NULL: 0.0, Branch("negative"): -1.0}
    beliefs = {branch: Prediction.from_eps(x, torch.full_like(x, eps), level) for branch, eps in told_eps.items()}
    at = Moment(level, TABLE.level(490.0))
    eps = {
        name: float(rule.combine(beliefs, at, None)[0].eps)
        for name, rule in (("source", text.TutorialNegative(7.5, 3.0)), ("right", Avoid(7.5, 3.0)))
    }
    truth = line((1.5, 0.5, -2.0), 0.25)
    networks = {"main": Exact(truth)}
    ends = {
        "source": run(networks, text.TutorialNegative(1.0, 1.0), steps(200), starts, 0, 1),
        "right": run(networks, Avoid(2.0, 1.0), steps(200), starts, 0, 1),
        "without": run(networks, CFG(2.0), steps(200), starts, 0),
    }
    judge, clean = ExactClassifier(truth), TABLE.clean
    posterior = {
        name: float(judge.log_prob(x[:, None], clean, told(torch.ones(starts))["given"]).exp().mean())
        for name, x in ends.items()
    }
    return Item(
        5,
        TUTORIAL,
        "negative prompts",
        "eps_c + w (eps_c − eps_u) − p (eps_c − eps_n): the last term moves towards n",
        "eps_u + w (eps_c − eps_u) − p (eps_n − eps_u) (`avoid`)",
        (
            Number("eps for c = 1, n = −1, u = 0, w = 7.5, p = 3", eps["source"], eps["right"], 2.5, 10.5),
            Number(
                "mean with the class at 1.5, the negative at 0.5",
                float(ends["source"].mean()),
                float(ends["right"].mean()),
            ),
            Number("mean without the negative", None, float(ends["without"].mean())),
            Number("posterior of the negative class", posterior["source"], posterior["right"]),
            Number("posterior of the negative class without it", None, posterior["without"]),
        ),
        ends,
    )


def not_cfgpp(starts: int) -> Item:
    """Item 6: what the tutorial calls CFG++."""
    ends: dict[str, Tensor] = {}
    spread: dict[tuple[str, float], tuple[float, float]] = {}
    for unit in (1.0, 0.1):
        truth = line((-2.0 * unit, 2.0 * unit), 0.25 * unit**2)
        levels = LogSNR(sigma_min=0.01 * unit, sigma_max=80 * unit).levels(EDM(), 50)
        for name, rule in (("source", text.TutorialScale(2.0)), ("right", CFGpp(0.2))):
            x = run({"main": Exact(truth)}, rule, levels, starts, label=1) / unit
            ends[f"{name}, unit {unit:g}"] = x
            spread[name, unit] = float(x.mean()), std(x)
    truth, at = two_classes(), Moment(TABLE.level(500.0), TABLE.level(400.0))
    h = math.log(float(at.here.noise_level / at.there.noise_level))
    levels = (at.here, at.there)

    def one(rule: Rule) -> Tensor:
        return run({"main": Exact(truth)}, rule, levels, starts, label=1)

    target = one(CFG(0.6 / -math.expm1(-h)))
    return Item(
        6,
        TUTORIAL,
        "CFG++",
        "calls CFG++ a weight divided by mean |x|, which depends on the units of the data",
        "CFG++ re-noises with the null branch (`cfgpp`); the tutorial's is `dynamic-scale`",
        (
            Number("mean over the unit, unit 1", spread["source", 1.0][0], spread["right", 1.0][0]),
            Number("mean over the unit, unit 0.1", spread["source", 0.1][0], spread["right", 0.1][0]),
            Number("std over the unit, unit 1", spread["source", 1.0][1], spread["right", 1.0][1]),
            Number("std over the unit, unit 0.1", spread["source", 0.1][1], spread["right", 0.1][1]),
            Number(
                "largest difference of a step from DDIM's with w = λ / (1 − e^−h), λ = 0.6",
                float((one(text.TutorialScale(0.6)) - target).abs().max()),
                float((one(CFGpp(0.6)) - target).abs().max()),
                None,
                0.0,
            ),
        ),
        ends,
    )


def no_expansion() -> Item:
    """Item 11: the difference of the branches is the classifier's gradient, exactly."""
    truth, worst, largest = line((-2.0, -0.5, 1.0), 0.25), 0.0, 0.0
    networks = {"main": Exact(truth), "classifier": ExactClassifier(truth)}
    x = torch.linspace(-4, 4, 201, dtype=torch.float64)[:, None]
    for time in range(0, 1000, 37):
        given, null, pushed = (
            guided(networks, rule, x, TABLE.level(float(time)), told(torch.zeros(201))).eps  # type: ignore[arg-type]
            for rule in (CFG(1.0), CFG(0.0), ClassifierGuidance(1.0))
        )
        worst, largest = (
            max(worst, float((given - pushed).abs().max())),
            max(largest, float((given - null).abs().max())),
        )
    return Item(
        11,
        TUTORIAL,
        "why CFG works",
        "a first-order expansion whose higher terms are said to be small; a paper's year, title and results that are not its own",
        "Δ = eps_c − eps_u = −σ ∇log p(c | x_t) exactly, by Bayes' rule; there are no further terms",
        (
            Number(
                "largest |Δ + σ ∇log p(c | x_t)|, by cfg and classifier, 28 times and x in [−4, 4]",
                None,
                worst,
                None,
                1e-12,
            ),
            Number("largest |Δ| there", None, largest),
        ),
    )


def conventions() -> Item:
    """Item 12: what a weight counts from."""
    x, level = torch.zeros(1, 1, dtype=torch.float64), TABLE.level(500.0)
    told_eps = {GIVEN: 1.0, NULL: 0.0, Branch("negative"): 0.0}
    beliefs = {branch: Prediction.from_eps(x, torch.full_like(x, eps), level) for branch, eps in told_eps.items()}
    at = Moment(level, TABLE.level(490.0))

    def eps(rule: Rule) -> float:
        return float(rule.combine(beliefs, at, None)[0].eps)

    return Item(
        12,
        TUTORIAL,
        "what w counts from",
        "w counts from no condition in one function and from plain conditional in another",
        "w = 0 is unconditional and w = 1 plain conditional, everywhere",
        tuple(
            Number(
                f"share of eps_c at w = {w:g}, in the function for negative prompts",
                eps(text.TutorialNegative(w, 0.0)),
                eps(Avoid(w, 0.0)),
            )
            for w in (0.0, 1.0)
        ),
    )


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
