"""A solver: how to move from one level to the next.

A solver never calls a network. Its step is a generator that *asks* (``yield Ask(x, at)``) and is *told* a `Guided`:

    guided = yield Ask(x, at)

so the same step serves one image or a thousand requests that share a forward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from guidon.guidance.rule import Branch, Guided, Moment


@dataclass(frozen=True, slots=True)
class Ask:
    """A question of a solver, what is believed at ``x``.

    Args:
        x: the state (B, ...).
        at: its moment.
        plain: ask this branch alone and tell what it believes, without the rule.
        advance: whether the answer advances the rule's state; the second evaluation of a two-evaluation step does not.
    """

    x: Tensor
    at: Moment
    plain: Branch | None = None
    advance: bool = True


Carry = Any
Noise = Callable[[], Tensor]
Step = Generator[Ask, Guided, tuple[Tensor, Carry]]


class Solver(ABC):
    """How to move from ``at.here`` to ``at.there``; frozen, so that one solver serves any number of runs.

    Attributes:
        order: order of convergence on the probability-flow ODE (1 for stochastic solvers, in distribution), away from the ends
            of a run, where solvers of several steps begin, and some end, with lower orders.
        evaluations: guided evaluations a step; the last step, to the clean image, may take one.
        stochastic: whether steps draw noise.
        particular: whether it follows only rules that name it in their ``only_with``.
        asks_at_start: whether the rule is asked where each step begins, so that it can follow the path.
        remembers: whether a step uses what the steps before it were told.
    """

    order: ClassVar[int]
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    particular: ClassVar[bool] = False
    asks_at_start: ClassVar[bool] = True
    remembers: ClassVar[bool] = False

    def init(self) -> Carry:
        """Return what the first step is given as the carry."""
        return None

    @abstractmethod
    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        """Move ``x`` (B, ...) from ``at.here`` to ``at.there``.

        Args:
            x: the state.
            at: the step.
            carry: what the step before returned.
            noise: gives standard normal noise of the shape of ``x``, new at each call.

        Returns:
            The generator of the step; its value is the new state and carry.
        """
