"""``guidon list``: everything that can be named."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from guidon.errors import UnknownName

EXAMPLES = """Examples:

  guidon list             everything
  guidon list solvers     what --solver takes
  guidon list networks    what each network's configuration says
  guidon list metrics     what guidon measure --metric takes
  guidon list features    the networks that it sees with
  guidon list settings    what a recipe, and train --set, can say
  guidon list classifier-settings     the same for train-classifier
  guidon list finetune-settings       the same for finetune"""

Row = tuple[str, str]


def list_registered(kind: str | None = None) -> None:
    """List what can be named: recipes, their settings, rules, weights, solvers, grids, processes, outputs, networks, metrics, features.

    Args:
        kind: one of them; left out: all.
    """
    import guidon.measure  # noqa: F401  metrics and feature networks register themselves
    from guidon import registry
    from guidon.app.recipes import bundled_recipes, first_comment
    from guidon.models.encoder_unet import EncoderUNetConfig
    from guidon.training.classifier_recipe import ClassifierRecipe
    from guidon.training.finetune_recipe import FinetuneRecipe
    from guidon.training.recipe import Recipe  # with it comes everything that registers itself

    tables = {name: [_row(*member) for member in registry.members(name)] for name in registry.kinds()}
    tables["recipe"] = [(name, first_comment(path)) for name, path in bundled_recipes().items()]
    networks = {name: network.Config for name, network in registry.members("network")}
    tables["network"] = [
        row
        for about, config in zip(tables["network"], networks.values(), strict=True)
        for row in (about, *((f"  {key}", meaning) for key, meaning in _keys(config)))
    ]
    tables["setting"] = list(_settings(Recipe, networks))
    tables["classifier-setting"] = list(_settings(ClassifierRecipe, {"EncoderUNet": EncoderUNetConfig}))
    tables["finetune-setting"] = list(_settings(FinetuneRecipe, networks))
    chosen = sorted(tables) if kind is None else [_singular(kind, tables)]
    for name in chosen:
        print(name)
        for text, about in tables[name]:
            print(f"  {text}")
            print(textwrap.fill(about, 78, initial_indent="      ", subsequent_indent="      "))


def _settings(section: Any, networks: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    """Yield every key of a recipe under its dotted name, with its default and what it says.

    Args:
        section: the recipe, or a section of it.
        networks: by name, the configurations that an architecture can be.
        prefix: of the dotted names.
    """
    from guidon.training.run_recipe import Section, sections

    for name, field in section.model_fields.items():
        parts = sections(field.annotation)
        if not parts or type(None) in get_args(field.annotation):
            default = "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"
            yield f"{prefix}{name}{default}", field.description or ""
        for part in parts:
            if issubclass(part, Section) or parts == [part]:
                yield from _settings(part, networks, f"{prefix}{name}.")
            else:  # one of several kinds, told apart by their own key
                kind = part.model_fields["kind"].default
                yield from ((f"{prefix}{name}.{key}", f"({kind}) {meaning}") for key, meaning in _keys(part))
        for network, config in networks.items() if name == "architecture" else ():
            yield from ((f"{prefix}{name}.{key}", f"({network}) {meaning}") for key, meaning in _keys(config))


def _keys(config: Any) -> Iterator[Row]:
    """Yield every key of a network's configuration that the data leave open, with its default and what it says."""
    from guidon.app.rule_cards import read_docstring
    from guidon.training.classifier_recipe import FROM_DATA

    about: dict[str, str] = {}
    for part in config.__mro__:
        if part.__module__.startswith("guidon."):
            about = read_docstring(inspect.getdoc(part) or "")[2] | about
    for name, field in config.model_fields.items():
        if name not in FROM_DATA:
            default = "" if field.is_required() else f" = {field.default!r}"
            yield f"{name}{default}", about.get(name, "").replace("``", "")


def _singular(kind: str, known: dict[str, Any]) -> str:
    """Return the kind that a word in the singular or plural names."""
    for name in known:
        if kind in (name, f"{name}s", f"{name}es"):
            return name
    raise UnknownName("kind of thing", kind, known)


def _row(name: str, member: Any) -> Row:
    about = (inspect.getdoc(member) or "").partition("\n")[0].partition(" Source:")[0]
    said = ", ".join(arguments(member))
    return (f"{name}({said})" if said else name) + _mark(member), about.replace("``", "")


def _mark(member: Any) -> str:
    """Return which way is better of a metric, and what it needs; nothing for all else."""
    if not hasattr(member, "compares"):
        return ""
    better = [f"{member.better} is better"] if member.better else []
    needs = ", ".join([*(["reference"] if member.compares else []), *member.needs])
    return f" ({'; '.join([*better, needs])})"


def arguments(member: Any) -> Iterator[str]:
    """Yield the arguments of a member's text form, with their defaults."""
    if not dataclasses.is_dataclass(member):
        return
    for field in dataclasses.fields(member):
        if field.init:
            yield field.name if field.default is field.default_factory else f"{field.name}={_default(field)}"


def _default(field: dataclasses.Field[Any]) -> str:
    from guidon.registry import to_text

    made = field.default_factory
    return to_text(field.default if made is dataclasses.MISSING else made())
