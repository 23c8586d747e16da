"""Named ways to weaken a network, or to blur a condition, for one question.

Networks offer perturbations by name and rules ask for them by name, so neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A way to weaken a network.

    Args:
        name: "attention-identity", "query-blur", "skip" or "time-noise"; a network lists those it offers.
        layers: names of the layers to weaken; None: those that the network suggests.
        amount: how much, where the perturbation knows degrees (the blur's width in tokens, the noise's deviation).
        seed: of the noise, where it is random; the same noise for every image, so that a batch changes nothing.
        tag: what stays of a perturbation whose amount and seed change from step to step.
    """

    name: str
    layers: tuple[str, ...] | None = None
    amount: float = 1.0
    seed: int = 0
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Corruption:
    """A way to blur a condition: sqrt(keep) y + scale sqrt(1 - keep) n, brought back to y's mean and deviation.

    Args:
        keep: how much of the condition stays, in [0, 1].
        scale: deviation of the noise, >= 0.
        mixing: 1 brings the result all the way back to the mean and deviation of y, 0 not at all.
    """

    keep: float
    scale: float
    mixing: float = 1.0
