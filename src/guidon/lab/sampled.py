"""A run of the real engine in a world that is known exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from guidon.errors import NotSupported
from guidon.guidance import Rule
from guidon.lab.mixture import Exact, Truth, told
from guidon.noise import Level
from guidon.sampling import Denoises, Engine, PerImageNoise, Trajectory
from guidon.solvers import Solver

AHEAD = 128  # numbers drawn for an image at once


class World(Truth, Protocol):
    """What is known exactly, and the shape of its states."""

    @property
    def shape(self) -> Sequence[int]:
        """The shape of one state."""
        ...


def sample(
    truth: World,
    rule: Rule,
    solver: Solver,
    levels: Sequence[Level],
    labels: Sequence[int] | Tensor,
    seeds: Sequence[int],
    networks: Mapping[str, Denoises] | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Return what a run ends with, float64 (B, *shape).

    Args:
        truth: what the network "main" knows exactly.
        rule: how to guide; one that blurs conditions is refused, as a blurred label is none.
        solver: how to move.
        levels: the levels of the run, made by a process (see `Grid`).
        labels: (B,) the class of each image, -1 for none.
        seeds: (B,) one for each image, for its start and its noise.
        networks: others that the rule asks, such as "weak" or "classifier".
        start: (B, *shape) the states at the first level; left out: noise.

    Raises:
        NotSupported: the levels were made by hand, so that nobody knows the noise to start from; or conditions would be blurred.
    """
    noise = _Noise(seeds, truth.shape)
    if start is None:
        if levels[0].process is None:
            raise NotSupported("levels made by hand do not say what noise to start from; make them with a grid")
        start = noise() * levels[0].process.start_scale(levels[0])
    trajectory = Trajectory(start, levels, solver, rule, told(labels), noise)
    return Engine({"main": Exact(truth), **(networks or {})}).run([trajectory])[0]


class _Noise:
    """Noise with one seed per image, drawn ahead: thousands of small states are one call an image for many steps."""

    def __init__(self, seeds: Sequence[int], shape: Sequence[int]) -> None:
        self._shape = (max(1, AHEAD // math.prod(shape)), *shape)
        self._source = PerImageNoise(seeds, self._shape, dtype=torch.float64)
        self._left: list[Tensor] = []

    def __call__(self) -> Tensor:
        """Return the next noise, (B, *shape)."""
        if not self._left:
            self._left = list(self._source().unbind(1))[::-1]
        return self._left.pop()
