"""What one asks of a model when it samples: labels, seeds, rule and solver, and every condition that a rule may ask for by name."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from guidon import registry
from guidon.conditioning.condition import Context
from guidon.conditioning.labels import Labels
from guidon.errors import BadValue, UnknownLabel, nearest
from guidon.guidance import CFG, Rule
from guidon.guidance.stage import Stage
from guidon.noise.grids import Grid
from guidon.sampling.trajectory import Told
from guidon.solvers import Solver

Label = int | str | None
NO_CLASSES = "this model has no classes; leave the label out, or give a classifier that knows some"


class Listener(Protocol):
    """What can be told classes: a `Model`."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, or None."""

    @property
    def has_null(self) -> bool:
        """Whether "no class" can be told, too."""

    def labels(self, names: Sequence[Label]) -> Labels:
        """Turn class names or ids into `Labels`."""
        ...

    def encode(self, labels: Labels | None) -> Context:
        """Return what the network is told."""
        ...


def wanted_labels(
    classes: Sequence[str] | None, labels: Label | Sequence[Label], n: int | None, *, numbers: bool = False
) -> list[Label]:
    """Return one label for each image: each of ``labels`` n times, or every class in turn.

    Args:
        classes: that there are; None for none.
        labels, n: as `Model.sample` has them.
        numbers: whether labels may be numbers of classes that nobody named.
    """
    if n is not None and n < 1:
        raise BadValue(f"n is at least 1, got {n}")
    if labels is None:
        if classes is None:
            return [None] * (n or 1)
        count = len(classes)
        return [i % count for i in range(n or count)]
    several = listed(labels)
    if not several:
        raise BadValue("no label is given; name at least one, or leave labels out for every class")
    if classes is None and not numbers and any(label is not None for label in several):
        raise UnknownLabel(NO_CLASSES)
    return [label for label in several for _ in range(n or 1)]


def listed(labels: Label | Sequence[Label]) -> list[Label]:
    """Return one label, or several, as a list."""
    alone = labels is None or isinstance(labels, str) or _is_number(labels)
    return [labels] if alone else list(labels)  # type: ignore[list-item, arg-type]


def _is_number(value: Any) -> TypeGuard[int]:
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
    model: Listener,
    names: Sequence[Label],
    seeds: Sequence[int],
    further: Mapping[str, Sequence[Label]],
) -> dict[str, Told]:
    """Return what a model is told under every name that a rule may use.

    Args:
        model: whose encoder to use.
        names: the label of each image.
        seeds: of each image, for the random condition.
        further: by "negative", "also" and "partial", labels for all images; the second of a name is told as "negative-2".
    """
    if model.classes is None:
        if any(further.values()):
            raise UnknownLabel("this model has no classes; leave the other conditions out")
        return {"given": Context()}
    given, count = model.labels(names), len(names)
    told: dict[str, Told] = {"given": model.encode(given)}
    if model.has_null:
        told["null"] = model.encode(given.null())
    for name, label in numbered(further).items():
        told[name] = model.encode(model.labels([label] * count))
    classes = len(model.classes)

    def random(index: int) -> Context:
        """Return a class for each image, drawn anew at each step from the image's own seed."""
        drawn = [
            # a stream of its own, so that the class has nothing to do with the image's noise
            torch.randint(classes, (1,), generator=torch.Generator().manual_seed((seed ^ 0x3C6EF372) + 7919 * index))
            for seed in seeds
        ]
        return model.encode(model.labels([int(number) for number in drawn]))

    return {**told, "random": random}


def for_network(network: str, told: Mapping[str, Told]) -> dict[str, Told]:
    """Return conditions under the names by which a trajectory knows those of another network."""
    return {f"{network}:{name}": context for name, context in told.items()}


def beside_image(told: Mapping[str, Told], spatial: Tensor) -> dict[str, Told]:
    """Return conditions with an image (B, C, H, W) at the spatial door beside them."""

    def add(context: Context) -> Context:
        return replace(context, spatial=spatial)

    def added(context: Told) -> Told:
        if context is None:
            return None
        return add(context) if isinstance(context, Context) else lambda index: add(context(index))

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


def described(labels: Sequence[Label], classes: Sequence[str] | None) -> list[Any]:
    """Return the names of labels, for records; the labels themselves where nobody named them."""
    return [label if label is None or classes is None else classes[class_id(label, classes)] for label in labels]


def seeds_of(seed: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Return one seed for each image: those given, or as many counting up from one."""
    if _is_number(seed):
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
