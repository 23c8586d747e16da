"""Conventions for any grid: which levels it must meet, where the run ends, how noisy it begins. Each wraps a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from guidon.errors import BadValue, NotSupported
from guidon.noise.grid import NOISIEST, Grid
from guidon.noise.level import Level
from guidon.noise.process import Process
from guidon.noise.time_grids import Linspace
from guidon.registry import register

ENDS = ("clean", "least", "last")


@register("grid", "aligned")
@dataclass(frozen=True)
class Aligned(Grid):
    """A grid with levels moved onto given noise levels, for rules that act in an interval of them.

    Each takes the nearest level in log noise level that none has taken; the first level and the number of steps stay.

    Args:
        grid: what to align.
        at: noise levels sigma / alpha, each > 0 and none twice.
    """

    grid: Grid
    at: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.at or len(set(self.at)) < len(self.at) or not all(0 < tau < math.inf for tau in self.at):
            raise BadValue(f"aligned needs noise levels > 0, none of them twice, got {list(self.at)}")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        """Return the aligned levels; raises `BadValue` where there are too few, or where the grid does not reach."""
        noisy, clean = _parted(self.grid.levels(process, steps))
        highest, lowest = _noise_level(noisy[0]), _noise_level(noisy[-1])
        wanted = [tau for tau in self.at if tau != highest]
        if not all(lowest <= tau < highest for tau in wanted):
            raise BadValue(
                f"the grid goes from {highest:.6g} to {lowest:.6g}; align noise levels between, not {list(self.at)}"
            )
        free = list(noisy[1:])
        if len(wanted) > len(free):
            raise BadValue(f"there are {len(free)} levels to move onto {len(wanted)} noise levels; take more steps")
        for tau in wanted:
            free.remove(min(free, key=lambda level: abs(math.log(_noise_level(level) / tau))))
        placed = [*free, *(process.level_at(tau) for tau in wanted)]
        return (noisy[0], *sorted(placed, key=_noise_level, reverse=True), *clean)


@register("grid", "ends")
@dataclass(frozen=True)
class Ends(Grid):
    """A grid that ends where the run is to end: at the clean image, or at a level with a little noise left.

    Args:
        grid: what to end.
        at: "clean" (the clean image, as every grid does), "least" (the process's least noisy level, index 0 of a table: diffusers'
            ``final_sigmas_type="sigma_min"`` and DDIM's ``set_alpha_to_one=False``), or "last" (the grid's own last
            level before the clean image, one step fewer: k-diffusion without the 0). With "least" a grid that is already
            there takes one step fewer too.
    """

    grid: Grid
    at: str = "clean"

    def __post_init__(self) -> None:
        if self.at not in ENDS:
            raise BadValue(f"no end {self.at!r}; there are: {', '.join(ENDS)}")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        """Return the levels up to the end; raises `BadValue` where no step is left."""
        noisy, _ = _parted(self.grid.levels(process, steps))
        if self.at == "clean":
            return (*noisy, process.clean)
        least = process.level(process.t_min)
        if self.at == "least" and _noise_level(noisy[-1]) > _noise_level(least) * (1 + 1e-9):
            return (*noisy, least)
        if len(noisy) < 2:
            raise BadValue(f"no step is left before the {self.at} level of the grid; take at least 2 steps")
        return noisy


@register("grid", "finite")
@dataclass(frozen=True)
class Finite(Grid):
    """A grid whose level without any signal, if it has one, is replaced by the one with alpha^2 = 2^-24.

    So begin diffusers' sigma-based solvers on a table without signal at its end. Where alpha^2 + sigma^2 is not 1 it is the
    level of the same noise level.

    Args:
        grid: what to keep finite.
    """

    grid: Grid

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        """Return the levels, all of a finite noise level; raises `BadValue` where the second is noisier than that of 2^-24."""
        first, *rest = self.grid.levels(process, steps)
        if math.isfinite(_noise_level(first)):
            return (first, *rest)
        if _noise_level(rest[0]) >= NOISIEST:
            raise BadValue(
                f"the second level is noisier than {NOISIEST:.0f}, where a finite grid begins; take fewer steps"
            )
        return (process.level_at(NOISIEST), *rest)


@register("grid", "shifted")
@dataclass(frozen=True)
class Shifted(Grid):
    """A grid with all noise levels multiplied: flow times u become shift u / (1 + (shift - 1) u).

    Args:
        shift: the factor, > 0; larger means more levels at the noisy end. Flux's mu is its logarithm.
        grid: what to shift.

    Source: Esser et al., arXiv 2403.03206, on shifting timesteps with resolution.
    """

    shift: float = 3.0
    grid: Grid = field(default=Linspace())

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise BadValue(f"shifted needs shift > 0, got {self.shift}")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        """Return the shifted levels; raises `NotSupported` where the process is not that noisy."""
        noisy, clean = _parted(self.grid.levels(process, steps))
        highest = float(process.noise_level(process.t_max))
        if _noise_level(noisy[0]) * self.shift > highest * (1 + 1e-9):
            raise NotSupported(
                f"a shift by {self.shift:g} begins beyond {highest:.6g}, the noisiest that this process has; "
                "shift a grid of flow, or one with a smaller sigma_max"
            )
        return (*(process.level_at(_noise_level(level) * self.shift) for level in noisy), *clean)


def _noise_level(level: Level) -> float:
    return float(level.noise_level)


def _parted(levels: tuple[Level, ...]) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
    """Return the levels with noise, and the clean image where the grid goes there."""
    noisy = tuple(level for level in levels if _noise_level(level) > 0)
    return noisy, levels[len(noisy) :]
