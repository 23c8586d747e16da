"""What one asks of a model when it samples: labels, seeds, rule and solver, and every condition that a rule may ask for by name."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from guidon import registry
from guidon.conditioning.condition import Condition, Context
from guidon.conditioning.text import Texts
from guidon.conditioning.tokenizer import warn_of_cut
from guidon.errors import BadValue, GuidonWarning, UnknownLabel, nearest
from guidon.guidance import CFG, Rule
from guidon.guidance.stage import Stage
from guidon.model_config import ModelConfig
from guidon.models.denoiser import Denoiser
from guidon.models.question import prepared
from guidon.noise.grids import Grid
from guidon.sampling.trajectory import Told
from guidon.solvers import Solver

Label = int | str | None
NO_CLASSES = "this model has no classes; leave the label out, or give a classifier that knows some"


class Hearer(Protocol):
    """What can be told something: a `Model`."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, or None."""

    @property
    def config(self) -> ModelConfig:
        """What it is."""

    @property
    def has_null(self) -> bool:
        """Whether it can be told nothing, too."""

    @property
    def denoiser(self) -> Denoiser:
        """Its network."""

    def condition(self, names: Sequence[Label] | Texts) -> Condition:
        """Turn names of classes, or texts, into a condition."""
        ...

    def encode(self, told: Condition | None) -> Context:
        """Return what the network is told."""
        ...


def wanted(
    model: Hearer,
    classes: Sequence[str] | None,
    told: Label | Sequence[Label] | Texts,
    n: int | None,
    *,
    numbers: bool = False,
) -> list[Label] | Texts:
    """Return what each image is told: each thing of ``told`` n times, or every class in turn.

    Args:
        model: who is told.
        classes: that there are; None for none.
        told, n: as `Model.sample` has them.
        numbers: whether labels may be numbers of classes that nobody named.
    """
    if n is not None and n < 1:
        raise BadValue(f"n is at least 1, got {n}")
    texts = model.config.text is not None
    if isinstance(told, Texts):
        if not texts:
            raise BadValue("this model is told no texts; leave the tokens out")
        return told.take(torch.arange(len(told)).repeat_interleave(n or 1))
    if told is None:
        if classes is None:
            return [None] * (n or 1)
        count = len(classes)
        return [i % count for i in range(n or count)]
    several = listed(told)
    if not several:
        raise BadValue(f"no {'text' if texts else 'label'} is given; name at least one, or leave it out altogether")
    if texts:
        if empty := sum(text is not None and not as_text(text).strip() for text in several):
            warnings.warn(
                f"{empty} of {len(several)} texts {'is' if empty == 1 else 'are'} empty, which says nothing: drawn as without a text",
                GuidonWarning,
                stacklevel=4,  # past `Model.sample` and its decorator
            )
        several = [as_text(text) if as_text(text).strip() else None for text in several]
    elif classes is None and not numbers and any(label is not None for label in several):
        raise UnknownLabel(NO_CLASSES)
    return [label for label in several for _ in range(n or 1)]


def as_text(text: Label) -> str:
    """Return a text, empty for none; raises `BadValue` for anything else."""
    if text is not None and not isinstance(text, str):
        raise BadValue(f"this model is told texts, not {text!r}; give a sentence in quotes")
    return text or ""


def listed(labels: Label | Sequence[Label]) -> list[Label]:
    """Return one label, or several, as a list."""
    alone = labels is None or isinstance(labels, str) or is_number(labels)
    return [labels] if alone else list(labels)  # type: ignore[list-item, arg-type]


def is_number(value: Any) -> TypeGuard[int]:
    """Return whether a value is one whole number; arrays and tensors of several have ``__index__`` too."""
    return hasattr(value, "__index__") and getattr(value, "ndim", 0) == 0


def class_id(label: Label, classes: Sequence[str]) -> int:
    """Return the id of a class by name or number; that of no class is their count. Raises `UnknownLabel`."""
    if label is None:
        return len(classes)
    if isinstance(label, str) and label in classes:
        return classes.index(label)
    try:
        index = int(label) if isinstance(label, str) else operator.index(label)
    except (TypeError, ValueError):
        raise UnknownLabel(
            f"there is no class {label!r}{nearest(str(label), classes)}; there are: {', '.join(classes)}"
        ) from None
    if not 0 <= index < len(classes):
        raise UnknownLabel(f"there is no class {index}; ids go from 0 to {len(classes) - 1} ({', '.join(classes)})")
    return index


def conditions(
    model: Hearer,
    names: Sequence[Label] | Texts,
    seeds: Sequence[int],
    further: Mapping[str, Sequence[Label]],
) -> dict[str, Told]:
    """Return what a model is told under every name that a rule may use.

    Whatever is told to several images, or under several names, is encoded once; so are the keys and values that the network's
    layers make of it.

    Args:
        model: whose encoder to use.
        names: what each image is told.
        seeds: of each image, for the random condition.
        further: by "negative", "also" and "partial", what else all images are told; the second of a name is told as "negative-2".
    """
    if model.classes is None and model.config.text is None:
        if any(further.values()):
            raise UnknownLabel("this model is told no classes and no texts; leave the other conditions out")
        return {"given": Context()}
    given, count = model.condition(names), len(names)
    told = {"given": given}
    if model.has_null:
        told["null"] = given.null()
    alone = {name: model.condition([label]) for name, label in numbered(further).items()}
    told |= {name: condition.take([0] * count) for name, condition in alone.items()}
    distinct, which = type(given).stack(list(told.values())).distinct()
    encoded = prepared(model.denoiser.network, model.encode(distinct))
    rows = which.split(count)

    def random(index: int) -> Context:
        """Return something that was not asked for, for each image, drawn anew at each step from the image's own seed."""
        # a stream of its own, so that what is drawn has nothing to do with the image's noise
        streams = [torch.Generator().manual_seed((seed ^ 0x3C6EF372) + 7919 * index) for seed in seeds]
        return prepared(model.denoiser.network, model.encode(given.random(streams)))

    contexts = {name: encoded.take(index) for name, index in zip(told, rows, strict=True)}
    return {**contexts, "random": random}


