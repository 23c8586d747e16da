"""A network made worse on purpose, to steer away from."""

from __future__ import annotations

import copy
import math
import re
from typing import TypeVar

import torch
from torch import nn

from guidon.errors import BadValue

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def degraded(network: M, noise: float = 0.1, seed: int = 0) -> M:
    """Return a copy of a network with noise in its weights.

    Args:
        network: what to copy.
        noise: deviation of the noise in each matrix or kernel, in deviations of its own values, > 0.
        seed: of the noise.

    Source: Karras et al., arXiv 2406.02507, ask for a weak network that errs in the same way, by less capacity or less training;
    noise in the weights is a makeshift that needs no training, and errs in another way.
    """
    if not noise > 0:
        raise BadValue(f"noise in the weights is a number > 0, got {noise}")
    worse = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    for parameter in worse.parameters():
        if parameter.ndim > 1:
            drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(drawn, alpha=noise * float(parameter.std(correction=0)))
    return worse


def read_degraded(text: str) -> tuple[float, int] | None:
    """Return the noise and the seed that ``self``, ``self:0.1`` or ``self:0.1:7`` asks for; None for any other text.

    Raises:
        BadValue: the noise is no number > 0.
    """
    found = re.fullmatch(r"self(?::([\d.eE+-]+))?(?::(\d+))?", text)
    if found is None:
        return None
    try:
        noise = float(found[1] or 0.1)
    except ValueError:
        noise = math.nan
    if not 0 < noise < math.inf:
        raise BadValue(f"--weak self takes the noise in the weights, a number > 0, for instance self:0.1; got {text!r}")
    return noise, int(found[2] or 0)
