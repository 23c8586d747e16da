"""The guidance weight that brings Gaussians closest to the truth, for exact and for over-smoothed scores.

With exact scores plain conditional sampling is right and the best weight is 1. A network that smooths believes in variances
s_c^2 + delta^2 and s^2 + delta_all^2; then guidance can undo what smoothing did to the class, and the best weight is above 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from guidon.errors import BadValue
from guidon.lab.endpoints import Normal, ode
from guidon.lab.gaussian import Pair

Ends = Callable[[Pair, float], Normal]
Distance = Callable[[Normal, Normal], float]


def smoothed(pair: Pair, amount: float, amount_all: float) -> Pair:
    """Return a pair whose variances are larger by the squares of two amounts >= 0: that of the class, and that of no class."""
    return Pair(pair.mean, math.hypot(pair.std, amount), pair.mean_all, math.hypot(pair.std_all, amount_all))


def w2(a: Normal, b: Normal) -> float:
    """Return the squared Wasserstein-2 distance of two Gaussians."""
    return (a.mean - b.mean) ** 2 + (a.std - b.std) ** 2


def kl(a: Normal, b: Normal) -> float:
    """Return the divergence KL(a || b) of two Gaussians, deviations > 0."""
    return math.log(b.std / a.std) + (a.variance + (a.mean - b.mean) ** 2) / (2 * b.variance) - 0.5


def best_weight(
    truth: Pair, believed: Pair, distance: Distance = w2, ends: Ends = ode, low: float = 0.0, high: float = 10.0
) -> float:
    """Return the weight at which guidance by what is believed ends closest to the true class.

    Args:
        truth: the true densities, of which only that of the class counts.
        believed: those whose scores guide.
        distance: of where one ends from the truth, in this order: `w2`, or `kl`, that is KL(end || truth).
        ends: where guidance ends: `endpoints.ode` or `endpoints.sde`.
        low, high: the weights to search, low < high.

    Raises:
        BadValue: low is not less than high.
    """
    if not low < high:
        raise BadValue(f"weights are searched from low to high, got {low} and {high}")
    target = Normal(truth.mean, truth.std)

    def apart(weight: float) -> float:
        return distance(ends(believed, weight), target)

    weights = np.linspace(low, high, 101)  # there may be several minima: a strong weight may hit the mean again
    first = weights[np.argmin([apart(float(weight)) for weight in weights])]
    near = max(low, first - (high - low) / 100), min(high, first + (high - low) / 100)
    return float(minimize_scalar(apart, bounds=near, method="bounded", options={"xatol": 1e-10}).x)


def best_weight_of_equal_means(truth: Pair, believed: Pair) -> float:
    """Return the weight at which the ODE ends with the true deviation: the best one where class and all share their mean.

    Raises:
        BadValue: what is believed of the class is as wide as that of no class, so that guidance does nothing.
    """
    if believed.ratio == 1:
        raise BadValue("guidance between equally wide Gaussians changes no deviation; let the two differ")
    return math.log(truth.std / believed.std_all) / math.log(believed.ratio)


def best_weight_to_first_order(truth: Pair, believed: Pair) -> float:
    """Return the W2-best weight of the ODE by one Newton step from w = 1 on linearised mean and deviation.

    Raises:
        BadValue: the believed class is not narrower than no class.
    """
    r = believed.ratio
    if not r < 1:
        raise BadValue(f"the first-order weight is for a class narrower than all, got the ratio {r}")
    log_r, slope = -math.log(r), r * math.acos(r) / math.sqrt(1 - r**2)  # - d log S / dw, and dM / dw over the gap
    narrowing = believed.std * log_r
    return 1 + (believed.std - truth.std) * narrowing / ((believed.gap * slope) ** 2 + narrowing**2)
