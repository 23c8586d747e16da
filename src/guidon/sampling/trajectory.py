"""A trajectory: one solver, one rule and one set of conditions on their way from noise to images.

It turns each question of the solver into the few branch queries that the rule wants at that moment, and what the networks
answer into the one `Guided` that the solver is told. It is a state machine with two calls: look at `queries`, then `tell`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guidon import registry
from guidon.conditioning.condition import Context
from guidon.conditioning.corrupt import Drawn, RowNoise, corrupted
from guidon.errors import BadValue, NotSupported, NumericalError, ShapeMismatch
from guidon.guidance.push import Push
from guidon.guidance.rule import GIVEN, NULL, Branch, Guided, Moment, Predictions, Rule
from guidon.noise.level import Level
from guidon.noise.prediction import Prediction
from guidon.sampling.known import Known
from guidon.solvers.solver import Ask, Noise, Solver

Told = Context | Callable[[int], Context] | None


@dataclass(frozen=True, slots=True)
class Query:
    """A question to one network, for the whole batch of a trajectory or some of its images.

    Args:
        branch: which network, told what.
        x: the state (B, ...).
        level: where on the process.
        context: what the network is told, for B images.
        rows: which images of the trajectory these are; None for all.
    """

    branch: Branch
    x: Tensor
    level: Level
    context: Context
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What happened at one evaluation, for whoever looks on.

    Args:
        at: the moment.
        predictions: what the networks answered, by branch.
        guided: what the rule made of it.
        asked: network evaluations of each image, (B,) whole numbers.
    """

    at: Moment
    predictions: Predictions
    guided: Guided
    asked: Tensor


