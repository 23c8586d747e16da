"""How likely a model thinks images are: the variational bound along a chain of levels, in bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.conditioning import Labels, Texts
from guidon.conditioning.condition import Context
from guidon.errors import BadValue, NotSupported, ShapeMismatch
from guidon.model import Model
from guidon.noise import Level, Process, VPTable
from guidon.noise.bound import bound_term, prior_term
from guidon.noise.grids import Respaced
from guidon.noise.posterior import Steps, Variance
from guidon.sampling import PerImageNoise

OnStep = Callable[[int, int, None], None]


@dataclass(frozen=True, eq=False)
class BitsPerDim:
    """The bound on the negative log-likelihood of N images, in bits per dimension.

    Args:
        levels: the T + 1 levels of the chain, the noisiest first, the clean image last.
        prior: (N,) float64, what the noisiest level still tells of each image.
        terms: (N, T) float64, the term of every step; the last is that of the decoder.
        variance: that of the model's steps.
    """

    levels: tuple[Level, ...]
    prior: Tensor
    terms: Tensor
    variance: Variance

    @property
    def total(self) -> Tensor:
        """The bound of each image, (N,) float64."""
        return self.prior + self.terms.sum(1)

    @property
    def mean(self) -> float:
        """The mean over the images."""
        return float(self.total.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean; NaN for a single image."""
        count = len(self.prior)
        return float(self.total.std()) / math.sqrt(count) if count > 1 else math.nan


@torch.no_grad()
def bits_per_dim(
    model: Model,
    images: Tensor,
    told: Tensor | Texts | None = None,
    levels: Sequence[Level] | None = None,
    *,
    variance: Variance | None = None,
    seed: int = 0,
    clip: bool = True,
    batch: int = 64,
    on_step: OnStep | None = None,
) -> BitsPerDim:
    """Measure the variational bound of images under a model, one draw of noise for each step and image.

    The noise of an image is a function of the seed and its place among the images alone, so that how they are cut into batches
    changes nothing but rounding.

    Args:
        model: what believes.
        images: (N, C, H, W) in [-1, 1], of 256 values.
        told: (N,) class ids, or N texts; None: no class, no text.
        levels: the chain, the noisiest first, the clean image last; left out: the whole table of the model's process.
        variance: of the model's steps, as of the solver ddpm; left out: the learned one where there is one, else the small one.
        seed: of the first image's noise, the others count on from it.
        clip: keep what is believed of the clean image in [-1, 1], as guided-diffusion's evaluation does.
        batch: images in one forward.
        on_step: called with (forwards done, forwards, None).

    Raises:
        BadValue: there is no table to take the levels from, or the chain does not end at the clean image, or a model of texts is
            told labels or the other way round.
        ShapeMismatch: the images are not those of the model, or what is told not one for each.
        NotSupported: the variance is to be the learned one and the network learned none, or the model enlarges or completes images.

    Source: Nichol & Dhariwal, arXiv 2102.09672, section 3; guided-diffusion's ``calc_bpd_loop``.
    """
    if tuple(images.shape[1:]) != model.shape or not len(images):
        raise ShapeMismatch(f"the model is of images {model.shape}, these are {tuple(images.shape)}; resize them")
    if told is not None and len(told) != len(images):
        raise ShapeMismatch(f"{len(images)} images need as many labels or texts, got {len(told)}")
    texts = model.config.text is not None
    if told is not None and model.encoder is not None and isinstance(told, Texts) != texts:
        raise BadValue(
            "this model is told texts, not labels; give them as Texts: model.tokenizer.encode([...])"
            if texts
            else "this model is told labels, not texts; give the ids of the classes (N,)"
        )
    if model.config.low_res is not None or model.config.inpaint:
        raise NotSupported(
            "this model enlarges or completes images; its likelihood would be that of an image given another"
        )
    chain = tuple(levels) if levels is not None else whole_table(model.process)
    steps, device = Steps.of(chain), model.device
    if variance is None:
        variance = "learned" if model.denoiser.learned_variance else "small"
    starts, training = range(0, len(images), batch), model.training
    scale, count, done = model.process.start_scale(chain[0]), len(chain) - 1, 0
    prior, terms = [], []
    model.eval()
    try:
        for start in starts:
            rows = slice(start, start + batch)
            part = images[rows].to(device, torch.float32)
            context = _context(model, told, rows, len(part))
            noise = PerImageNoise(range(seed + start, seed + start + len(part)), model.shape, device)
            prior.append(prior_term(part, chain[0], scale))
            found = []
            for i, level in enumerate(chain[:-1]):
                x = part * float(level.alpha) + noise() * float(level.sigma)
                belief = model.denoiser(x, level, context)
                x0 = belief.x0.clamp(-1, 1) if clip else belief.x0
                step = steps.take(slice(i, i + 1))
                found.append(bound_term(step, part, x0, step.log_variance(variance, belief.variance_fraction, part)))
                done += 1
                if on_step is not None:
                    on_step(done, count * len(starts), None)
            terms.append(torch.stack(found, 1))
    finally:
        model.train(training)
    return BitsPerDim(chain, torch.cat(prior).double().cpu(), torch.cat(terms).double().cpu(), variance)


def whole_table(process: Process) -> tuple[Level, ...]:
    """Return every level of a table, the noisiest first, and the clean image; raises `BadValue` for a process without a table."""
    if not isinstance(process, VPTable):
        raise BadValue(
            "this process has no table of steps; say which levels to take, for instance LogSNR().levels(process, 100)"
        )
    return Respaced().levels(process, process.steps)


def _context(model: Model, told: Tensor | Texts | None, rows: slice, count: int) -> Context:
    if model.encoder is None:
        return Context()
    if told is None:
        return model.encode(model.condition([None] * count))
    return model.encode(told.take(rows) if isinstance(told, Texts) else Labels(told[rows], len(model.classes or ())))
