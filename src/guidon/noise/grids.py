"""Every grid: which levels a solver visits, from the noisiest to the clean image.

A grid gives ``steps + 1`` levels for a process; the last one is the clean image unless `Ends` says otherwise. Grids of times
are in ``time_grids``, of noise levels in ``noise_grids``, and what wraps a grid in ``conventions``.
"""

from guidon.noise.conventions import Aligned, Ends, Finite, Shifted
from guidon.noise.grid import NOISIEST, Grid
from guidon.noise.noise_grids import Beta, Exponential, Karras, Listed, LogSNR, Polyexponential, VPGrid
from guidon.noise.time_grids import Leading, Linspace, Respaced, Trailing, respaced_indices

__all__ = [
    "NOISIEST",
    "Aligned",
    "Beta",
    "Ends",
    "Exponential",
    "Finite",
    "Grid",
    "Karras",
    "Leading",
    "Linspace",
    "Listed",
    "LogSNR",
    "Polyexponential",
    "Respaced",
    "Shifted",
    "Trailing",
    "VPGrid",
    "respaced_indices",
]
