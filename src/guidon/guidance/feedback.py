"""Feedback guidance: a weight for each image that grows where its own path says that the condition was not followed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance.contrast import Contrast, Pull
from guidon.guidance.rule import GIVEN, NULL, About, Branch, Moment, Predictions
from guidon.noise.level import Level
from guidon.registry import register

REFERENCE = 3.0  # the weight that is reached at t0 where nothing speaks for or against the condition
LARGEST = 3.0  # of log R


class Track(NamedTuple):
    """What is remembered of the path, in z = x / alpha so that it is the same for every process.

    Args:
        log_ratio: log R of each image (B,), float64, up to the last state.
        given, null: mean of the next state under each belief (B, ...).
        level: noise level of the next state.
        variance: of the next state under either belief.
    """

    log_ratio: Tensor
    given: Tensor
    null: Tensor
    level: float
    variance: float


@register("rule", "fbg")
@dataclass(frozen=True)
class FBG(Contrast):
    """Feedback guidance: from the path of each image, how likely the condition is; the less so, the larger the weight.

    The network's conditional belief is taken to be a mixture, p_net(x | c) = share p(x | c) + (1 - share) p(x), and undone for the
    state at hand with the ratio R = p_net(x | c) / p(x), which is tracked along the path: from one state to the next it changes by how
    much likelier the step was under the given belief than under none. In a second evaluation of a step the weight is that of the step
    before.

    Args:
        share: the paper's pi, in (0, 1]; the weight starts at 1 / share. 1 is plain conditional.
        t0: the part of the run still to come when the weight reaches 3 where nothing speaks for or against the condition, in [0, 1);
            ``none`` tracks without that bias.
        temperature: how much the path counts, > 0; 1 is Bayes' rule. See `temperature_from_t1`.
        most: the largest weight, > 1.

    Raises:
        BadValue: a setting is out of its range.

    Source: Koulischer et al., arXiv 2506.06085, eq. 8 and algorithm 1, as in the authors' code (the sign in the printed algorithm is
    another).
    """

    about: ClassVar[About] = About(
        formula="D = D_u + w (D_c - D_u), w = R / (R - (1 - share)), "
        "log R <- log R - temperature / 2v (|z - m_c|^2 - |z - m_u|^2) - delta",
        cost="2",
        ranges=("EDM2-XS: share 0.999, t0 0.556, most 10; the temperature belongs to the size of the images",),
        sources=("koulischer2025feedback",),
        notes="The sum over an image grows with its size, so the temperature does not carry over between sizes. Exact for small "
        "steps; the paper uses it with deterministic solvers too. cfg(w) | fbg() is the paper's hybrid with a constant "
        "weight if `most` is lowered by w - 1. "
        "The second evaluation of a two-evaluation step uses the weight of the step before; the authors' code that of the step.",
    )

    tracks: ClassVar[bool] = True

    share: float = 0.95
    t0: float | None = 0.5
    temperature: float = 0.01
    most: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise BadValue(f"fbg needs a share in (0, 1], got {self.share}")
        if self.t0 is not None and not (0 <= self.t0 < 1 and self.share > 1 / REFERENCE):
            raise BadValue(
                f"fbg needs t0 in [0, 1), and a share above 1/3 (the weight is 1/share at first and {REFERENCE:g} at t0), "
                f"got {self.t0} and {self.share}; t0=none tracks without that bias"
            )
        if not self.temperature > 0:
            raise BadValue(f"fbg needs a temperature > 0, got {self.temperature}")
        if not self.most > 1:
            raise BadValue(f"fbg needs most > 1, got {self.most}")

    @property
    def away(self) -> Branch:
        return NULL

    def weight_at(self, at: Moment) -> float | None:
        return 1.0 if self.share == 1 else None

    def pull(self, predictions: Predictions, at: Moment, state: Track | None) -> tuple[Pull | None, Track | None]:
        if self.share == 1:
            return None, state
        given, null = predictions[GIVEN], predictions[NULL]
        later = at.began is not None  # a trial state: it tells nothing of the path
        log_ratio = self._log_ratio(given.x, at, state, moved=not later)
        ratio = log_ratio.exp()
        pull = Pull(given, null, (ratio / (ratio - (1 - self.share))).to(given.x.dtype))
        if later:
            return pull, state
        kept, variance = _transition(at.here, at.there)
        of_x = float(at.there.noise_level / at.here.sigma) ** 2 * float(at.here.alpha)
        means = [given.x * of_x + belief.x0 * (1 - kept) for belief in (given, null)]
        return pull, Track(log_ratio, means[0], means[1], float(at.there.noise_level), variance)

    def _log_ratio(self, x: Tensor, at: Moment, before: Track | None, *, moved: bool) -> Tensor:
        """Return log R (B,): as it was before, and, where a step led to ``x``, changed by that."""
        least = math.log((1 - self.share) * self.most / (self.most - 1))
        if before is None:
            return torch.zeros(x.shape[0], dtype=torch.float64, device=x.device).clamp_min(least)
        if not moved:
            return before.log_ratio
        # a solver may have added noise to where the step led
        variance = before.variance + max(at.noise_level**2 - before.level**2, 0.0)
        twice = 2 * x / at.here.alpha - before.given - before.null
        nearer_null = ((before.null - before.given) * twice).flatten(1).sum(1, dtype=torch.float64)
        bias = 0.0 if self.t0 is None else _bias(self.share, self.t0, at.steps)
        log_ratio = before.log_ratio - self.temperature / (2 * variance) * nearer_null + bias
        return log_ratio.clamp(least, max(LARGEST, least))


def temperature_from_t1(levels: Sequence[Level], t1: float, share: float, t0: float, distance: float = 10.0) -> float:
    """Return the temperature at which, at time t1, a step that is nearer to one belief's mean by ``distance`` outweighs the bias.

    Args:
        levels: of the run, noisiest first.
        t1: part of the run still to come, in (0, 1].
        share, t0: of the rule.
        distance: a squared distance in z = x / alpha, summed over an image; measure it on your data. 10 is the paper's, for latents of
            4 x 64 x 64.

    Source: Koulischer et al., arXiv 2506.06085, and their code.
    """
    steps = len(levels) - 1
    if not 0 < t1 <= 1:
        raise BadValue(f"t1 is in (0, 1], got {t1}")
    variances = [_transition(here, there)[1] for here, there in itertools.pairwise(levels)][::-1]
    place = min(t1 * steps, steps - 1)  # counted from the clean end, where the variance is 0
    low = math.floor(place)
    variance = variances[low] + (place - low) * (variances[min(low + 1, steps - 1)] - variances[low])
    return abs(2 * variance * _bias(share, t0, steps) / distance)


def _bias(share: float, t0: float, steps: int) -> float:
    """Return what log R loses a step, so that the weight is REFERENCE at t0."""
    return math.log((1 - share) * REFERENCE / (REFERENCE - 1)) / ((1 - t0) * steps)


def _transition(here: Level, there: Level) -> tuple[float, float]:
    """Return the part of z in the mean of the next z, the clean image being the rest, and its variance."""
    kept = float(there.noise_level / here.noise_level) ** 2
    return kept, float(there.noise_level) ** 2 * (1 - kept)
