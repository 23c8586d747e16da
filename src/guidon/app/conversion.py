"""From a file of tensors that others trained to a model of guidon's, whole or not at all."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from guidon.checkpoints.foreign import Blueprint, Fit, Shapes, compare, differences, numbers
from guidon.checkpoints.guided_flags import Script, blueprint, read_flags
from guidon.checkpoints.looks import look
from guidon.checkpoints.presets import FAMILIES
from guidon.checkpoints.reading import State
from guidon.classifier import Classifier, ClassifierConfig
from guidon.errors import BadValue, NotSupported
from guidon.model import Model, ModelConfig


class Plan(NamedTuple):
    """What a file is taken for.

    Args:
        family: "guided-diffusion" or "dit".
        name: to call it in messages.
        blueprint: what it becomes.
    """

    family: str
    name: str
    blueprint: Blueprint


def plan_of(
    state: State, family: str, preset: str | None = None, flags: str | None = None, classes: Sequence[str] | None = None
) -> Plan:
    """Return what a file is taken for.

    Args:
        state: the file.
        family: "guided-diffusion" or "dit".
        preset: what it is, by name.
        flags: or by the flags that it was trained with.
        classes: names of its classes.

    Raises:
        NotSupported: it is of another architecture; says which it looks like.
        BadValue: what it is was not said, or cannot be.
    """
    _check_family(state, family)
    if (preset is None) == (flags is None):
        raise BadValue(f"say what the file is, by --preset or by --flags; {_which(state, family)}")
    if flags is None:
        plan = Plan(family, preset or "", FAMILIES[family][preset or ""].blueprint(classes))
    else:
        plan = Plan(family, "a network of these flags", _by_flags(state.shapes, flags, classes))
    if classes and plan.blueprint.config["classes"] is None:
        raise BadValue(f"{plan.name} has no classes to name; leave --classes out")
    return plan


def convert(state: State, plan: Plan) -> Model | Classifier:
    """Return the model that a file holds; its numbers stay where they were read, so that nothing is held twice.

    Args:
        state: the file.
        plan: what it is taken for.

    Raises:
        BadValue: it does not fit; says what is missing, what is too much, which sizes differ, and which preset fits.
    """
    model = build(plan.blueprint)
    fit = compare(state.tensors, _shapes(model), plan.blueprint)
    if not fit.whole:
        raise BadValue(_misfit(state, plan, fit, _shapes(model)))
    model.load_state_dict(_owned(plan.blueprint.tensors(state.tensors)), assign=True)
    return model.eval()


def build(blueprint: Blueprint) -> Model | Classifier:
    """Return what a blueprint describes, without numbers (on torch's meta device)."""
    with torch.device("meta"):
        if blueprint.kind == "classifier":
            return Classifier(ClassifierConfig(**blueprint.config))
        return Model(ModelConfig(**blueprint.config))


def _by_flags(shapes: Shapes, flags: str, classes: Sequence[str] | None) -> Blueprint:
    """Return what a checkpoint of guided-diffusion becomes by flags; whose flags they are, and how many classes, it says itself."""
    given = read_flags(flags)
    origin = {"source": FAMILIES["guided-diffusion"].source, "flags": flags}
    script: Script = "upsampler" if shapes["input_blocks.0.0.weight"][1] == 6 else "image"
    if not any(name.startswith("output_blocks.") for name in shapes):
        script = "classifier"
    return blueprint(given, script, count=_count(shapes), classes=classes, origin=origin)


def _count(shapes: Shapes) -> int:
    """Return how many classes a checkpoint tells apart; 1000 where it tells none."""
    rows = ("label_emb.weight", 0), ("y_embedder.embedding_table.weight", -1)
    heads = (("out.2.c_proj.weight", 0), ("out.3.weight", 0), ("out.2.weight", 0))  # of each kind of pool
    known = rows if any(name.startswith(("output_blocks.", "blocks.")) for name in shapes) else heads
    return next((shapes[name][0] + more for name, more in known if name in shapes), 1000)


def _check_family(state: State, family: str) -> None:
    """Refuse a file of another architecture than a command is for."""
    seen = look(state.shapes)
    if seen is None:
        raise NotSupported(
            "the file is of no architecture that guidon knows, it holds "
            f"{', '.join(sorted(state.tensors)[:4])}; check which file it is"
        )
    if seen.family != family:
        remedy = (
            f"use guidon convert {seen.family}"
            if seen.family
            else f"guidon convert {family} takes checkpoints of {FAMILIES[family].source} only"
        )
        raise NotSupported(f"the file looks like {seen.what}; {remedy}")


def _misfit(state: State, plan: Plan, fit: Fit, wanted: Shapes) -> str:
    sizes, seen = FAMILIES[plan.family].sizes, look(state.shapes)
    apart = differences(sizes(state.shapes), sizes(plan.blueprint.shapes_there(wanted)), plan.name)
    return (
        f"the file{f', {seen.what},' if seen else ''} is not {plan.name}: {'; '.join(apart) or 'its sizes agree, its tensors do not'}\n"
        f"  {fit}\nnothing was written; {_which(state, plan.family)}"
    )


def _which(state: State, family: str) -> str:
    """Return a sentence on the presets that a file fits."""
    count = _count(state.shapes)
    fitting = [
        name
        for name in FAMILIES[family].presets
        if compare(state.tensors, (known := _known(family, name, count))[1], known[0]).whole
    ]
    if fitting:
        return f"it fits --preset {' or '.join(fitting)}" + (f" with --classes {count}" if count != 1000 else "")
    own = "; if you trained it yourself, give your flags: --flags '--image_size 64 ...'"
    return f"it fits no preset (guidon convert presets lists them){own if family == 'guided-diffusion' else ''}"


@functools.cache
def _known(family: str, preset: str, count: int) -> tuple[Blueprint, Shapes]:
    """Return a preset of so many classes, and its shapes by our names."""
    blueprint = FAMILIES[family][preset].blueprint(numbers(count))
    return blueprint, _shapes(build(blueprint))


def _shapes(model: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as float32, of which no two share memory; those that are so already are not copied."""
    owned, taken = {}, set()
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        owned[name] = value.to(torch.float32, copy=place in taken)
        taken.add(place)
    return owned
