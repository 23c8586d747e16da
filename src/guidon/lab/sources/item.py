"""The test bed of the errors, and what one of them is: a line with exact beliefs and DDPM's linear table of 1000 betas.

Deterministic runs begin at evenly spaced quantiles of N(0, 1), affine ones are followed by their moments, so nothing is Monte Carlo
unless it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guidon.guidance import Rule
from guidon.lab.line import quantiles
from guidon.lab.mixture import Mixture, told
from guidon.noise import Level, VPTable
from guidon.noise.time_grids import Linspace
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.solvers import DDIM

TABLE = VPTable()
TUTORIAL, BLOG = "CFG tutorial", "GLIDE blog"


@dataclass(frozen=True)
class Number:
    """One number by the source's formula and by the right one; None where there is none.

    Args:
        what: it is.
        source, right: measured; None too where a number would be so by construction.
        printed, printed_right: in the project's reference sheet, where it has them.
    """

    what: str
    source: float | None
    right: float | None
    printed: float | None = None
    printed_right: float | None = None


@dataclass(frozen=True)
class Item:
    """One error of a text.

    Args:
        number: in the reference sheet.
        where: which text.
        about: what it is about.
        does: what the text does.
        right: what is right.
        numbers: what follows from both.
        clouds: samples, by name, for pictures.
    """

    number: int
    where: str
    about: str
    does: str
    right: str
    numbers: tuple[Number, ...]
    clouds: Mapping[str, Tensor] = field(default_factory=dict, compare=False)


def line(means: Sequence[float], variance: float) -> Mixture:
    """Return equal components on the line, each a class of its own."""
    centres = torch.tensor(means, dtype=torch.float64)[:, None]
    return Mixture(torch.ones(len(means)), centres, torch.full_like(centres, variance), torch.arange(len(means)))


def two_classes() -> Mixture:
    """Return N(-2, 0.25) and N(2, 0.25), a class each."""
    return line((-2.0, 2.0), 0.25)


def run(
    networks: Mapping[str, object],
    rule: Rule,
    levels: Sequence[Level],
    starts: int,
    label: int = 0,
    negative: int | None = None,
) -> Tensor:
    """Return the ends (starts,) of DDIM from even quantiles of the start."""
    assert levels[0].process is not None
    contexts = told(torch.full((starts,), label))
    if negative is not None:
        contexts["negative"] = told(torch.full((starts,), negative))["given"]
    begin = quantiles(starts)[:, None] * levels[0].process.start_scale(levels[0])
    trajectory = Trajectory(begin, levels, DDIM(), rule, contexts, RecordedNoise([]))
    engine = Engine(networks)  # type: ignore[arg-type]
    return engine.run([trajectory])[0][:, 0]


def steps(count: int) -> tuple[Level, ...]:
    """Return that many whole times of the table, evenly from 999 to 0, and the clean image."""
    return Linspace(whole=True).levels(TABLE, count)


def std(x: Tensor) -> float:
    """Return the standard deviation of all of them, not of a population that they were drawn from."""
    return float(x.std(correction=0))
