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
NEAR = 1e-9  # noise levels that are the same but for rounding


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
        object.__setattr__(self, "at", tuple(self.at))
        if not self.at or len(set(self.at)) < len(self.at) or not all(0 < tau < math.inf for tau in self.at):
            raise BadValue(f"aligned needs noise levels > 0, none of them twice, got {list(self.at)}")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        """Return the aligned levels; raises `BadValue` where there are too few, or where the grid does not reach."""
        noisy, clean = _parted(self.grid.levels(process, steps))
        highest, lowest = _noise_level(noisy[0]), _noise_level(noisy[-1])
        wanted = sorted((tau for tau in self.at if not math.isclose(tau, highest, rel_tol=NEAR)), reverse=True)
        if wanted and len(noisy) == 1:
            raise BadValue(f"there is no level to move onto {wanted[0]:.6g}; take more steps")
        if not all(lowest * (1 - NEAR) <= tau < highest for tau in wanted):
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

    The result is then the state at that level, alpha x0 + sigma eps. The number of steps stays: where the grid itself reaches the
    level it is asked for one more.

    Args:
        grid: what to end.
        at: "clean" (the clean image, as every grid does), "least" (the process's least noisy level, index 0 of a table: diffusers'
            ``final_sigmas_type="sigma_min"`` and DDIM's ``set_alpha_to_one=False``), or "last" (the grid's own last
            level before the clean image: k-diffusion without the 0).
    """

    grid: Grid
    at: str = "clean"

    def __post_init__(self) -> None:
        if self.at not in ENDS:
            raise BadValue(f"no end {self.at!r}; there are: {', '.join(ENDS)}")
        if isinstance(self.grid, Ends):
            raise BadValue("a run ends once; leave one of the two ends out")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        """Return the levels up to the end; raises `BadValue` where the grid has a single level of its own."""
        levels, least = self.grid.levels(process, steps), process.level(process.t_min)
        if self.at == "clean":
            return levels
        if self.at == "least" and _noise_level(levels[-2]) > _noise_level(least) * (1 + NEAR):
            return (*levels[:-1], least)
        noisy, _ = _parted(self.grid.levels(process, steps + 1))
        if len(noisy) < 2:
            raise BadValue(f"no step is left before the {self.at} level of the grid; list more levels")
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
        if _noise_level(noisy[0]) * self.shift > highest * (1 + NEAR):
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
