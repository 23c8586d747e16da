"""Errors in what a network is and how it learns: the noise, the null, two layers, three lost lines."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from guidon.guidance.cfg import CFG
from guidon.lab.line import quantiles
from guidon.lab.mixture import NULL_LABEL, Exact, told
from guidon.lab.small_denoiser import SmallDenoiser
from guidon.lab.sources import texts as text
from guidon.lab.sources.item import BLOG, TABLE, TUTORIAL, Item, Number, run, std, steps, two_classes
from guidon.models.inject import CrossAttention, FiLM
from guidon.models.layers import Signal
from guidon.training.objective import Objective

DRAWS = 100000  # that the least loss is the mean of


def training_noise(losses: Mapping[str, Sequence[float]], seed: int) -> Item:
    """Item 2: training on a noise that was not the one added.

    Args:
        losses: of each step, by the source and right.
        seed: of the draws, pairs of even quantiles of clean image and noise in random order, at which the least loss is measured.
    """
    tail = max(1, len(losses["right"]) // 4)
    ended = {name: math.fsum(values[-tail:]) / tail for name, values in losses.items()}
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (DRAWS,), generator=generator)
    own, noise = (quantiles(DRAWS)[torch.randperm(DRAWS, generator=generator), None] for _ in range(2))
    x0 = torch.where(labels == 0, -2.0, 2.0)[:, None] + 0.5 * own
    level = TABLE.level(TABLE.sample_times(DRAWS, generator))
    alpha, sigma = (torch.as_tensor(part)[:, None] for part in (level.alpha, level.sigma))
    given = torch.where(torch.rand(DRAWS, generator=generator) < 0.1, NULL_LABEL, labels)
    found = two_classes().believe(alpha * x0 + sigma * noise, level.alpha, level.sigma, given)[1]
    return Item(
        2,
        TUTORIAL,
        "training",
        "add_noise never receives the noise that the loss asks for, so input and target are independent",
        "add the noise that is to be found (the trainer draws it once)",
        (
            Number("loss of a small network, mean of the last quarter", ended["source"], ended["right"], 1.0),
            Number(
                f"least loss possible, {DRAWS} draws",
                float(noise.square().mean()),  # knowing nothing of the noise, the best belief is its mean
                float((found - noise).square().mean()),
                1.0,
            ),
        ),
    )


def null_mismatch(trained: Sequence[SmallDenoiser], starts: int) -> Item:
    """Item 3: sampling with another null than was trained; what comes out depends on the network, so several are asked.

    Args:
        trained: on `two_classes`, each from a seed of its own.
        starts: of each run.
    """
    truth, at = two_classes(), TABLE.level(400.0)
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)[:, None]
    nobody = torch.full((101,), NULL_LABEL)
    exact = truth.believe(x, at.alpha, at.sigma, nobody)[1]
    ends: dict[str, list[Tensor]] = {"source": [], "right": []}
    errors: dict[str, list[float]] = {"source": [], "right": []}
    shares: dict[str, list[float]] = {"source": [], "right": []}
    for network in trained:
        for name, zero in (("source", True), ("right", False)):
            network.zero_null = zero
            errors[name].append(float((network(x, at, told(nobody)["given"]).eps - exact).square().mean().sqrt()))
            free = run({"main": network}, CFG(0.0), steps(50), starts)
            shares[name].append(float((free > 0).double().mean()))
            ends[name].append(run({"main": network}, CFG(1.5), steps(50), starts, label=1))
    means = {name: [float(x.mean()) for x in found] for name, found in ends.items()}
    spreads = {name: [std(x) for x in found] for name, found in ends.items()}
    right = run({"main": Exact(truth)}, CFG(1.5), steps(50), starts, label=1)
    what = {
        "error of its null at time 400, root mean square": errors,
        "share above 0 without a condition; 0.5 in truth": shares,
        f"mean by cfg(1.5); {float(right.mean()):.3f} with exact beliefs": means,
        f"std by cfg(1.5); {std(right):.3f} with exact beliefs": spreads,
    }
    return Item(
        3,
        TUTORIAL,
        "the null condition",
        "trains with one null and samples with zeros",
        "one null, learned, the same in training and sampling (`Labels.null`)",
        tuple(
            Number(f"{title}, {name} of {len(trained)} small networks", of(found["source"]), of(found["right"]))
            for title, found in what.items()
            for name, of in (("mean", fmean), ("least", min), ("largest", max))
        ),
        {"source": ends["source"][0], "right": ends["right"][0], "exact": right},
    )


@torch.no_grad()
def adagn() -> Item:
    """Item 9: shapes of adaptive group normalisation."""
    with torch.random.fork_rng(devices=[]):
        block, film = text.TutorialAdaGN(8), FiLM(8, 8)
    x = torch.linspace(-1, 1, 2 * 8 * 9).reshape(2, 8, 3, 3)
    refused = [_refuses(partial(block, x, torch.ones(2, width))) for width in (8, 16)]
    film_refused = _refuses(partial(film, x, torch.ones(2, 8)))
    return Item(
        9,
        TUTORIAL,
        "AdaGN",
        "Linear(2d, 4d) for a condition of width d: refuses it, and would give 2d scales for d channels",
        "Linear(width, 2C) from zero, GN(x) (1 + scale) + shift (`FiLM`)",
        (
            Number("scales for 8 channels", block.proj.out_features / 2, film.affine.out_features / 2),
            Number("conditions of width d that run, of 1", 1.0 - refused[0], 1.0 - film_refused),
            Number("conditions of width 2d that run, of 1", 1.0 - refused[1], None),
            Number(
                "change of the features at the start of training",
                None,
                float((film(x, torch.ones(2, 8)) - x).abs().max()),
            ),
        ),
    )


@torch.no_grad()
def cross_attention() -> Item:
    """Item 10: heads and padding of cross-attention."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        source, right = text.TutorialCrossAttention(16, 6, 4).double(), CrossAttention(16, 4, 6).double()
        torch.nn.init.normal_(right.proj_out.weight, std=0.25)
        x, tokens, noise = (torch.randn(2, 9, width, dtype=torch.float64) for width in (16, 6, 6))
    mask = torch.arange(9).expand(2, 9) < 5
    image = x.mT.reshape(2, 16, 3, 3)
    padded = torch.where(mask[..., None], tokens, noise)

    def told_image(tokens: Tensor) -> Tensor:
        return right(image, Signal(torch.zeros(2, 1), tokens=tokens, mask=mask)).flatten(2).mT

    heads = _per_head(source.to_q(source.norm(x)), source.to_k(tokens), source.to_v(tokens), 4)
    of_source = float((source(x, tokens) - (x + source.to_out(heads))).abs().max())
    query = right.query(right.norm(image).flatten(2).mT)
    key, value = right.key_value(right.norm_tokens(tokens)).chunk(2, 2)
    expected = image.flatten(2).mT + right.proj_out(_per_head(query, key, value, 4, mask))
    return Item(
        10,
        TUTORIAL,
        "cross-attention",
        "num_heads is never used (one head, softmax over √d) and padding is attended to",
        "(B, heads, L, d / heads), and a mask of what is a token (`CrossAttention`)",
        (
            Number(
                "largest difference from attention head by head, 4 heads",
                of_source,
                float((told_image(tokens) - expected).abs().max()),
                None,
                0.0,
            ),
            Number(
                "largest change where only padding changes",
                float((source(x, tokens) - source(x, padded)).abs().max()),
                float((told_image(tokens) - told_image(padded)).abs().max()),
                None,
                0.0,
            ),
        ),
    )


