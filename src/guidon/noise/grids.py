"""Which levels a solver visits: from the noisiest to the clean image.

A grid gives ``steps + 1`` levels for a process; the last one is always the clean image. Grids of indices follow the
conventions of the libraries that trained with tables; grids of noise levels fit every process.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from guidon.errors import BadValue, NotSupported
from guidon.noise.level import Level
from guidon.noise.process import Process
from guidon.noise.tables import VPTable
from guidon.registry import register


class Grid(ABC):
    """A way to place the levels of a run."""

    @abstractmethod
    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        """Return ``steps + 1`` levels of ``process``, the noisiest first, the clean image last.

        Raises:
            BadValue: fewer than one step, or more steps than the grid can place.
            NotSupported: the grid does not fit the process.
        """


class _TimeGrid(Grid):
    """A grid that says times."""

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        _at_least_one(steps)
        return (*(process.level(float(t)) for t in self.times(process, steps)), process.clean)

    @abstractmethod
    def times(self, process: Process, steps: int) -> list[float]:
        """Return the times of all levels but the clean one, the noisiest first."""


@register("grid", "leading")
@dataclass(frozen=True)
class Leading(_TimeGrid):
    """Every k-th index from the clean end: 0, k, 2k, ... with k = table length // steps.

    Args:
        offset: added to every index (1 in Stable Diffusion).
    """

    offset: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise BadValue(f"leading needs offset >= 0, got {self.offset}")

    def times(self, process: Process, steps: int) -> list[float]:
        size = _table_size(process, steps, "leading")
        times = [i * (size // steps) + self.offset for i in reversed(range(steps))]
        if times[0] >= size:
            raise BadValue(f"leading with offset {self.offset} leaves the table of {size}; use a smaller offset")
        return [float(t) for t in times]


@register("grid", "trailing")
@dataclass(frozen=True)
class Trailing(_TimeGrid):
    """Equal strides from the noisy end. Source: Lin et al., arXiv 2305.08891, section 3.3."""

    def times(self, process: Process, steps: int) -> list[float]:
        if isinstance(process, VPTable):
            size = _table_size(process, steps, "trailing")
            return [float(np.round(size - i * (size / steps)) - 1) for i in range(steps)]
        return [process.t_max * (1 - i / steps) for i in range(steps)]


@register("grid", "linspace")
@dataclass(frozen=True)
class Linspace(_TimeGrid):
    """Equally spaced times from the noisiest to the least noisy one, both included; indices may be fractional."""

    def times(self, process: Process, steps: int) -> list[float]:
        return [float(t) for t in np.linspace(process.t_max, process.t_min, steps)]


@register("grid", "respaced")
@dataclass(frozen=True)
class Respaced(_TimeGrid):
    """OpenAI's respacing of a table.

    Args:
        spec: "ddim25" (one integer stride), "25" (one section), "10,15,20" (sections from the clean end), "fast27"
            (GLIDE's upsampler); empty: one section of as many steps as the run asks for. With a spec the number
            of steps is the spec's own.
    """

    spec: str = ""

    def times(self, process: Process, steps: int) -> list[float]:
        if not isinstance(process, VPTable):
            raise NotSupported("respaced picks indices of a table; for a continuous process use karras or log-snr")
        return [float(t) for t in reversed(respaced_indices(process.steps, self.spec or str(steps)))]


@register("grid", "karras")
@dataclass(frozen=True)
class Karras(Grid):
    """Noise levels evenly spaced in their rho-th root. Source: arXiv 2206.00364, eq. 5.

    Args:
        rho: 7 in the paper; larger means more levels near the image.
        sigma_min, sigma_max: range of the noise level; left out: that of the process.
    """

    rho: float = 7.0
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise BadValue(f"karras needs rho > 0, got {self.rho}")

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        low, high = _range(process, self.sigma_min, self.sigma_max, "karras")
        ramp = _ramp(steps)
        roots = high ** (1 / self.rho) + ramp * (low ** (1 / self.rho) - high ** (1 / self.rho))
        return (*(process.level_at(float(tau)) for tau in roots**self.rho), process.clean)


@register("grid", "log-snr")
@dataclass(frozen=True)
class LogSNR(Grid):
    """Noise levels evenly spaced in their logarithm. Source: DPM-Solver, arXiv 2206.00927, section 3.3.

    Args:
        sigma_min, sigma_max: range of the noise level; left out: that of the process.
    """

    sigma_min: float | None = None
    sigma_max: float | None = None

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        low, high = _range(process, self.sigma_min, self.sigma_max, "log-snr")
        logs = math.log(high) + _ramp(steps) * (math.log(low) - math.log(high))
        return (*(process.level_at(float(tau)) for tau in np.exp(logs)), process.clean)


def respaced_indices(size: int, spec: str | list[int]) -> list[int]:
    """Return the indices of a table of ``size`` that a respacing keeps, ascending.

    Args:
        size: length of the table.
        spec: see `Respaced`; a list of ints stands for sections.

    Raises:
        BadValue: the spec cannot be read, or asks for more than there is.
    """
    if spec == "fast27":
        return sorted((set(respaced_indices(size, "10,10,3,2,2")) - {size - 1}) | {size - 3})
    if isinstance(spec, str) and spec.startswith("ddim"):
        wanted = _whole(spec[len("ddim") :], spec)
        for stride in range(1, size):
            if len(range(0, size, stride)) == wanted:
                return list(range(0, size, stride))
        raise BadValue(
            f"no whole stride picks exactly {wanted} of {size}; use another number, or {wanted!r} without ddim"
        )
    counts = [_whole(part, spec) for part in spec.split(",")] if isinstance(spec, str) else list(spec)
    kept: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        section = size // len(counts) + (1 if i < size % len(counts) else 0)
        if not 0 <= count <= section:
            raise BadValue(
                f"cannot keep {count} of a section of {section} in respacing {spec!r}; ask for 0 to {section}"
            )
        section_stride = (section - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0  # accumulated, not multiplied: the original rounds the running sum, half to even
        for _ in range(count):
            kept.append(start + round(position))
            position += section_stride
        start += section
    if not kept:
        raise BadValue(f"respacing {spec!r} keeps no index at all; ask for at least 1")
    return sorted(set(kept))


def _whole(text: str, spec: str | list[int]) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadValue(f"cannot read respacing {spec!r}; write 'ddim25', '25' or '10,15,20'") from None


def _at_least_one(steps: int) -> None:
    if steps < 1:
        raise BadValue(f"sampling needs at least 1 step, got {steps}")


def _ramp(steps: int) -> np.ndarray:
    _at_least_one(steps)
    return np.linspace(0, 1, steps)


def _table_size(process: Process, steps: int, grid: str) -> int:
    if not isinstance(process, VPTable):
        raise NotSupported(f"{grid} picks indices of a table; for a continuous process use trailing, karras or log-snr")
    if steps > process.steps:
        raise BadValue(f"cannot take {steps} steps on a table of {process.steps}; ask for at most {process.steps}")
    return process.steps


def _range(process: Process, low: float | None, high: float | None, grid: str) -> tuple[float, float]:
    lowest = float(process.noise_level(process.t_min)) if low is None else low
    highest = float(process.noise_level(process.t_max)) if high is None else high
    if math.isinf(highest):  # no noise level is evenly spaced from infinity: start where 1e-3 of the image is left
        highest = 1e3
    if not 0 < lowest < highest:
        raise BadValue(f"{grid} needs 0 < sigma_min < sigma_max, got {lowest} and {highest}")
    return lowest, highest