class Trajectory:
    """A batch of images that share solver, rule and steps.

    Args:
        x: the state at ``levels[0]``, (B, ...).
        levels: the levels to visit, noisiest first (see `Grid`), at least two.
        solver: how to move.
        rule: how to guide.
        contexts: what a network is told under each name that the rule's branches use ("given", "null", ...): a context, or a
            function of the step that gives one. "weak:given" is what the network "weak" is told in place of "given"; None: that it
            cannot be told that.
        noise: gives noise of the shape of ``x``.
        row_noise: gives noise for conditions, (B, *shape), for rules that blur them.
        known: pixels that stay what they are; None where nothing is known.
        look_on: called with the `Event` of every evaluation.

    Attributes:
        x: the state; the images once `done`.
        x0: the guided estimate of the clean image at the last evaluation, for previews.
        index: steps done.
        wanted: every branch that the rule may ask.
        most: the branches of the moment at which the rule may ask for most.
        queries: what the networks are to answer next; empty when done or failed.
        failed: whether an error ended it; its ``x`` is then no image.

    Raises:
        NotSupported: the rule wants a condition that there is none of, or a solver that this is not.
    """

    def __init__(
        self,
        x: Tensor,
        levels: Sequence[Level],
        solver: Solver,
        rule: Rule,
        contexts: Mapping[str, Told],
        noise: Noise,
        *,
        row_noise: RowNoise | None = None,
        known: Known | None = None,
        look_on: Callable[[Event], None] | None = None,
    ) -> None:
        if len(levels) < 2:
            raise BadValue(f"a trajectory needs at least two levels, got {len(levels)}")
        self.x, self.x0 = x, x
        self.steps = len(levels) - 1
        self.index = 0
        self.queries: tuple[Query, ...] = ()
        self.failed = False
        self._levels, self._solver, self._rule, self._contexts = levels, solver, rule, contexts
        self._noise, self._row_noise, self._known, self._look_on = noise, row_noise, known, look_on
        self._taken: dict[tuple[int, tuple[int, ...]], tuple[Context, Context]] = {}
        self._asked = 0
        self._evaluations = torch.zeros(x.shape[0], dtype=torch.long) if look_on is not None else None
        self._check_pair()
        start = self._rule.init()
        each = [self._rule.branches(at, start) for at in self._moments()] or [(GIVEN,)]
        self.wanted = tuple(dict.fromkeys(branch for branches in each for branch in branches))
        self.most = max(each, key=len)
        self._check_conditions()
        self._run = self._conversation()
        self._advance(None)

    @property
    def done(self) -> bool:
        """Return whether the images are finished."""
        return not self.queries and not self.failed

    @property
    def nfe(self) -> int | float:
        """Return the network evaluations per image so far; a mean, where some images needed fewer."""
        whole, rest = divmod(self._asked, self.x.shape[0])
        return self._asked / self.x.shape[0] if rest else whole

    def tell(self, answers: Sequence[Prediction | Exception]) -> None:
        """Give the answers to `queries`, in their order, and go on to the next question; an error ends it and is raised."""
        for answer in answers:
            if isinstance(answer, Exception):
                self.queries, self.failed = (), True
                raise answer
        self._asked += sum(query.x.shape[0] for query in self.queries)
        if self._evaluations is not None:
            for query in self.queries:
                self._evaluations[slice(None) if query.rows is None else list(query.rows)] += 1
        self._advance({q.branch: answer for q, answer in zip(self.queries, answers, strict=True)})  # type: ignore[misc]

    def _advance(self, answers: Mapping[Branch, Prediction] | None) -> None:
        try:
            self.queries = self._run.send(answers)  # type: ignore[arg-type]
        except StopIteration:
            self.queries = ()
            if not torch.isfinite(self.x).all():
                self.failed = True
                raise NumericalError("the images hold NaN or infinity after the last step") from None
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
                if ask.plain is None:
                    wanted = self._rule.branches(ask.at, before)
                    answers = yield self._queries(wanted, ask, before)
                    predictions = self._answered(wanted, answers, ask)
                    guided, after = self._rule.combine(predictions, ask.at, before)
                else:
                    predictions = yield (self._query(ask.plain, ask, None),)
                    guided, after = Guided.plain(predictions[ask.plain]), before
                if self._known is not None:
                    guided = self._known.kept(guided, ask.at.here)
                self._check_numbers(predictions, guided, ask.at)
                if self._look_on is not None:
                    self._look_on(Event(ask.at, predictions, guided, self._counted()))
                if ask.advance:
                    state = after
                self.x0 = guided.x0
                try:
                    ask = step.send(guided)
                except StopIteration as finished:
                    self.x, carry = finished.value
                    break
        self.index = self.steps

    def _queries(self, wanted: tuple[Branch, ...], ask: Ask, state: object) -> tuple[Query, ...]:
        """Return a query for each branch that is wanted; an inner head answers along with the whole network."""
        asked = dict.fromkeys(replace(branch, inner=False) if branch.inner else branch for branch in wanted)
        blurs: Drawn = {}
        return tuple(self._query(branch, ask, self._rule.rows(branch, ask.at, state), blurs) for branch in asked)

    def _query(self, branch: Branch, ask: Ask, rows: tuple[int, ...] | None, blurs: Drawn | None = None) -> Query:
        context = self._context(branch)
        if callable(context):
            context = context(ask.at.index)
        if branch.corruption is not None:
            assert self._row_noise is not None and blurs is not None
            context = corrupted(context, branch.corruption, self._row_noise, blurs)
        if rows is None:
            return Query(branch, ask.x, ask.at.here, context)
        return Query(branch, ask.x[list(rows)], ask.at.here, self._rows_of(context, rows), rows)

    def _rows_of(self, context: Context, rows: tuple[int, ...]) -> Context:
        """Return some rows of a context; the same object at every step, so that the engine joins it once."""
        key = id(context), rows
        if key not in self._taken:
            if len(self._taken) > 64:
                self._taken.clear()
            self._taken[key] = context, context.take(list(rows))  # the first is held so that its id stays its own
        return self._taken[key][1]

    def _answered(
        self, wanted: tuple[Branch, ...], answers: Mapping[Branch, Prediction], ask: Ask
    ) -> Mapping[Branch, Prediction]:
        """Return a prediction for each branch that is wanted, NaN where an image was not asked for."""
        full = {
            query.branch: answers[query.branch]
            if query.rows is None
            else _spread(answers[query.branch], query.rows, ask.x, ask.at.here)
            for query in self.queries
        }
        for branch in wanted:
            if branch.inner:
                inner = full[replace(branch, inner=False)].inner
                assert inner is not None
                full[branch] = inner
        return full

    def _counted(self) -> Tensor:
        assert self._evaluations is not None
        counted, self._evaluations = self._evaluations, torch.zeros_like(self._evaluations)
        return counted

    def _moments(self) -> Iterator[Moment]:
        """Yield every moment at which the rule will be asked: the solver's steps, rehearsed on a single zero.

        One evaluation a step without fresh noise is where the step begins.
        """
        zero, carry = torch.zeros(1, 1, dtype=torch.float64), self._solver.init()
        for index in range(self.steps):
            at = Moment(self._levels[index], self._levels[index + 1], index, self.steps)
            if self._solver.evaluations == 1 and not self._solver.stochastic:
                yield at
                continue
            step = self._solver.step(zero, at, carry, lambda: zero)
            ask = next(step)
            while True:
                if ask.plain is None:
                    yield ask.at
                belief = Prediction(zero, ask.at.here, zero, zero)
                try:
                    ask = step.send(Guided(zero, zero, zero, given=belief))
                except StopIteration as finished:
                    _, carry = finished.value
                    break

    def _check_pair(self) -> None:
        """Refuse a rule that the solver cannot follow, and levels that it cannot walk."""
        rule, solver = registry.to_text(self._rule), registry.to_text(self._solver)
        known = solver.partition("(")[0] in self._rule.only_with
        if self._rule.only_with and not known:
            raise NotSupported(
                f"{rule} works with the solver {' or '.join(self._rule.only_with)} only, not with {solver}: "
                f"{self._rule.why_only}; choose one that it works with"
            )
        if self._solver.particular and not known:
            raise NotSupported(f"the solver {solver} follows rules made for it only, not {rule}; choose another solver")
        if self._rule.tracks and not self._solver.asks_at_start:
            raise NotSupported(
                f"{rule} follows the path from step to step, and {solver} asks it elsewhere; choose another solver"
            )
        if self._solver.stochastic and any(b.noise_level > a.noise_level for a, b in itertools.pairwise(self._levels)):
            raise NotSupported(f"{solver} draws noise and cannot go up to noisier levels; take euler, heun or ddim")

    def _check_conditions(self) -> None:
        """Refuse, before the first step, what is asked for and was not given."""
        for branch in self.wanted:
            context = self._context(branch)
            if isinstance(context, Context) and context.batch not in (None, self.x.shape[0]):
                raise ShapeMismatch(
                    f"the condition {branch.condition!r} is for {context.batch} images, and the states are {self.x.shape[0]}; "
                    "give one for each"
                )
            if branch.corruption is not None and self._row_noise is None:
                raise NotSupported("the rule blurs conditions and this trajectory has no row_noise to do it with")
        if "null" in self._contexts and self._contexts["given"] is self._contexts["null"]:
            self._check_differences()

    def _check_differences(self) -> None:
        """Refuse, for a model without classes, whatever steers by what a class changes."""
        rules = [link for link in getattr(self._rule, "links", (self._rule,)) if isinstance(link, Rule)]
        for at, rule in itertools.product(self._moments(), rules):
            if not isinstance(rule, Push) and NULL in rule.branches(at, rule.init()):
                raise NotSupported(
                    f"the rule {registry.to_text(rule)} steers by what a class changes, and to a model without classes it changes "
                    "nothing; leave that part of the rule out"
                )

    def _context(self, branch: Branch) -> Context | Callable[[int], Context]:
        """Return what a network is told; raises `NotSupported` where nobody said."""
        context = self._contexts.get(f"{branch.network}:{branch.condition}", self._contexts.get(branch.condition))
        if context is None:
            if f"{branch.network}:{branch.condition}" in self._contexts:
                raise NotSupported(
                    f"the rule {registry.to_text(self._rule)} tells the {branch.network} {branch.condition!r}, which it cannot be told; "
                    "take a class, or another condition"
                )
            known = ", ".join(sorted(name for name in self._contexts if ":" not in name)) or "none"
            raise NotSupported(
                f"the rule {registry.to_text(self._rule)} asks with the condition {branch.condition!r}, but there are: "
                f"{known}; {_remedy(branch.condition)}"
            )
        return context

    def _check_numbers(self, predictions: Mapping[Branch, Prediction], guided: Guided, at: Moment) -> None:
        """Raise `NumericalError` naming branch and step where a number is NaN or infinite."""
        total = guided.x0.sum() + guided.eps.sum()
        if math.isfinite(float(total if guided.drift is None else total + guided.drift.sum())):
            return  # one look at the device a step; a sum that only overflowed is told apart below
        where = f"in step {at.index + 1} of {self.steps}, at noise level {at.noise_level:.4g}"
        asked = {query.branch: query.rows for query in self.queries}
        for branch, prediction in predictions.items():
            rows = asked.get(replace(branch, inner=False))
            values = prediction.x0 if rows is None else prediction.x0[list(rows)]
            if not torch.isfinite(values).all():
                raise NumericalError(
                    f"the branch {str(branch)!r} gave NaN or infinity {where}, asked about values up to "
                    f"{float(prediction.x.abs().max()):.3g}; where these are large guidance was too strong before, else the "
                    "network fails there: check its weights and precision"
                )
        if not (torch.isfinite(guided.x0).all() and torch.isfinite(guided.eps).all()):
            raise NumericalError(
                f"the rule {registry.to_text(self._rule)} gave NaN or infinity {where}, from finite beliefs; "
                "its weight is far too large"
            )


def _remedy(condition: str) -> str:
    """Return what to do about a condition that nobody gave."""
    name, _, number = condition.partition("-")
    if name in ("null", "random"):
        return (
            "this model has no classes, or never learned to do without one; take a rule that needs no such branch, such as pag, "
            "autoguidance or 'cfg(1) | classifier(2)'"
        )
    return f"give {number or 'one'} with {name}=..., on the command line --{name}, or use another rule"


def _spread(answer: Prediction, rows: tuple[int, ...], x: Tensor, level: Level) -> Prediction:
    """Return an answer for some images as one for all, NaN for the others."""
    index = torch.tensor(rows, device=x.device)

    def spread(part: Tensor) -> Tensor:
        return torch.full_like(x, math.nan).index_copy_(0, index, part)

    fraction = None if answer.variance_fraction is None else spread(answer.variance_fraction)
    inner = None if answer.inner is None else _spread(answer.inner, rows, x, level)
    return Prediction(x, level, spread(answer.x0), spread(answer.eps), fraction, inner)
