"""The variational bound of a chain on the negative log-likelihood of an image, term by term, in bits per dimension.

    -log2 p(x0) <= prior + sum of the terms of all steps but the last + decoder

Source: Ho et al., arXiv 2006.11239, eq. 5; with learned variances Nichol & Dhariwal, arXiv 2102.09672, section 3.1. The numbers
are those of guided-diffusion, whose decoder takes tanh(sqrt(2 / pi) (z + 0.044715 z^3)) for the error function erf(z / sqrt 2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guidon.noise.level import Level
from guidon.noise.posterior import Steps, posterior_mean, wide

HALF_BIN = 1 / 255  # 256 grey values lie 2 / 255 apart in [-1, 1]
LEAST = 1e-12  # a probability below this counts as this


def bound_term(steps: Steps, images: Tensor, x0: Tensor, log_variance: Tensor) -> Tensor:
    """Return the term of a step for each image, (B,): of the decoder in the last step, a KL divergence in the others.

    Args:
        steps: one for each image, or one for all.
        images: (B, C, H, W) in [-1, 1], of 256 values.
        x0: what the model believes the images are, in the same shape.
        log_variance: of the model's step, of a shape that fits.
    """
    of_x0, _ = posterior_mean(steps.here, steps.there)
    last = wide(steps.last, images).bool()  # type: ignore[union-attr]
    apart = wide(of_x0, images) * (images - x0)  # of the two means: x_t has the same part in both
    divergence = normal_kl(apart, torch.as_tensor(wide(steps.small.log(), images)), log_variance)
    decoded = -decoder_log_prob(images, x0, log_variance)
    return _bits(torch.where(last, decoded, divergence))


def prior_term(images: Tensor, level: Level, scale: float = 1.0) -> Tensor:
    """Return KL(q(x_t | x0) || N(0, scale^2 I)) for each image, (B,): what the noisiest level still tells of it.

    Args:
        images: (B, C, H, W).
        level: the noisiest of the chain, with floats.
        scale: standard deviation of the state from which sampling starts, see `Process.start_scale`.
    """
    variance = (float(level.sigma) / scale) ** 2
    mean = images * (float(level.alpha) / scale)
    return _bits(0.5 * (mean.square() + (variance - 1 - math.log(variance))))


def normal_kl(apart: Tensor, log_variance: Tensor, other: Tensor) -> Tensor:
    """Return KL(N(m, exp log_variance) || N(m + apart, exp other)) for each entry, in nats."""
    wider = other - log_variance
    return 0.5 * (wider + torch.expm1(-wider) + apart.square() * torch.exp(-other))


def decoder_log_prob(images: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the log-probability of each of 256 grey values in [-1, 1] under a Gaussian, in nats; the bins at the ends are open.

    Source: Ho et al., arXiv 2006.11239, eq. 13.
    """
    away, narrow = images - mean, torch.exp(-0.5 * log_variance)
    below, above = _cdf((away - HALF_BIN) * narrow), _cdf((away + HALF_BIN) * narrow)
    above = torch.where(images > 0.999, 1.0, above)
    below = torch.where(images < -0.999, 0.0, below)
    return (above - below).clamp(min=LEAST).log()


def _cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def _bits(nats: Tensor) -> Tensor:
    return nats.flatten(1).mean(1) / math.log(2)
