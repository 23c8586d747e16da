"""What the engine tells a solver at given states: for claims about rules that need no run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from guidon.errors import NotSupported
from guidon.guidance import Rule
from guidon.guidance.rule import Guided
from guidon.noise import Level
from guidon.sampling import Denoises, Engine, RecordedNoise, Trajectory
from guidon.sampling.trajectory import Event, Told
from guidon.solvers import DDIM


def guided(
    networks: Mapping[str, Denoises], rule: Rule, x: Tensor, level: Level, contexts: Mapping[str, Told]
) -> Guided:
    """Return what a rule makes of the networks' answers in a step from a level to the clean image.

    Args:
        networks: as the engine's.
        rule: that goes with ddim.
        x: the states (B, *shape).
        level: of all of them, made by a process.
        contexts: what the networks are told, as a trajectory's.

    Raises:
        NotSupported: the level was made by hand, so that nobody knows the clean image's.
    """
    if level.process is None:
        raise NotSupported("a level made by hand knows no clean image; take one from a process")
    heard: list[Event] = []
    Engine(networks).run(
        [Trajectory(x, [level, level.process.clean], DDIM(), rule, contexts, RecordedNoise([]), look_on=heard.append)]
    )
    return heard[0].guided
