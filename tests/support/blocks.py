"""Levels in thirds, as DPM-Solver-fast has them."""

from __future__ import annotations

import math


def fast_levels(n: int, sigma_min: float, sigma_max: float) -> list[float]:
    """Return the n + 1 noise levels that k-diffusion's ``sample_dpm_fast`` visits with n evaluations, the last one sigma_min.

    Its n // 3 + 1 strides are equal in log noise level. All are cut in three but the last, or the last two: by what is left of n
    into one or two, by none left the last but one into two.
    """
    strides = n // 3 + 1
    cuts = [3] * (strides - 2) + [2, 1] if n % 3 == 0 else [3] * (strides - 1) + [n % 3]
    ends = [math.log(sigma_max) + (math.log(sigma_min) - math.log(sigma_max)) * i / strides for i in range(strides + 1)]
    logs = [a + (b - a) * j / cut for a, b, cut in zip(ends, ends[1:], cuts, strict=False) for j in range(cut)]
    return [*(math.exp(value) for value in logs), sigma_min]
