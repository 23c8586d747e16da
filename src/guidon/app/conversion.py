"""From a file of tensors that others trained to a model of guidon's, whole or not at all."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from guidon.checkpoints.dit import dit_blueprint, read_arguments
from guidon.checkpoints.foreign import Blueprint, Fit, KeyTable, Shapes, compare, differences, numbers
from guidon.checkpoints.guided_flags import DEFAULTS, blueprint, read_flags
from guidon.checkpoints.guided_shapes import script_of, told_flags
from guidon.checkpoints.looks import look
from guidon.checkpoints.presets import FAMILIES
from guidon.checkpoints.reading import State
from guidon.classifier import Classifier, ClassifierConfig
from guidon.clip import Clip, ClipBundleConfig
from guidon.conditioning.tokenizer import CLIP, GPT2, Tokenizer, TokenizerConfig, clip_tokenizer, gpt2_tokenizer
from guidon.errors import BadValue, DamagedCheckpoint, NotSupported
from guidon.model import Model, ModelConfig

OWN = {  # how to say what a file is that no preset names
    "guided-diffusion": ("--flags", "give your flags: --flags '--image_size 64 ...'"),
    "dit": ("--heads", "give its number of attention heads: --heads N"),
}
Converted = Model | Classifier | Clip


class Plan(NamedTuple):
    """What a file is taken for.

    Args:
        family: "guided-diffusion", "glide" or "dit".
        name: to call it in messages.
        blueprint: what it becomes.
        flags: by which it was described, over the defaults; None where it was otherwise.
    """

    family: str
    name: str
    blueprint: Blueprint
    flags: Mapping[str, Any] | None = None


def plan_of(
    state: State,
    family: str,
    preset: str | None = None,
    flags: str | None = None,
    classes: Sequence[str] | None = None,
    heads: int | None = None,
    size: int | None = None,
) -> Plan:
    """Return what a file is taken for.

    Args:
        state: the file.
        family: "guided-diffusion", "glide" or "dit".
        preset: what it is, by name.
        flags: or, of guided-diffusion, by the flags that it was trained with.
        classes: names of its classes.
        heads: or, of a DiT, by its attention heads, > 0; the rest stands in the file.
        size: side of its latents, with ``heads``; left out: as its positions tell.

    Raises:
        NotSupported: it is of another architecture; says which it looks like.
        BadValue: what it is was not said, or cannot be.
    """
    _check_family(state, family)
    own = flags if family == "guided-diffusion" else heads
    ways = " or by ".join(["--preset", *OWN.get(family, ())[:1]])
    if preset is not None and (own is not None or size is not None):
        raise BadValue(f"--preset and {OWN[family][0]} both say what the file is; give one of them, not both")
    if preset is not None:
        plan = Plan(family, preset, FAMILIES[family][preset].blueprint(classes))
    elif flags is not None:
        plan = _by_flags(state.shapes, flags, classes)
    elif heads is not None:
        plan = _by_heads(state.shapes, heads, size, classes)
    else:
        raise BadValue(f"say what the file is, by {ways}; {_which(state, family)}")
    _check_classes(plan, classes, _count(state.shapes))
    return plan


def tokenizer_of(plan: Plan, source: str | None = None) -> Tokenizer | None:
    """Return the tokenizer that a network was trained with; None for one that is told no texts.

    Args:
        plan: what the file is taken for.
        source: folder or hub id of its vocabulary; left out: that of GPT-2 or CLIP, from the hub.

    Raises:
        MissingFile, DamagedCheckpoint: there is no vocabulary, or it is not what it must be.
        BadValue: it is that of another network, or none is wanted.
    """
    config = plan.blueprint.config
    told = config if plan.blueprint.kind == "clip" else config.get("text")
    if told is None:
        if source is not None:
            raise BadValue(f"{plan.name} is told no texts; leave --vocab out")
        return None
    wanted = TokenizerConfig(**told["tokenizer"])
    read, usual = (clip_tokenizer, CLIP) if plan.blueprint.kind == "clip" else (gpt2_tokenizer, GPT2)
    tokenizer = read(source or usual, wanted.context)
    if tokenizer.config != wanted:
        raise BadValue(
            f"the vocabulary {source or usual} has {tokenizer.size} tokens, and {plan.name} was trained with another; give that one"
        )
    return tokenizer


def convert(state: State, plan: Plan) -> Converted:
    """Return the model that a file holds; its numbers stay where they were read, so that nothing is held twice.

    Args:
        state: the file.
        plan: what it is taken for.

    Raises:
        BadValue: it does not fit; says what is missing, what is too much, which sizes differ, and what fits.
        DamagedCheckpoint: a weight is NaN or infinite.
    """
    model = build(plan.blueprint)
    fit = compare(state.tensors, _shapes(model), plan.blueprint)
    if not fit.whole:
        raise BadValue(_misfit(state, plan, fit, _shapes(model)))
    owned = _owned(plan.blueprint.tensors(state.tensors))
    _check_finite(owned, plan.blueprint.keys)
    model.load_state_dict(owned, assign=True)
    return model.eval()


def build(blueprint: Blueprint) -> Converted:
    """Return what a blueprint describes, without numbers (on torch's meta device)."""
    with torch.device("meta"):
        match blueprint.kind:
            case "classifier":
                return Classifier(ClassifierConfig(**blueprint.config))
            case "clip":
                return Clip(ClipBundleConfig(**blueprint.config))
            case _:
                return Model(ModelConfig(**blueprint.config))


def _by_flags(shapes: Shapes, flags: str, classes: Sequence[str] | None) -> Plan:
    """Return what a checkpoint of guided-diffusion is by flags; whose flags they are, and how many classes, it says itself."""
    given = read_flags(flags)
    origin = {"source": FAMILIES["guided-diffusion"].source, "flags": flags}
    described = blueprint(given, script_of(shapes), count=_count(shapes) or 1000, classes=classes, origin=origin)
    return Plan("guided-diffusion", "a network of these flags", described, {**DEFAULTS, **given})


def _by_heads(shapes: Shapes, heads: int, size: int | None, classes: Sequence[str] | None) -> Plan:
    """Return what a checkpoint of DiT is by what it does not say itself."""
    arguments = read_arguments(shapes, heads, size)
    described = dit_blueprint(arguments, classes=classes, origin={"source": FAMILIES["dit"].source})
    return Plan("dit", f"a DiT of {heads} heads on latents of side {arguments['input_size']}", described)


def _count(shapes: Shapes) -> int | None:
    """Return how many classes a checkpoint tells apart; None where it tells none."""
    rows = ("label_emb.weight", 0), ("y_embedder.embedding_table.weight", -1)
    heads = (("out.2.c_proj.weight", 0), ("out.3.weight", 0), ("out.2.weight", 0))  # of each kind of pool
    known = rows if any(name.startswith(("output_blocks.", "blocks.")) for name in shapes) else heads
    return next((shapes[name][0] + more for name, more in known if name in shapes), None)


def _check_classes(plan: Plan, classes: Sequence[str] | None, count: int | None) -> None:
    """Refuse names of classes that a file does not have."""
    if classes and plan.blueprint.config.get("classes") is None:
        added = plan.flags is not None and count is not None
        remedy = "add --class_cond True to --flags" if added else "leave --classes out"
        raise BadValue(f"{plan.name} has no classes to name; {remedy}")
    if classes and count is not None and len(classes) != count:
        raise BadValue(
            f"the file has {count} classes, --classes gives {len(classes)}; give --classes {count}, or a file of {count} names"
        )


def _check_finite(tensors: Mapping[str, Tensor], keys: KeyTable) -> None:
    """Refuse weights that are no numbers."""
    broken = [
        keys.to_theirs(name) for name, value in tensors.items() if not value.is_meta and not value.isfinite().all()
    ]
    if broken:
        raise DamagedCheckpoint(
            f"NaN or infinite values stand in {len(broken)} of the file's {len(tensors)} tensors, first in {broken[0]}; "
            "nothing was written. Take an earlier checkpoint, or download it again"
        )


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
    flags = None if plan.flags is None else _mended(state, plan.flags)
    return (
        f"the file{f', {seen.what},' if seen else ''} is not {plan.name}: {'; '.join(apart) or 'its sizes agree, its tensors do not'}\n"
        f"  {fit}\nnothing was written; {flags or _which(state, plan.family)}"
    )


def _mended(state: State, given: Mapping[str, Any]) -> str:
    """Return a sentence on which other flags a file fits; those that change nothing are not named."""
    script = script_of(state.shapes)

    def problems(changed: Mapping[str, Any]) -> float:
        try:
            described = blueprint({**given, **changed}, script, count=_count(state.shapes) or 1000)
            return compare(state.tensors, _shapes(build(described)), described).problems
        except BadValue:  # no network has such flags
            return math.inf

    told = told_flags(state.shapes, given["large_size" if script == "upsampler" else "image_size"])
    changes = [{name: value for name, value in flags.items() if value != given[name]} for flags in told]
    changed = min(changes, key=problems, default={})
    best = problems(changed)
    for name in list(changed):
        fewer = {other: value for other, value in changed.items() if other != name}
        if problems(fewer) <= best:
            changed = fewer
    named = " ".join(f"--{name} {value}" for name, value in changed.items())
    if not named:
        return "no flag mends that; check that it is the file that you mean, and whole"
    if best:
        return f"its sizes ask for {named} in --flags, but that alone does not mend it"
    return f"with {named} in --flags it fits"


def _which(state: State, family: str) -> str:
    """Return a sentence on the presets that a file fits."""
    count = _count(state.shapes) or 1000
    fitting = [
        name
        for name in FAMILIES[family].presets
        if compare(state.tensors, (known := _known(family, name, count))[1], known[0]).whole
    ]
    if fitting:
        return f"it fits --preset {' or '.join(fitting)}" + (f" with --classes {count}" if count != 1000 else "")
    own = f"; if you trained it yourself, {OWN[family][1]}" if family in OWN else ""
    return f"it fits no preset (guidon convert presets lists them){own}"


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
