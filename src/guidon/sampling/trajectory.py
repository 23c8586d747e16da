"""A trajectory: one solver, one rule and one set of conditions on their way from noise to images.

It turns each question of the solver into the few branch queries that the rule wants at that moment, and what the networks
answer into the one `Guided` that the solver is told. It is a state machine with two calls: look at `queries`, then `tell`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.errors import BadValue, NotSupported, NumericalError
from guidon.guidance.rule import Branch, Moment, Rule
from guidon.noise.level import Level
from guidon.noise.prediction import Prediction
from guidon.solvers.solver import Ask, Noise, Solver


@dataclass(frozen=True, slots=True)
class Query:
    """A question to one network, for the whole batch of a trajectory.

    Args:
        branch: which network, told what.
        x: the state (B, ...).
        level: where on the process.
        context: what the network is told, for B images.
    """

    branch: Branch
    x: Tensor
    level: Level
    context: Context


class Trajectory:
    """A batch of images that share solver, rule and steps.

    Args:
        x: the state at ``levels[0]``, (B, ...).
        levels: the levels to visit, noisiest first (see `Grid`), at least two.
        solver: how to move.
        rule: how to guide.
        contexts: what the network is told under each name that the rule's branches use ("given", "null", ...).
        noise: gives noise of the shape of ``x``.

    Attributes:
        x: the state; the images once `done`.
        x0: the guided estimate of the clean image at the last evaluation, for previews.
        index: steps done.
        nfe: network evaluations per image so far.
        queries: what the networks are to answer next; empty when done or failed.
        failed: whether an error ended it; its ``x`` is then no image.

    Raises:
        NotSupported: the rule wants a condition that there is none of.
    """

    def __init__(
        self,
        x: Tensor,
        levels: Sequence[Level],
        solver: Solver,
        rule: Rule,
        contexts: Mapping[str, Context],
        noise: Noise,
    ) -> None:
        if len(levels) < 2:
            raise BadValue(f"a trajectory needs at least two levels, got {len(levels)}")
        self.x, self.x0 = x, x
        self.steps = len(levels) - 1
        self.index = self.nfe = 0
        self.queries: tuple[Query, ...] = ()
        self.failed = False
        self._levels, self._solver, self._rule, self._contexts, self._noise = levels, solver, rule, contexts, noise
        self._run = self._conversation()
        self._advance(None)

    @property
    def done(self) -> bool:
        """Return whether the images are finished."""
        return not self.queries and not self.failed

    def tell(self, answers: Sequence[Prediction]) -> None:
        """Give the answers to `queries`, in their order, and go on to the next question."""
        self.nfe += len(answers)
        self._advance({query.branch: answer for query, answer in zip(self.queries, answers, strict=True)})

    def _advance(self, answers: Mapping[Branch, Prediction] | None) -> None:
        try:
            self.queries = self._run.send(answers)  # type: ignore[arg-type]
        except StopIteration:
            self.queries = ()
            if not torch.isfinite(self.x).all():
                self.failed = True
                raise NumericalError(
                    "the images hold NaN or infinity; the network gives such values, or the weight is far too large"
                ) from None
        except Exception:
            self.queries, self.failed = (), True
            raise

    def _conversation(self) -> Generator[tuple[Query, ...], Mapping[Branch, Prediction], None]:
        """Yield the queries of each evaluation; be told their answers."""
        state, carry = self._rule.init(), self._solver.init()
        for index in range(self.steps):
            self.index = index
            at = Moment(self._levels[index], self._levels[index + 1], index, self.steps)
            step = self._solver.step(self.x, at, carry, self._noise)
            ask = next(step)
            before = state  # every evaluation of a step starts from here, so that memory grows once a step
            while True:
                predictions = yield tuple(self._query(branch, ask) for branch in self._wanted(ask))
                guided, after = self._rule.combine(predictions, ask.at, before)
                if ask.advance:
                    state = after
                self.x0 = guided.x0
                try:
                    ask = step.send(guided)
                except StopIteration as finished:
                    self.x, carry = finished.value
                    break
        self.index = self.steps

    def _wanted(self, ask: Ask) -> tuple[Branch, ...]:
        return self._rule.branches(ask.at) if ask.branches is None else ask.branches

    def _query(self, branch: Branch, ask: Ask) -> Query:
        context = self._contexts.get(branch.condition)
        if context is None:
            known = ", ".join(sorted(self._contexts)) or "none"
            raise NotSupported(f"the rule asks with the condition {branch.condition!r}, but there are: {known}")
        return Query(branch, ask.x, ask.at.here, context)
