"""Any pipeline of diffusers under any rule: ``guidon.steer(pipe, "cfg(5) | rescale(0.7)")``, and ``pipe(prompt)`` as ever."""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from guidon import registry
from guidon.bridges.guide import Asked, Guide, Score
from guidon.bridges.intercept import Answer, after_step, class_with_call, instead_of_call
from guidon.bridges.layout import Layout, layout_of
from guidon.bridges.question import Question
from guidon.bridges.told import asked_under, has_negative, other_words, without_negative
from guidon.errors import BadValue, NotSupported
from guidon.guidance import CFG
from guidon.guidance.rule import Rule

Told = str | int | Tensor | Sequence[str | int | Tensor]


def steer(
    pipe: Any,
    rule: str | Rule | float,
    *,
    weak: Any = None,
    negative: Told = (),
    also: Told = (),
    partial: Told = (),
    classifier: Score | None = None,
    batching: str = "joint",
    seed: int = 0,
    layout: Layout | None = None,
) -> Steering:
    """Let a diffusers pipeline guide by a rule, from now on or in a ``with`` block; it is called as ever.

    The pipeline's own weight (``guidance_scale``) no longer matters. What it is told as ``negative_prompt`` stands where its own
    formula has it, in the place of nothing; a rule that knows both has it as its negative condition.

    Args:
        pipe: any pipeline of `guidon.bridges.layout.LAYOUTS`, as it is: with LoRA, IP-Adapter, offloading, compiled networks.
        rule: text form or object; a number w stands for CFG(w).
        weak: for ``autoguidance`` a worse network: a pipeline like this one, or the network alone.
        negative, also, partial: what else rules are told, as the pipeline is told its prompt (or class, or embedding of an image): one,
            or several, the second of which is known as "negative-2"; for all images.
        classifier: (x, level) -> log p(what is asked for | x) (B,), differentiable in x, which is what the network is shown.
        batching: "joint" asks all branches of a step at once where they fit together, "sequential" one after the other, for less memory.
        seed: of the noise of blurred conditions, of the first image; the others count on from it.
        layout: how a pipeline that guidon does not know asks its networks.

    Returns:
        A `Steering`, which ends at the end of a ``with`` block or by ``remove()``.

    Raises:
        NotSupported: the pipeline is of no family that guidon knows, or is steered already. What a rule lacks is said when the
            pipeline is called, before its first step.
        BadValue, UnknownName: an argument is not what it must be.
    """
    if batching not in ("joint", "sequential"):
        raise BadValue(f"batching is joint or sequential, got {batching!r}")
    rule = (
        CFG(rule) if isinstance(rule, int | float) else registry.parse("rule", rule) if isinstance(rule, str) else rule
    )
    if not isinstance(rule, Rule):
        raise BadValue(f"a rule is a text such as 'cfg(5)', a number or a Rule; got {rule!r}")
    further = {"negative": _listed(negative), "also": _listed(also), "partial": _listed(partial)}
    return Steering(pipe, rule, layout or layout_of(pipe), weak, further, classifier, batching, seed)


