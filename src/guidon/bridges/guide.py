"""A rule at work in a pipeline: what its networks are asked at a step, and what the pipeline is told that they said."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from guidon import registry
from guidon.bridges.clock import SOLVERS, Clock
from guidon.bridges.intercept import Original
from guidon.bridges.layout import Layout
from guidon.bridges.question import Question, plain, said, saying
from guidon.bridges.weaken import layers_of, weakened
from guidon.conditioning.condition import Context
from guidon.conditioning.corrupt import Drawn, RowNoise, corrupted
from guidon.errors import BadValue, NotSupported, NumericalError
from guidon.guidance.channels import Channels
from guidon.guidance.rule import GIVEN, Branch, Guided, Moment, Rule
from guidon.noise.level import Level
from guidon.noise.prediction import Prediction
from guidon.perturbation import Corruption
from guidon.sampling.randomness import PerImageNoise

TOKENS = "encoder_hidden_states"
VECTORS = ("pooled_projections", "proj_embedding", "text_embeds", "image_embeds", "class_labels")

Score = Callable[[Tensor, Level], Tensor]


@dataclass(frozen=True)
class Asked:
    """Who is asked, and how a pipeline does it.

    Args:
        weak: networks to steer away from, by the name of the component that each stands in for.
        classifier: (x, level) -> log p(what is asked for | x) (B,), differentiable in x.
        told: what is told under other names, by that name.
        batching: "joint" asks what fits together at once, "sequential" one after the other.
        seed: of the noise of blurred conditions, of the first image.
    """

    weak: Mapping[str, nn.Module]
    classifier: Score | None
    told: Mapping[str, Question]
    batching: str
    seed: int


class Guide:
    """A rule in one run of the networks that one scheduler steps with.

    Args:
        rule: how to guide.
        scheduler: of the pipeline.
        asked: who else is asked.
        layout: how the pipeline asks.
        negative: whether the pipeline's other half is told a negative prompt.
        tick: called before every forward, with its rows.
    """

    def __init__(
        self,
        rule: Rule,
        scheduler: Any,
        asked: Asked,
        *,
        layout: Layout,
        negative: bool,
        tick: Callable[[int], None],
    ) -> None:
        self.rule, self.asked, self.layout, self.negative, self.tick = rule, asked, layout, negative, tick
        self.clock = Clock(scheduler)
        self.state = rule.init()
        self.rows = 0
        self._given: tuple[Question, Tensor | None] | None = (
            None  # the first half of a step of a pipeline that asks twice
        )
        self._answered: int | None = None
        self._correction: Tensor | None = None
        self._noise: PerImageNoise | None = None
        self._batching = asked.batching

    # ------------------------------------------------------------------------------------------------- what is called

    def answer(
        self, name: str, network: nn.Module, own: Original, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Answer the pipeline's call of a network."""
        question = Question.of(network, args, kwargs)
        asking = _Asking(self, name, network, own)
        if self.clock.position is None:
            self._begin(question, network)
        if self._given is None:
            self._once_a_step()
        if self.twice:
            return self._answer_in_turn(question, asking)
        if question.rows * 2 == self.rows:  # a callback switched the pipeline's own guidance off
            return asking.output(question)
        if question.rows != self.rows:
            raise NotSupported(
                f"the pipeline asked about {self.rows} rows first and about {question.rows} now; guidon cannot tell which is which"
            )
        given, null = self.layout.halves(question)
        raw = self._guided({"given": given, self._other: null}, asking, question)
        return asking.saying(torch.cat((raw, raw)), question)

    def _answer_in_turn(self, question: Question, asking: _Asking) -> Any:
        """Answer 0 to the first call of a step, and to the second what makes null + 2 (0 - null) the guided answer.

        A pipeline that looks at the norm of the first answer is told the truth, and null + 2 (given - null) is guided.
        """
        keeps_norm = self.layout.keeps_norm
        if self._given is None:
            asked = keeps_norm or GIVEN in self.rule.branches(self.clock.now(), self.state)
            known = said(asking.output(question)) if asked else None
            self._given = question, known
            first = question.x if known is None else known
            return asking.saying(first if keeps_norm else torch.zeros_like(first), question)
        given, known = self._given
        self._given = None
        guided = self._guided({"given": given, self._other: question}, asking, None, known)
        if known is None or not keeps_norm:
            return asking.saying(-guided, question)
        if not guided.any():
            raise NotSupported(
                f"the pipeline divides by the norm of what it guided, and {registry.to_text(self.rule)} gives zero; leave zeroed "
                "steps out"
            )
        return asking.saying(2 * known - guided, question)

    def stepped(self, result: Any) -> Any:
        """Take note of a step of the scheduler and return what it is to give."""
        if self._given is not None:
            raise NotSupported(
                "the pipeline did not ask its network about nothing, so there is nothing to guide away from; give it negative_prompt=''"
            )
        if self.clock.position is not None:
            self.clock.position += 1
        if self._correction is None:
            return result
        correction, self._correction = self._correction, None
        state = said(result)
        correction = torch.cat([correction] * (state.shape[0] // correction.shape[0]))
        return saying(result, (_precise(state) + correction).to(state.dtype))

    # -------------------------------------------------------------------------------------------------------- before

    def _begin(self, question: Question, network: nn.Module) -> None:
        self.clock.start(question.time)
        self.rows = question.rows
        images = question.rows if self.twice else question.rows // 2
        if not self.twice and question.rows % 2:
            raise NotSupported(
                "the pipeline asks about one half alone; guidon steers pipelines that can guide by themselves"
            )
        self._noise = PerImageNoise(range(self.asked.seed, self.asked.seed + images), (), question.x.device)
        self._check(question, network)

    def _check(self, question: Question, network: nn.Module) -> None:
        """Refuse, before the first step, what cannot be done."""
        rule = registry.to_text(self.rule)
        if self.rule.only_with and self.clock.solver not in self.rule.only_with:
            able = [name for name, (solver, _) in SOLVERS.items() if solver in self.rule.only_with]
            remedy = (
                f"give the pipeline another scheduler: {', '.join(able)}"
                if able
                else "no scheduler of diffusers does that"
            )
            raise NotSupported(
                f"{rule} does not work with {type(self.clock.scheduler).__name__}: {self.rule.why_only}; {remedy}"
            )
        if self.rule.only_with and self.clock.clips:
            raise NotSupported(
                f"{type(self.clock.scheduler).__name__} clips the clean image, and {rule} has two of them; make the scheduler with "
                "clip_sample=False and thresholding=False"
            )
        if question.x.ndim < 4 and any(isinstance(link, Channels) for link in getattr(self.rule, "links", ())):
            raise NotSupported(
                f"{rule} guides some channels, and the states of this network are no images; leave channels out"
            )
        start = self.rule.init()
        each = (branch for at in self.clock.moments() for branch in self.rule.branches(at, start))
        for branch in dict.fromkeys(each):
            if lacks := self._lacks(branch):
                raise NotSupported(f"{rule} {lacks}")
            if branch.perturbation is not None:
                layers_of(plain(network), branch.perturbation)
            if branch.corruption is not None:
                _blurred(question, branch.corruption, lambda shape: torch.zeros(question.rows, *shape), {})

    def _lacks(self, branch: Branch) -> str:
        """Return what a branch asks that a pipeline was not given, and the remedy; nothing where it can be answered."""
        name = branch.condition.partition("-")[0]
        if branch.inner:
            return "asks a head halfway through the network, and networks of diffusers have none; use autoguidance"
        if branch.condition == "random":
            return "draws conditions at random, and a pipeline has none to draw from; use cfg or autoguidance"
        if branch.condition not in {"given", self._other, *self.asked.told}:
            if branch.condition == "negative":
                return "steers away from a negative prompt; give the call a negative_prompt, or guidon.steer(..., negative=...)"
            return f"asks about {branch.condition!r}, which was not told; give it: guidon.steer(..., {name}=...)"
        if branch.network == "weak" and not self.asked.weak:
            return "steers away from a weaker network; give one: guidon.steer(..., weak=another_pipeline)"
        if branch.network == "classifier" and self.asked.classifier is None:
            return "asks a classifier; give one: guidon.steer(..., classifier=log_p), log_p(x, level) -> (B,)"
        if branch.network not in ("main", "weak", "classifier"):
            return f"asks a network {branch.network!r}, and a pipeline has main, weak and classifier"
        return ""

    @property
    def twice(self) -> bool:
        """Whether the pipeline asks given, then null, not both in one batch."""
        return self.layout.calls == "twice"

    @property
    def _other(self) -> str:
        """What the half of the pipeline that is not given is for the rule."""
        return (
            "negative"
            if self.negative and "negative" in self.rule.uses() and "negative" not in self.asked.told
            else "null"
        )

    def _once_a_step(self) -> None:
        if self._answered == self.clock.position:
            raise NotSupported(
                "the pipeline asks its network again in the same step, for guidance of its own; leave that to the rule"
            )
        self._answered = self.clock.position

    # -------------------------------------------------------------------------------------------------------- guiding

    def _guided(
        self, told: Mapping[str, Question], asking: _Asking, both: Question | None, known: Tensor | None = None
    ) -> Tensor:
        """Return the guided answer (B, ...), along with learned variances (B, 2 C, ...) where there are.

        Args:
            told: the question under each condition that the pipeline itself asks about.
            asking: whom.
            both: the pipeline's own question about both; None where it asks in turn.
            known: the network's answer about given, where that was asked for already.
        """
        at, given = self.clock.now(), told["given"]
        wanted = self.rule.branches(at, self.state)
        chosen: dict[Branch, tuple[int, ...] | None] = {}
        raws: dict[Branch, Tensor] = {}
        questions: dict[Branch, Question] = {}
        blurs: Drawn = {}
        for branch in wanted:
            if branch == GIVEN and known is not None:
                raws[GIVEN], chosen[GIVEN] = known, None
                continue
            rows = chosen[branch] = self.rule.rows(branch, at, self.state)
            if branch.gradient or rows == ():
                continue
            question = told.get(branch.condition) or given.told_as(self.asked.told[branch.condition])
            if branch.corruption is not None:
                assert self._noise is not None
                question = _blurred(question, branch.corruption, self._noise.of_shape, blurs)
            questions[branch] = question if rows is None else question.take(list(rows))
        everything = set(questions) == {GIVEN, Branch(self._other)} and all(
            chosen[branch] is None for branch in questions
        )
        raws |= asking.all(questions, both if everything else None)
        answers = {branch: _spread(raw, chosen[branch], given.rows) for branch, raw in raws.items()}
        x, clean = self._clean(given.x, answers)
        _, output = self.clock.output()
        nothing = torch.full_like(x, torch.nan)
        predictions: dict[Branch, Prediction] = {}
        for branch in wanted:
            if branch.gradient:
                predictions[branch] = self._pushed(x, at.here)
            elif branch in clean:
                predictions[branch] = output.read(x, clean[branch], at.here)
            else:
                predictions[branch] = Prediction(x, at.here, nothing, nothing)
        guided, self.state = self.rule.combine(predictions, at, self.state)
        raw = self._raw(guided, x, at)
        if not torch.isfinite(raw).all():
            raise NumericalError(
                f"{registry.to_text(self.rule)} gave NaN or infinity at step {at.index + 1} of {at.steps}"
            )
        first = next(iter(raws.values()))
        return torch.cat((raw, *_variances(answers, raw)), 1).to(first.dtype)

    def _clean(self, x: Tensor, answers: Mapping[Branch, Tensor]) -> tuple[Tensor, dict[Branch, Tensor]]:
        """Return the state, and the answers about it, without what stands beside them in further channels."""
        if x.ndim < 4:
            return _precise(x), {branch: _precise(raw) for branch, raw in answers.items()}
        count = min([self.layout.channels or x.shape[1], *(raw.shape[1] for raw in answers.values())])
        return _precise(x[:, :count]), {branch: _precise(raw[:, :count]) for branch, raw in answers.items()}

    def _pushed(self, x: Tensor, level: Level) -> Prediction:
        assert self.asked.classifier is not None
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            log_p = self.asked.classifier(x, level)
            if log_p.shape != x.shape[:1] or not log_p.requires_grad:
                raise BadValue(
                    f"a classifier gives log p of each image, {tuple(x.shape[:1])}, differentiable in x; this one gave {tuple(log_p.shape)}"
                )
            (score,) = torch.autograd.grad(log_p.sum(), x)
        return Prediction.from_score(x.detach(), score, level)

    def _raw(self, guided: Guided, x: Tensor, at: Moment) -> Tensor:
        """Return the answer of which the pipeline makes the guided belief; of CFG++ the null's, the rest comes after the step."""
        view, _ = self.clock.output()
        x0 = guided.x0
        if guided.noise_x0 is not None:
            self._correction = self.clock.state_alpha(at.there) * (guided.x0 - guided.noise_x0)
            x0 = guided.noise_x0
        raw: Tensor = getattr(Prediction(x, at.here, x0, guided.eps), view)
        return raw


def _precise(x: Tensor) -> Tensor:
    """Return a tensor in single precision at least: rules are not computed in half."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _spread(raw: Tensor, rows: tuple[int, ...] | None, count: int) -> Tensor:
    """Return answers for every image, NaN where one was not asked for."""
    if rows is None:
        return raw
    full = raw.new_full((count, *raw.shape[1:]), torch.nan)
    full[list(rows)] = raw
    return full


def _variances(answers: Mapping[Branch, Tensor], raw: Tensor) -> list[Tensor]:
    """Return the learned variances of each image, those of given or, where that was not asked for, of what was; or none."""
    ordered = sorted(answers, key=lambda branch: branch != GIVEN)
    learned = [answers[branch][:, raw.shape[1] :] for branch in ordered]
    if raw.ndim < 4 or not learned[0].shape[1]:
        return []
    variances = learned[0]
    for other in learned[1:]:
        variances = torch.where(variances.isnan(), other, variances)
    return [variances]


def _blurred(question: Question, how: Corruption, noise: RowNoise, drawn: Drawn) -> Question:
    """Return a question whose condition is blurred: its text, and the vectors that stand for texts and images."""
    words = dict(question.words)
    further = dict(words.get("added_cond_kwargs") or {})
    mask = words.get("encoder_attention_mask")
    mask = mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None
    found = False
    for holder in (words, further):
        for name in (TOKENS, *VECTORS):
            part = holder.get(name)
            if not (isinstance(part, Tensor) and part.is_floating_point()):
                continue
            found = True
            if name == TOKENS:
                fits = mask is not None and mask.shape == part.shape[:2]
                holder[name] = corrupted(Context(tokens=part, mask=mask if fits else None), how, noise, drawn).tokens
            else:
                holder[name] = corrupted(Context(vector=part), how, noise, drawn).vector
    if not found:
        raise NotSupported("this network is told a class, which cannot be blurred; leave cads out")
    return question.telling(words | ({"added_cond_kwargs": further} if further else {}))


class _Asking:
    """The ways to ask one network, or the weaker one that stands in for it."""

    def __init__(self, guide: Guide, name: str, network: nn.Module, own: Original) -> None:
        self.guide, self.name, self.network, self.own = guide, name, network, own
        self.last: Any = None  # what the network returned last, whose form an answer has

    def output(self, question: Question, call: Original | None = None) -> Any:
        """Return what a network returns."""
        self.guide.tick(question.rows)
        self.last = (call or self.own)(**question.words)
        return self.last

    def saying(self, raw: Tensor, question: Question) -> Any:
        """Return an answer in the form in which the network was asked to return it."""
        if self.last is not None:
            return saying(self.last, raw)
        return Transformer2DModelOutput(sample=raw) if question.words.get("return_dict", True) else (raw,)

    def all(self, questions: Mapping[Branch, Question], both: Question | None) -> dict[Branch, Tensor]:
        """Return the answers to questions; ``both`` is the pipeline's own question where that asks just them."""
        raws: dict[Branch, Tensor] = {}
        for group in self._groups(questions):
            raws |= self._group({branch: questions[branch] for branch in group}, both)
        return raws

    def _groups(self, questions: Mapping[Branch, Question]) -> list[list[Branch]]:
        groups: dict[Any, list[Branch]] = {}
        for branch, question in questions.items():
            alone = branch.perturbation is not None or self.guide.twice or self.guide._batching == "sequential"
            groups.setdefault(branch if alone else (branch.network, question.form), []).append(branch)
        return list(groups.values())

    def _group(self, questions: Mapping[Branch, Question], both: Question | None) -> dict[Branch, Tensor]:
        branches = list(questions)
        call = self._call(branches[0])
        if both is not None and len(branches) == 2:
            first = GIVEN if self.guide.layout.given_first else branches[1 - branches.index(GIVEN)]
            branches.sort(key=lambda branch: branch != first)
            asked = both
        else:
            asked = Question.joined([questions[branch] for branch in branches])
        try:
            with self._weakened(branches[0], asked):
                raw = said(self.output(asked, call))
        except torch.OutOfMemoryError:
            if len(branches) == 1:
                raise
            warnings.warn(
                "the branches of the rule do not fit into memory together; they are asked one after the other",
                stacklevel=2,
            )
            self.guide._batching = "sequential"
            torch.cuda.empty_cache()
            return {branch: self._group({branch: questions[branch]}, None)[branch] for branch in branches}
        return dict(zip(branches, raw.split([questions[branch].rows for branch in branches]), strict=True))

    def _call(self, branch: Branch) -> Original:
        if branch.network == "weak":
            return self.guide.asked.weak[self.name]
        return plain(self.network)._call_impl if branch.perturbation is not None else self.own

    def _weakened(self, branch: Branch, question: Question) -> contextlib.AbstractContextManager[None]:
        if branch.perturbation is None:
            return contextlib.nullcontext()
        return weakened(plain(self.network), branch.perturbation, question.x)
