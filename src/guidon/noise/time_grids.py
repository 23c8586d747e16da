"""Grids of times: indices of a table, by the conventions of the libraries that trained with tables, or continuous times."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from guidon.errors import BadValue, NotSupported
from guidon.noise.grid import Grid, at_least_one
from guidon.noise.level import Level
from guidon.noise.process import Process
from guidon.noise.tables import VPTable
from guidon.registry import register


class _TimeGrid(Grid):
    """A grid that says times."""

    def levels(self, process: Process, steps: int) -> tuple[Level, ...]:
        at_least_one(steps)
        return (*(process.level(float(t)) for t in self.times(process, steps)), process.clean)

    @abstractmethod
    def times(self, process: Process, steps: int) -> list[float]:
        """Return the times of all levels but the clean one, the noisiest first."""


@register("grid", "leading")
@dataclass(frozen=True)
class Leading(_TimeGrid):
    """Every k-th index from the clean end: 0, k, 2k, ... with k = table length // steps.

    Args:
        offset: added to every index (1 in Stable Diffusion), >= 0.
        spare: indices placed beyond the steps, k that much smaller, and left out at the clean end (1 in the DPM-Solver family of
            diffusers), >= 0.
    """

    offset: int = 0
    spare: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0 or self.spare < 0:
            raise BadValue(f"leading needs offset >= 0 and spare >= 0, got {self.offset} and {self.spare}")

    def times(self, process: Process, steps: int) -> list[float]:
        places = steps + self.spare
        size = _table_size(process, places, "leading")
        times = [i * (size // places) + self.offset for i in reversed(range(self.spare, places))]
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
    """Equally spaced times from the noisiest to the least noisy one, both included.

    Args:
        spare: times placed beyond the steps and left out at the clean end (1 in the DPM-Solver family of diffusers), >= 0.
        whole: round to whole indices of a table, half to even (DDIM, DDPM and the DPM-Solver family of diffusers); else
            indices may be fractional.
    """

    spare: int = 0
    whole: bool = False

    def __post_init__(self) -> None:
        if self.spare < 0:
            raise BadValue(f"linspace needs spare >= 0, got {self.spare}")

    def times(self, process: Process, steps: int) -> list[float]:
        places = steps + self.spare
        # upwards as in the originals, so that ties round as theirs; a single time is the noisiest
        times = np.linspace(process.t_min, process.t_max, max(places, 2))[::-1][:steps]
        if self.whole:
            _table_size(process, places, "linspace with whole indices")
            times = np.round(times)
        return [float(t) for t in times]


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


def _table_size(process: Process, places: int, grid: str) -> int:
    """Return the length of a table, of which a grid picks ``places`` indices."""
    if not isinstance(process, VPTable):
        raise NotSupported(f"{grid} picks indices of a table; for a continuous process use trailing, karras or log-snr")
    if places > process.steps:
        raise BadValue(f"cannot place {places} steps on a table of {process.steps}; ask for at most {process.steps}")
    return process.steps