@torch.no_grad()
def lost_lines(seed: int) -> Item:
    """Item 14: three lines of code that the blog lost."""
    chance, draws = random.Random(seed), 10000
    rate = sum(text.blog_caption((1, 2), (), 0.1, chance) == () for _ in range(draws)) / draws
    drawn = Objective(dropout=0.1).draw(TABLE, torch.Size((draws, 1)), seed=seed, step=0, device=torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = CrossAttention(16, 4, 6)
        torch.nn.init.normal_(attention.proj_out.weight, std=0.25)
        x, one, other = torch.randn(1, 16, 3, 3), torch.randn(1, 5, 6), torch.randn(1, 5, 6)
    change = [attention(x, Signal(torch.zeros(1, 1), tokens=tokens)) for tokens in (one, other)]
    return Item(
        14,
        BLOG,
        "lost lines of code",
        "without two `else:` and one append: by construction no text in attention; missing skips; conditions are never dropped",
        "the original's three lines",
        (
            Number(
                "rate of dropped conditions, 10000 draws at 0.1", rate, float(drawn.dropped.double().mean()), 0.0, 0.1
            ),
            Number(
                "UNets whose forward runs without the append, of 1", 1.0 - _refuses(partial(text.blog_skips, 3)), None
            ),
            Number(
                "largest change of attention's output where the text changes",
                None,
                float((change[0] - change[1]).abs().max()),
            ),
        ),
    )


def _per_head(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Return attention of (B, L, d) to (B, T, d) computed one head after the other."""
    found = []
    for q, k, v in zip(*(part.chunk(heads, 2) for part in (query, key, value)), strict=True):
        scores = q @ k.mT / math.sqrt(q.shape[2])
        scores = scores if mask is None else scores.masked_fill(~mask[:, None], -torch.inf)
        found.append(scores.softmax(2) @ v)
    return torch.cat(found, 2)


def _refuses(call: Callable[[], object]) -> bool:
    """Return whether a call raises, as code with a missing line or a wrong shape does."""
    try:
        call()
    except (RuntimeError, IndexError):
        return True
    return False