class Steering:
    """A pipeline under a rule; see `steer`.

    Attributes:
        pipe: the pipeline.
        rule: how it is guided.
        layout: how it asks its networks.
        forwards: forwards of networks in the last call.
        rows: rows that they held, the network evaluations of all images.
    """

    def __init__(
        self,
        pipe: Any,
        rule: Rule,
        layout: Layout,
        weak: Any,
        further: Mapping[str, list[Any]],
        classifier: Score | None,
        batching: str,
        seed: int,
    ) -> None:
        kind = type(pipe)
        if hasattr(kind, "steering"):
            raise NotSupported(
                f"this pipeline is steered already, by {registry.to_text(kind.steering.rule)}; remove that first: steering.remove()"
            )
        self.pipe, self.rule, self.layout, self.forwards, self.rows = pipe, rule, layout, 0, 0
        self._kind, self._further, self._classifier, self._batching, self._seed = (
            kind,
            further,
            classifier,
            batching,
            seed,
        )
        self._networks = [name for name in layout.networks if isinstance(getattr(pipe, name, None), nn.Module)]
        if not self._networks:
            raise NotSupported(
                f"{kind.__name__} has none of the networks {', '.join(layout.networks)}; load them, or say its layout"
            )
        self._weak = _weak_networks(weak, self._networks)
        self._signature = inspect.signature(kind.__call__)

        def call(_: Any, *args: Any, **kwargs: Any) -> Any:
            return self._run(args, kwargs)

        pipe.__class__ = class_with_call(kind, call)
        pipe.__class__.steering = self

    def remove(self) -> None:
        """Give the pipeline back as it was; a second time changes nothing."""
        if getattr(type(self.pipe), "steering", None) is self:
            self.pipe.__class__ = self._kind

    def __enter__(self) -> Steering:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Steering of a {self._kind.__name__} by {registry.to_text(self.rule)}>"

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the pipeline, with guides at its networks and at the steps of its schedulers."""
        self.forwards = self.rows = 0
        words = self._words(args, kwargs)
        told = self._told(words)
        with contextlib.ExitStack() as stack:
            guides = []
            for scheduler in dict.fromkeys(self.layout.networks[name] for name in self._networks):
                guide = self._guide(scheduler, told.get(scheduler, {}), words)
                guides.append((scheduler, guide))
                stack.enter_context(after_step(getattr(self.pipe, scheduler), guide.stepped))
                for name in self._of(scheduler):
                    network = getattr(self.pipe, name)
                    stack.enter_context(instead_of_call(network, _answering(guide, name, network)))
            images = self._kind.__call__(self.pipe, **self._guiding(words))
        return images

    def _of(self, scheduler: str) -> list[str]:
        return [name for name in self._networks if self.layout.networks[name] == scheduler]

    def _guide(self, scheduler: str, told: Mapping[str, Question], words: Mapping[str, Any]) -> Guide:
        asked = Asked(self._weak, self._classifier, told, self._batching, self._seed)
        return Guide(
            self.rule,
            getattr(self.pipe, scheduler),
            asked,
            layout=self.layout,
            negative=has_negative(words),
            tick=self._tick,
        )

    def _tick(self, rows: int) -> None:
        self.forwards += 1
        self.rows += rows

    def _words(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name."""
        words = dict(self._signature.bind(self.pipe, *args, **kwargs).arguments)
        words.pop(next(iter(self._signature.parameters)))
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                words |= words.pop(name, {})
        return words

    def _guiding(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with which the pipeline asks both branches, and makes of what it is told just that."""
        words = dict(words)
        for name in self.layout.weights:
            weight = words.get(name, self._signature.parameters[name].default)
            if self.layout.calls == "twice" or not isinstance(weight, int | float) or weight <= 1:
                words[name] = 2.0
        for name, value in self.layout.asks.items():
            if words.get(name) is None and words.get(f"{name}_embeds") is None:
                words[name] = [value] * len(words["prompt"]) if isinstance(words.get("prompt"), list) else value
        return words

    def _told(self, words: Mapping[str, Any]) -> dict[str, dict[str, Question]]:
        """Return, by scheduler, what networks are asked under the other prompts that the rule knows."""
        parameters = list(self._signature.parameters)
        uses = self.rule.uses()
        prompts = {
            f"{name}" if i == 0 else f"{name}-{i + 1}": prompt
            for name, several in self._further.items()
            for i, prompt in enumerate(several)
        }
        wanted = {name: other_words(words, parameters, prompt) for name, prompt in prompts.items() if name in uses}
        nulls = {}
        if {"null", "negative"} <= uses and "negative" not in wanted and has_negative(words):
            nulls["null"] = without_negative(words)
        found: dict[str, dict[str, Question]] = {}
        for scheduler in dict.fromkeys(self.layout.networks[name] for name in self._networks):
            found[scheduler] = {name: self._question(scheduler, each, null=False) for name, each in wanted.items()}
            found[scheduler] |= {name: self._question(scheduler, each, null=True) for name, each in nulls.items()}
        return found

    def _question(self, scheduler: str, words: Mapping[str, Any], *, null: bool) -> Question:
        """Return what the networks of a scheduler are asked in another call, about what that is given or about nothing."""

        def run() -> None:
            self._kind.__call__(self.pipe, **self._guiding(words))

        networks = [getattr(self.pipe, name) for name in self._of(scheduler)]
        return asked_under(self.pipe, run, networks, self.layout, null=null)


def _answering(guide: Guide, name: str, network: nn.Module) -> Answer:
    return lambda own, args, kwargs: guide.answer(name, network, own, args, kwargs)


def _weak_networks(weak: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the networks that stand in for a pipeline's, by name."""
    if weak is None:
        return {}
    if isinstance(weak, nn.Module):
        return dict.fromkeys(names, weak)
    found = {name: getattr(weak, name, None) for name in names}
    if missing := [name for name, network in found.items() if not isinstance(network, nn.Module)]:
        raise BadValue(
            f"weak is a network, or a pipeline with {', '.join(names)}; {type(weak).__name__} has no {', '.join(missing)}"
        )
    return found  # type: ignore[return-value]


def _listed(told: Any) -> list[Any]:
    """Return one or several prompts as several."""
    return list(told) if isinstance(told, list | tuple) else [told]
