"""Where guidance takes Gaussians, in closed form: by the ODE, by the reverse SDE, and where the powered density lies.

For the class N(m, s_c^2), no class N(m_u, s_u^2), r = s_c / s_u and a constant weight w, every guided path is linear. In
z = x / alpha and tau = sigma / alpha the ODE is dz/dtau = tau (w (z - m) / (s_c^2 + tau^2) + (1 - w) (z - m_u) / (s_u^2 + tau^2)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.integrate import quad

from guidon.errors import BadValue
from guidon.lab.gaussian import Pair


@dataclass(frozen=True)
class Normal:
    """A Gaussian on the line.

    Args:
        mean: its mean.
        std: its standard deviation, >= 0.
    """

    mean: float
    std: float

    @property
    def variance(self) -> float:
        """The square of the deviation."""
        return self.std**2


def ode(pair: Pair, weight: float, start: float = math.inf) -> Normal:
    """Return where the probability-flow ODE under guidance ends.

    Args:
        pair: the two densities.
        weight: the guidance weight w, 1 is plain conditional.
        start: the noise level sigma / alpha > 0 at which the run starts, from a variance-preserving N(0, 1), that is from
            z ~ N(0, 1 + start^2); infinite: the limit, in which the start is forgotten.

    Raises:
        BadValue: ``start`` is not positive.
    """
    if not start > 0:
        raise BadValue(f"a run starts at a noise level > 0, got {start}")
    if math.isinf(start):
        return Normal(
            pair.mean + (weight - 1) * pair.gap * _pull(pair.ratio, weight), pair.std_all * pair.ratio**weight
        )

    def log_phi(tau: float) -> float:
        return weight * math.log(math.hypot(pair.std, tau)) + (1 - weight) * math.log(math.hypot(pair.std_all, tau))

    def slope(y: float) -> float:  # in y = log(tau^2 + s_c^2), for scales from s_c to the start
        u = math.exp(y) - pair.std**2
        return (pair.std_all**2 + u) ** ((weight - 3) / 2) * math.exp((1 - weight / 2) * y)

    kept = math.exp(log_phi(0.0) - log_phi(start))
    shift = _integral(slope, 2 * math.log(pair.std), 2 * math.log(math.hypot(pair.std, start)))
    mean = pair.mean * (1 - kept) + 0.5 * (weight - 1) * pair.gap * math.exp(log_phi(0.0)) * shift
    return Normal(mean, kept * math.hypot(1, start))


def sde(pair: Pair, weight: float) -> Normal:
    """Return where the reverse SDE (DDPM with infinitely many steps) under guidance ends, from infinite noise."""
    log_ratio, all_variance = 2 * math.log(pair.ratio), pair.std_all**2
    if log_ratio == 0:
        return Normal(pair.mean + (weight - 1) * pair.gap, pair.std)
    # (r^2 - r^(2w)) / (1 - r^2) and (r^2 - r^(4w)) / ((1 - r^2) (2w - 1)), safe where r is near 1 or w near 1/2
    share = pair.ratio**2 / math.expm1(log_ratio)
    narrow = log_ratio if weight == 0.5 else math.expm1((2 * weight - 1) * log_ratio) / (2 * weight - 1)
    shift = share * math.expm1((weight - 1) * log_ratio)
    return Normal(pair.mean + pair.gap * shift, math.sqrt(all_variance * share * narrow))


def powered(pair: Pair, weight: float) -> Normal:
    """Return the density proportional to p(x | c)^w p(x)^(1 - w), which guidance is often said to sample.

    Raises:
        BadValue: it cannot be normalised.
    """
    precision = weight / pair.std**2 + (1 - weight) / pair.std_all**2
    if not precision > 0:
        raise BadValue(f"p(x|c)^w p(x)^(1-w) has no finite integral at w = {weight} for {pair}; take a smaller weight")
    centre = weight * pair.mean / pair.std**2 + (1 - weight) * pair.mean_all / pair.std_all**2
    return Normal(centre / precision, precision**-0.5)


COUNTEREXAMPLE = Pair(0.0, 1.0, 0.0, math.sqrt(2))
"""Bradley & Nakkiran's first counterexample: p(x | c) = N(0, 1), p(x) = N(0, 2)."""


def counterexample(weight: float) -> tuple[float, float, float]:
    """Return the variances of the powered density, of DDPM and of DDIM at a weight (their gamma), not 1/2.

    Source: Bradley & Nakkiran, arXiv 2408.09000, counterexample 1.
    """
    return 2 / (weight + 1), (2 - 2 ** (2 - 2 * weight)) / (2 * weight - 1), 2 ** (1 - weight)


def with_corrections(exponent: float, corrections: int, noise_level: float = 0.0) -> float:
    """Return the variance of predictor-corrector guidance of the counterexample with infinitely many steps, at a noise level on the way.

    With s = tau^2 it obeys dV/ds = V / (1 + s) + K V (g / (1 + s) + (1 - g) / (2 + s)) - K for K corrections and the exponent g.
    One correction and g = 2 w - 1 is guided DDPM of weight w.

    Args:
        exponent: g, at least 1.
        corrections: K, at least 1.
        noise_level: where on the way, at least 0.
    """
    k, c, n = corrections, 1 + noise_level**2, corrections * (exponent - 1) + 1

    # with u = c / (1 + s), from 0 to 1, V = K c times the integral of u^(K - 1) ((u + c) / (1 + c))^(n - 1); this power may be a
    # needle, so what is integrated over is its own integral p: a strong exponent leaves nothing steep, K = 1 nothing at all
    def kept(p: float) -> float:
        return float(((1 + c) * p ** (1 / n) - c) ** (k - 1))

    return k * c * (1 + c) / n * _integral(kept, (c / (1 + c)) ** n, 1.0)


def by_ode(weight: float, noise_level: float) -> float:
    """Return the variance of the guided ODE of the counterexample at a noise level on the way."""
    s = noise_level**2
    return (1 + s) ** weight * (2 + s) ** (1 - weight)


def sharpened_at(exponent: float, noise_level: float) -> float:
    """Return the variance of the counterexample's sharpened density of a noise level."""
    s = noise_level**2
    return 1 / (exponent / (1 + s) + (1 - exponent) / (2 + s))


def _pull(r: float, weight: float) -> float:
    """Return r^w / sin(b) times the integral of cos^(1 - w) from 0 to b = arccos r; cosh and sinh where r > 1."""
    if r == 1:
        return 1.0
    if r < 1:
        bound = math.acos(r)
        return r**weight / math.sin(bound) * _integral(lambda angle: math.cos(angle) ** (1 - weight), 0.0, bound)
    bound = math.acosh(r)
    return r**weight / math.sinh(bound) * _integral(lambda angle: math.cosh(angle) ** (1 - weight), 0.0, bound)


def _integral(function: Callable[[float], float], low: float, high: float) -> float:
    return float(quad(function, low, high, epsabs=0.0, epsrel=1e-12, limit=500)[0])
