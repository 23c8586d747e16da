"""Formulas and blocks of two texts about guidance as they stand there, wrong where they are wrong; for comparison only.

The *CFG tutorial* explains classifier-free guidance with code, the *GLIDE blog* classifier guidance, classifier-free guidance and
GLIDE. Everything here is written anew from what the texts say; nothing here is to be used for sampling.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidon.guidance.rule import GIVEN, NULL, About, Branch, Guided, Moment, Predictions, Rule, State
from guidon.guidance.stage import Reshape
from guidon.noise import VPTable
from guidon.noise.prediction import Prediction
from guidon.solvers.solver import Ask, Carry, Noise, Solver, Step

JUDGE = Branch("given", network="classifier", gradient=True)
NEGATIVE = Branch("negative")


@dataclass(frozen=True)
class TutorialClassifier(Rule):
    """The tutorial's classifier guidance: the gradient with the wrong sign, times the variance instead of the deviation.

    Args:
        weight: the tutorial's gamma; a negative one mends the sign, not the scale.
    """

    about: ClassVar[About] = About(formula="eps = eps_u + w (1 - abar) grad log p(y | x_t)")
    weight: float

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return NULL, JUDGE

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        push = predictions[JUDGE].score * (self.weight * float(at.here.sigma) ** 2)
        return Guided.plain(predictions[NULL].moved("eps", push)), state


@dataclass(frozen=True)
class TutorialThreshold(Reshape):
    """The tutorial's dynamic thresholding: clips the noise instead of the clean image, at one quantile of the whole batch.

    Args:
        percentile: in (0, 1].
    """

    about: ClassVar[About] = About(formula="eps clipped to [-s, s], s = the percentile of |eps| over the batch")
    percentile: float = 0.995

    def reshape(self, guided: Prediction, given: Prediction, at: Moment, state: State) -> tuple[Prediction, State]:
        reach = guided.eps.abs().flatten().quantile(self.percentile)
        return Prediction.from_eps(guided.x, guided.eps.clamp(-reach, reach), guided.level), state


@dataclass(frozen=True)
class TutorialNegative(Rule):
    """The tutorial's negative prompt, with a last sign that moves towards it, and w counted from plain conditional.

    Args:
        weight: the tutorial's w.
        push: its w_neg.
    """

    about: ClassVar[About] = About(formula="eps = eps_c + w (eps_c - eps_u) - p (eps_c - eps_n)", cost="3")
    weight: float
    push: float = 1.0

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return GIVEN, NULL, NEGATIVE

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        given, null, negative = predictions[GIVEN], predictions[NULL], predictions[NEGATIVE]
        change = self.weight * (given.eps - null.eps) - self.push * (given.eps - negative.eps)
        return Guided.plain(given.moved("eps", change)), state


@dataclass(frozen=True)
class TutorialScale(Rule):
    """What the tutorial calls CFG++: a weight divided by the mean absolute value of the whole batch's state.

    Args:
        weight: the tutorial's w_base.
    """

    about: ClassVar[About] = About(formula="eps = eps_u + w / (mean|x| + 1e-6) (eps_c - eps_u)")
    weight: float

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return GIVEN, NULL

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        given, null = predictions[GIVEN], predictions[NULL]
        scale = self.weight / (float(null.x.abs().mean()) + 1e-6)
        return Guided.plain(null.moved("eps", scale * (given.eps - null.eps))), state


@dataclass(frozen=True)
class TutorialStep(Solver):
    """The tutorial's denoising step: finds the clean image, then adds new noise of the level it came from.

    Where it is to stop it returns the state as it is, noise and all.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        if at.there.sigma == 0:
            return x, carry
        bar = float(at.here.alpha) ** 2
        clean = (x - (1 - bar) / math.sqrt(1 - bar) * guided.eps) / math.sqrt(bar)
        beta = 1 - bar / (1 - bar) * (1 - bar)
        return math.sqrt(bar) * clean + math.sqrt(beta) * noise(), carry


@dataclass(frozen=True)
class BlogDDIM(Solver):
    """DDIM with alpha = 1 - beta of each time where its cumulative product belongs, as the blog's formula reads on its own terms.

    Args:
        process: the table; levels are entries of it.
    """

    order: ClassVar[int] = 1
    process: VPTable

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        guided = yield Ask(x, at)
        here, there = (
            1.0 if level.t < 0 else 1 - self.process.betas[round(float(level.t))] for level in (at.here, at.there)
        )
        clean = (x - math.sqrt(1 - here) * guided.eps) / math.sqrt(here)
        return math.sqrt(there) * clean + math.sqrt(1 - there) * guided.eps, carry


def tutorial_schedule(steps: int, low: float = 1.0, high: float = 15.0) -> Tensor:
    """Return the tutorial's weight at each time, float64 (steps,), time 0 the least noisy."""
    way = torch.arange(steps, dtype=torch.float64) / steps
    return (high - (high - low) * (1 - torch.cos(torch.pi * way)) / 2).flip(0)


def tutorial_picked(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return what the tutorial differentiates of log p (B, K) for labels (B,): all pairs of images and labels, summed."""
    return log_p[:, labels].sum()


class TutorialAdaGN(nn.Module):
    """The tutorial's adaptive group normalisation; its linear layer fits neither the condition nor the channels.

    Args:
        channels: C, the tutorial's d_model, which is also the width of its condition.
    """

    def __init__(self, channels: int, groups: int = 4) -> None:
        super().__init__()
        self.norm, self.proj = nn.GroupNorm(groups, channels), nn.Linear(2 * channels, 4 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.proj(F.silu(condition))[..., None, None].chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift


class TutorialCrossAttention(nn.Module):
    """The tutorial's cross-attention: heads are asked for and not made, and padding is attended to.

    Args:
        width: of the positions (B, L, width).
        tokens: width of the tokens (B, T, tokens).
        heads: without effect.
    """

    def __init__(self, width: int, tokens: int, heads: int = 8) -> None:
        super().__init__()
        self.norm, self.to_q = nn.LayerNorm(width), nn.Linear(width, width)
        self.to_k, self.to_v, self.to_out = nn.Linear(tokens, width), nn.Linear(tokens, width), nn.Linear(width, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = self.to_q(self.norm(x)), self.to_k(tokens), self.to_v(tokens)
        return x + self.to_out(F.scaled_dot_product_attention(q, k, v))


def blog_caption(caption: Sequence[int], null: Sequence[int], share: float, chance: random.Random) -> Sequence[int]:
    """Return the tokens that training is told where the blog's ``else:`` is missing: dropped, and then read again."""
    if chance.random() < share:
        tokens = null
    tokens = caption
    return tokens


def blog_skips(blocks: int) -> list[int]:
    """Return the skip connections of a UNet where the line that keeps them is missing; raises `IndexError`."""
    kept: list[int] = []
    return [kept.pop() for _ in range(blocks)]
