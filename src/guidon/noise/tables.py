"""Discrete variance-preserving processes: a table of betas, as DDPM and its descendants train with."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guidon.errors import BadValue
from guidon.noise.level import Level, Number
from guidon.noise.process import Process
from guidon.registry import register

Table = NDArray[np.float64]


def linear_betas(steps: int, start: float | None = None, end: float | None = None) -> Table:
    """Return betas rising linearly; by default 1e-4 to 0.02 scaled by 1000 / steps. Source: arXiv 2006.11239."""
    scale = 1000 / steps
    return np.linspace(scale * 1e-4 if start is None else start, scale * 0.02 if end is None else end, steps)


def scaled_linear_betas(steps: int, start: float | None = None, end: float | None = None) -> Table:
    """Return betas whose square root rises linearly; by default 0.00085 to 0.012. Source: arXiv 2112.10752."""
    first, last = 0.00085 if start is None else start, 0.012 if end is None else end
    return np.linspace(first**0.5, last**0.5, steps) ** 2


def cosine_betas(steps: int, start: float | None = None, end: float | None = None) -> Table:
    """Return the betas of alpha_bar = cos^2((t + 0.008) / 1.008 pi / 2), at most 0.999. Source: arXiv 2102.09672."""
    if start is not None or end is not None:
        raise BadValue("the cosine table has no beta_start and beta_end; leave them out")

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), 0.999) for i in range(steps)])


def zero_terminal_snr(alphas_cumprod: Table) -> Table:
    """Shift and scale sqrt(alpha_bar) so that the last entry is 0 and the first stays. Source: arXiv 2305.08891, alg. 1."""
    root = np.sqrt(alphas_cumprod)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


SCHEDULES = {"linear": linear_betas, "scaled-linear": scaled_linear_betas, "cosine": cosine_betas}


@register("process", "vp-table")
@dataclass(frozen=True)
class VPTable(Process):
    """A variance-preserving process given by a table of betas; time is the index, 0 the least noisy, -1 the clean image.

    Between entries the noise level sigma / alpha is linear in the index.

    Args:
        schedule: "linear", "scaled-linear" or "cosine".
        steps: length of the table, >= 1.
        beta_start, beta_end: ends of the linear schedules; left out: those of the papers.
        zero_snr: rescale so that the last entry has no signal left.
        rescale_clock: show the network t * 1000 / steps instead of t (guided-diffusion's ``rescale_timesteps``).
    """

    schedule: str = "linear"
    steps: int = 1000
    beta_start: float | None = None
    beta_end: float | None = None
    zero_snr: bool = False
    rescale_clock: bool = False
    t_clean = -1.0
    t_min = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise BadValue(f"there is no table {self.schedule!r}; there are: {', '.join(SCHEDULES)}")
        if self.steps < 1:
            raise BadValue(f"a table needs at least 1 step, got {self.steps}")
        betas = SCHEDULES[self.schedule](self.steps, self.beta_start, self.beta_end)
        if not ((betas > 0) & (betas <= 1)).all():
            raise BadValue(
                f"betas lie between 0 and 1, these go from {betas.min():g} to {betas.max():g}; "
                "use more steps, or set beta_start and beta_end"
            )
        if self.zero_snr and self.steps < 2:
            raise BadValue("zero_snr needs a table of at least 2 steps")

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.steps - 1.0

    @functools.cached_property
    def alphas_cumprod(self) -> Table:
        """Return alpha_bar = alpha^2 for every index, float64 (steps,)."""
        betas = SCHEDULES[self.schedule](self.steps, self.beta_start, self.beta_end)
        alphas_cumprod = np.cumprod(1 - betas)
        return zero_terminal_snr(alphas_cumprod) if self.zero_snr else alphas_cumprod

    @functools.cached_property
    def betas(self) -> Table:
        """Return the betas that belong to `alphas_cumprod`, float64 (steps,)."""
        if not self.zero_snr:
            return SCHEDULES[self.schedule](self.steps, self.beta_start, self.beta_end)
        return 1 - self.alphas_cumprod / np.append(1.0, self.alphas_cumprod[:-1])

    @functools.cached_property
    def _noise_levels(self) -> Table:
        """Return sigma / alpha at -1, 0, ..., steps - 1; the entry for -1 is 0."""
        with np.errstate(divide="ignore"):
            return np.append(0.0, np.sqrt((1 - self.alphas_cumprod) / self.alphas_cumprod))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        bar = torch.from_numpy(np.append(1.0, self.alphas_cumprod)).to(t.device)
        below = t.floor().long().clamp(-1, self.steps - 1)
        above = (below + 1).clamp(max=self.steps - 1)
        part = t - below
        # at an entry the table itself is exact, also where the noise level is infinite
        lower, upper = (((1 - bar[i + 1]) / bar[i + 1]).sqrt() for i in (below, above))
        between = torch.where(part > 0, lower + part * (upper - lower), lower)
        alpha = torch.where(part > 0, 1 / torch.sqrt(1 + between**2), bar[below + 1].sqrt())
        sigma = torch.where(part > 0, (1 - alpha**2).clamp(min=0).sqrt(), (1 - bar[below + 1]).sqrt())
        return alpha, sigma

    def time_at(self, noise_level: float) -> float:
        known = self._noise_levels
        if noise_level >= known[-1]:
            return self.t_max
        above = int(np.searchsorted(known, noise_level, side="right"))
        if math.isinf(known[above]):
            return above - 1.0  # nothing lies between the last finite level and infinity: shown as the last entry
        return above - 2 + (noise_level - known[above - 1]) / (known[above] - known[above - 1])

    def alpha_at(self, noise_level: float) -> float:
        return 1 / math.hypot(1.0, noise_level)

    def quantile(self, u: Tensor) -> Tensor:
        return (u * self.steps).floor()

    def clock(self, t: Number) -> Number:
        shown = (
            t.clamp(min=0.0) if isinstance(t, Tensor) else max(t, 0.0)
        )  # between the first entry and the image: the first
        return shown * (1000 / self.steps) if self.rescale_clock else shown

    def start_scale(self, level: Level) -> float:
        return 1.0
