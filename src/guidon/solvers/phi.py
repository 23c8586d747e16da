"""The functions by which an exponential integrator weighs what is believed along a step."""

from __future__ import annotations

import math


def phi(k: int, z: float) -> float:
    """Return phi_k(z) for k >= 1: phi_0 = e^z, phi_k(z) = (phi_{k-1}(z) - 1 / (k-1)!) / z, and 1 / k! at z = 0.

    Source: Hochbruck & Ostermann, "Exponential integrators", Acta Numerica 19, 2010, eq. 2.10-2.11.
    """
    if abs(z) < 1:  # the recursion would lose k digits for each that z is small by
        return sum(z**j / math.factorial(j + k) for j in range(20))
    value = math.expm1(z) / z
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z
    return value
