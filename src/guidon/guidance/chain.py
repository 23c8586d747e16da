"""Rules and stages in a row: ``cfg(7.5) | pag(3) | apg() | rescale(0.7)``.

The first is a rule; what follows acts on what stands left of it. A contrast adds its pull, a push its score, a shape changes the
differences, a reshape the result, a relay the questions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from guidon.errors import BadValue
from guidon.guidance.contrast import Contrast, Pull, everywhere, pulled
from guidon.guidance.push import Push
from guidon.guidance.rule import GIVEN, About, Branch, Guided, Link, Moment, Predictions, Rule, State
from guidon.guidance.stage import Relay, Reshape, Shape, Stage
from guidon.noise.prediction import Prediction
from guidon.registry import to_text


@dataclass(frozen=True)
class Chain(Rule):
    """A rule and what follows it.

    Args:
        links: the rule, then contrasts, pushes and stages, from left to right.

    Raises:
        BadValue: the first is no rule, a link cannot stand where it does, or a shape has no difference to its left.
    """

    links: tuple[Rule | Link, ...]
    about: ClassVar[About] = About(formula="from left to right")

    def __post_init__(self) -> None:
        first, *rest = self.links
        if not isinstance(first, Rule):
            raise BadValue(f"{to_text(first)} is a stage: it stands right of a rule, as in cfg(3) | {to_text(first)}")
        for i, link in enumerate(rest, start=1):
            if isinstance(link, Rule) and not (isinstance(link, Push) or (isinstance(link, Contrast) and link.adds)):
                raise BadValue(f"{to_text(link)} cannot add to another rule; let it stand first")
            if isinstance(link, Shape) and not any(isinstance(left, Contrast) for left in self._unshaped(i)):
                result = next((left for left in reversed(self.links[:i]) if isinstance(left, Reshape | Push)), None)
                raise BadValue(
                    f"{to_text(link)} changes the difference of two branches, and what stands left of it has none of "
                    "that form; put it right of a rule such as cfg(3)"
                    + (f", and left of stages that change the result: here {to_text(result)}" if result else "")
                )
            if isinstance(link, Stage) and _name(first) in link.not_after:
                raise BadValue(
                    f"{to_text(link)} cannot follow {to_text(first)}, which undoes it; leave one of them out"
                )
            if isinstance(link, Relay) and link.invents and not any(_savable(left) for left in self.links[:i]):
                raise BadValue(
                    f"{to_text(link)} saves evaluations, and {to_text(first)} has none that could be saved; leave it out"
                )

    def _unshaped(self, i: int) -> tuple[Rule | Link, ...]:
        """Return what stands left of a link and right of the last reshape or push, which makes one result of all before it."""
        last = max((j for j in range(i) if isinstance(self.links[j], Reshape | Push)), default=-1)
        return self.links[last + 1 : i]

    @property
    def _particular(self) -> Rule:
        """The first link that not every solver can follow, or the first link."""
        rules = [link for link in self.links if isinstance(link, Rule)]
        return next((rule for rule in rules if rule.only_with), rules[0])

    @property
    def only_with(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._particular.only_with

    @property
    def why_only(self) -> str:  # type: ignore[override]
        return self._particular.why_only

    @property
    def tracks(self) -> bool:  # type: ignore[override]
        return any(link.tracks for link in self.links if isinstance(link, Rule))

    def uses(self) -> frozenset[str]:
        return frozenset().union(*(link.uses() for link in self.links if isinstance(link, Rule)))

    def to_text(self) -> str:
        """Return the text form."""
        return " | ".join(to_text(link) for link in self.links)

    def __or__(self, other: object) -> Chain:
        return Chain((*self.links, other)) if isinstance(other, Link | Rule) else NotImplemented

    def init(self) -> State:
        return tuple(self._init(i) for i in range(len(self.links)))

    def _init(self, i: int) -> State:
        """Return the state of a link; a shape has one for each difference that it changes."""
        link = self.links[i]
        if isinstance(link, Shape):
            return tuple(link.init() for left in self.links[:i] if isinstance(left, Contrast))
        return link.init() if isinstance(link, Rule | Stage) else None

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return self._questions(at, state)[-1]

    def rows(self, branch: Branch, at: Moment, state: State) -> tuple[int, ...] | None:
        relays = [(link, s) for link, s in zip(self.links, state, strict=True) if isinstance(link, Relay)]
        if not relays:
            return None
        questions = self._questions(at, state)[:-1]
        chosen = [link.rows(branch, wanted, at, s) for (link, s), wanted in zip(relays, questions, strict=True)]
        sets = [set(rows) for rows in chosen if rows is not None]
        return tuple(sorted(set.intersection(*sets))) if sets else None

    def _questions(self, at: Moment, state: State) -> list[tuple[Branch, ...]]:
        """Return what the rules want, and after each relay what is asked for it; the last is what the networks see."""
        first, *rest = self.links
        wanted = list(first.branches(at, state[0]))  # type: ignore[union-attr]
        for link, s in zip(rest, state[1:], strict=True):
            if isinstance(link, Contrast) and not everywhere(link.weight_at(at), 1.0):
                # at weight 0 too: what is added to another rule's result is a difference
                wanted += [b for b in (GIVEN, *link.branches(at, s), link.away_at(at)) if b not in wanted]
            elif isinstance(link, Push):
                wanted += [b for b in link.asks(at) if b not in wanted]
        self._check_zeros(wanted, at)
        questions = [tuple(dict.fromkeys(wanted))]
        for link, s in zip(rest, state[1:], strict=True):
            if isinstance(link, Relay):
                questions.append(link.ask(questions[-1], at, s))
        return questions

    def _check_zeros(self, wanted: list[Branch], at: Moment) -> None:
        """Refuse to invent what an image of weight 0 is: the other branch, as the network has it, whoever is beside it."""
        inventor = next((link for link in self.links if isinstance(link, Relay) and link.invents), None)
        if inventor is None or GIVEN not in wanted:
            return
        zeros = self.links[0].zeros(at)  # type: ignore[union-attr]
        if any(zeros) if isinstance(zeros, tuple) else zeros:
            raise BadValue(
                f"{to_text(inventor)} does without the branch that an image of weight 0 consists of; sample such images "
                "apart, under that branch alone, or give them another weight; a schedule may begin just above 0"
            )

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        after = list(state)
        predictions = self._answered(predictions, at, state, after)
        first = self.links[0]
        assert isinstance(first, Rule)
        given = first.measure(predictions, at)
        drift = None
        current: Prediction | None = None  # what everything so far comes to; pulls still to be shaped are pending
        pending: dict[int, Pull] = {}
        for i, link in enumerate(self.links):
            if isinstance(link, Contrast):
                pull, after[i] = self._pull(link, i, predictions, at, state[i])
                if pull is not None:
                    pending[i] = pull
            elif isinstance(link, Push) and i:
                current = _together(current, pending, given)
                if link.asks(at):
                    push = link.push(predictions, at, current)
                    if link.shifts_mean:
                        drift = push if drift is None else drift + push
                    else:
                        current = current.moved("score", push)
            elif isinstance(link, Rule):
                guided, after[i] = link.combine(predictions, at, state[i])
                drift = guided.drift
                current = replace(given, x0=guided.x0, eps=guided.eps)
            if isinstance(link, Shape):
                after[i] = self._shaped(link, i, pending, at, state[i])
            if isinstance(link, Reshape):
                current = _together(current, pending, given)
                own = None if isinstance(link, Shape) else state[i]
                current, own = link.reshape(current, given, at, own)
                after[i] = after[i] if isinstance(link, Shape) else own
        current = _together(current, pending, given)
        guided = Guided(current.x0, current.eps, given.variance_fraction, drift=drift)
        return (first.finish(guided, predictions, at) if isinstance(first, Contrast) else guided), tuple(after)

    def _answered(self, predictions: Predictions, at: Moment, state: State, after: list[State]) -> Predictions:
        """Let the relays turn what was asked back into what the rules want; the last one asked, so it answers first."""
        relays = [i for i, link in enumerate(self.links) if isinstance(link, Relay)]
        if not relays:
            return predictions
        for wanted, i in zip(reversed(self._questions(at, state)[:-1]), reversed(relays), strict=True):
            link = self.links[i]
            assert isinstance(link, Relay)
            predictions, after[i] = link.answer(wanted, predictions, at, state[i])
        return predictions

    def _pull(
        self, link: Contrast, i: int, predictions: Predictions, at: Moment, state: State
    ) -> tuple[Pull | None, State]:
        pull, state = link.pull(predictions, at, state)
        if i and pull is not None and everywhere(link.weight_at(at), 0.0):
            pull = replace(pull, given=predictions[GIVEN])
        return pull, state

    def _shaped(self, link: Shape, i: int, pending: dict[int, Pull], at: Moment, state: State) -> State:
        """Shape every pending pull and return the states after it; a weight of 0 has no difference to shape."""
        after = list(state)
        contrasts = [j for j, left in enumerate(self.links[:i]) if isinstance(left, Contrast)]
        for k, j in enumerate(contrasts):
            if j not in pending or (j == 0 and _is_zero(pending[j])):
                continue
            pull = pending[j]
            away, after[k] = link.shape(pull, at, state[k])
            if self.links[j].from_away:  # type: ignore[union-attr]
                x0, eps = pull.away.x0 + pull.given.x0 - away.x0, pull.away.eps + pull.given.eps - away.eps
                given = Prediction(away.x, away.level, x0, eps, pull.given.variance_fraction)
                pending[j] = Pull(given, pull.away, pull.weight)
            else:
                pending[j] = Pull(pull.given, _but_for_zeros(pull, away) if j == 0 else away, pull.weight)
        return tuple(after)


def _name(link: Rule | Link) -> str:
    return to_text(link).partition("(")[0]


def _savable(link: Rule | Link) -> bool:
    """Return whether a rule asks a branch that a relay may go without."""
    if isinstance(link, Contrast):
        return not link.away.inner
    return isinstance(link, Rule) and link.savable


def _together(current: Prediction | None, pending: dict[int, Pull], given: Prediction) -> Prediction:
    """Return what the pending pulls make of the current belief, and leave none pending."""
    for pull in pending.values():
        current = pulled(current, pull)
    pending.clear()
    return given if current is None else current


def _is_zero(pull: Pull) -> bool:
    return not isinstance(pull.weight, torch.Tensor) and everywhere(pull.weight, 0.0)


def _but_for_zeros(pull: Pull, shaped: Prediction) -> Prediction:
    """Return the shaped belief but for the images of weight 0: they are the other branch alone, in any company."""
    weight = pull.weight
    if isinstance(weight, float | int) or (isinstance(weight, tuple) and 0.0 not in weight):
        return shaped
    # compared before it takes the images' precision, in which a weight next to nothing becomes 0
    keep = torch.as_tensor(weight, dtype=torch.float64, device=shaped.x0.device) == 0
    keep = keep.reshape(-1, *[1] * (shaped.x0.ndim - 1))
    return Prediction(
        shaped.x,
        shaped.level,
        torch.where(keep, pull.away.x0, shaped.x0),
        torch.where(keep, pull.away.eps, shaped.eps),
        shaped.variance_fraction,
    )