def for_network(network: str, told: Mapping[str, Told]) -> dict[str, Told]:
    """Return conditions under the names by which a trajectory knows those of another network."""
    return {f"{network}:{name}": context for name, context in told.items()}


def beside_image(told: Mapping[str, Told], spatial: Tensor) -> dict[str, Told]:
    """Return conditions with an image (B, C, H, W) at the spatial door beside them; what was the same is the same still."""
    same: dict[int, Context] = {}

    def add(context: Context) -> Context:
        return same.setdefault(id(context), replace(context, spatial=spatial))

    def added(context: Told) -> Told:
        if context is None:
            return None
        return add(context) if isinstance(context, Context) else lambda index: replace(context(index), spatial=spatial)

    return {name: added(context) for name, context in told.items()}


def numbered(further: Mapping[str, Sequence[Label]]) -> dict[str, Label]:
    """Return further labels by the names that rules use: "negative", "negative-2", ..."""
    return {
        name if i == 1 else f"{name}-{i}": label
        for name, labels in further.items()
        for i, label in enumerate(labels, start=1)
    }


def check_needed(rule: Rule, further: Mapping[str, Sequence[Label]], networks: Sequence[str]) -> None:
    """Raise `BadValue` for conditions or networks that a rule has no use for."""
    spare = [name for name in (*numbered(further), *networks) if name not in rule.uses()]
    if spare:
        raise BadValue(
            f"the rule {registry.to_text(rule)} has no use for {spare[0]!r}; leave it out, or take a rule that has: guidon rules"
        )


def warn_of_long(
    readers: Sequence[Any],
    names: Sequence[Label] | Texts,
    further: Mapping[str, Sequence[Label]],
    classes: Sequence[str] | None,
) -> None:
    """Warn once of the different texts that are too long for one of those who read them."""
    tokenizers = [reader.tokenizer for reader in readers if getattr(reader, "tokenizer", None) is not None]
    if tokenizers:
        said = [text for labels in (names, *further.values()) for text in described(labels, classes)]
        different = dict.fromkeys(text for text in said if isinstance(text, str))
        warn_of_cut(tokenizers, list(different), stacklevel=5)  # past `Model.sample` and its decorator


def check_alike(weak: Any, model: Any, names: Sequence[Label] | Texts) -> None:
    """Raise `BadValue` where a model and a worse one that it is steered away from are not of the same images, or not told alike.

    Each may read texts in its own way; the tokens of the one say the same to the other if both have one tokenizer.
    """

    def read(one: Any) -> Any:
        return one.config.text.tokenizer, one.tokenizer and one.tokenizer.to_json()

    alike = ("classes", "shape", "low_res", "process", "device")
    differing = [name for name in alike if getattr(weak, name) != getattr(model, name)]
    differing += ["inpaint"] if weak.config.inpaint != model.config.inpaint else []
    if (weak.config.text is None) != (model.config.text is None):
        differing.append("text")
    elif isinstance(names, Texts) and read(weak) != read(model):
        differing.append("tokenizer")
    if differing:
        raise BadValue(
            f"the weak model differs from the model itself in its {differing[0]}; both must be alike in that"
        )


def described(labels: Sequence[Label] | Texts, classes: Sequence[str] | None) -> list[Any]:
    """Return the names of labels, for records; the labels themselves where nobody named them, the ids of tokens."""
    if isinstance(labels, Texts):
        return [tokens[mask].tolist() for tokens, mask in zip(labels.tokens, labels.mask, strict=True)]
    return [label if label is None or classes is None else classes[class_id(label, classes)] for label in labels]


def seeds_of(seed: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Return one seed for each image: those given, or as many counting up from one."""
    if is_number(seed):
        first = whole("seed", seed)
        return tuple(range(first, first + count))
    seeds = tuple(whole("seed", s) for s in seed)  # type: ignore[union-attr]
    if len(seeds) != count:
        raise BadValue(f"{len(seeds)} seeds for {count} images; give one seed, or one for each image")
    return seeds


def as_rule(rule: str | Rule | float) -> Rule:
    """Return a rule for a text form, an object or a weight."""
    if isinstance(rule, Stage):
        raise BadValue(f"{registry.to_text(rule)} is a stage: chain it to a rule, for instance CFG(3) | ...")
    if isinstance(rule, Rule):
        return rule
    return registry.parse("rule", rule) if isinstance(rule, str) else CFG(rule)


def as_member(kind: str, value: Any) -> Any:
    """Return the solver or grid for a text form or an object."""
    made = registry.parse(kind, value) if isinstance(value, str) else value
    if not isinstance(made, {"solver": Solver, "grid": Grid}[kind]):
        raise BadValue(f"{made!r} is no {kind}; give its text form or an object of `guidon list {kind}s`")
    return made


def whole(name: str, value: Any) -> int:
    """Return a whole number as an int; raises `BadValue` naming what it should have been."""
    try:
        return operator.index(value)
    except TypeError:
        raise BadValue(f"{name} is a whole number, got {value!r}") from None


def positive(name: str, value: Any) -> float:
    """Return a number above zero; raises `BadValue` naming what it should have been."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise BadValue(f"{name} is a number above 0, got {value!r}")
    return number
