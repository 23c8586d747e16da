"""What all foreign checkpoints share: tables of names, what a checkpoint becomes, and an account of what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Key:
    """One row of a table of names.

    Args:
        theirs, ours: names of tensors; ``*`` stands for the same text in both.
        linear: a convolution one wide there, (C', C, 1), a linear map (C', C) here.
    """

    theirs: str
    ours: str
    linear: bool = False

    def to_ours(self, name: str) -> str | None:
        """Return our name for theirs, or None where the row is not about it."""
        return _renamed(name, self.theirs, self.ours)

    def to_theirs(self, name: str) -> str | None:
        """Return their name for ours, or None where the row is not about it."""
        return _renamed(name, self.ours, self.theirs)


class KeyTable:
    """Names of tensors there and here; of several rows that are about a name the first holds.

    Args:
        rows: from the special to the general; the last is about every name.
    """

    def __init__(self, *rows: Key) -> None:
        self.rows = rows

    def to_theirs(self, name: str) -> str:
        """Return their name for one of ours."""
        return next(theirs for row in self.rows if (theirs := row.to_theirs(name)) is not None)

    def translate(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors under our names and in our shapes; no value is copied."""
        ours: dict[str, Tensor] = {}
        for name, value in state.items():
            row = next(row for row in self.rows if row.to_ours(name) is not None)
            one_wide = row.linear and value.ndim == 3 and value.shape[2] == 1
            ours[row.to_ours(name) or name] = value[:, :, 0] if one_wide else value
        return ours


@dataclass(frozen=True)
class Blueprint:
    """What a foreign checkpoint becomes.

    Args:
        kind: a `Model`, a `Classifier` of noisy images, or a `Clip`.
        config: what its ``config.json`` says.
        keys: its names there and here.
        computed: tensors by their names there that need no place here, since they are always the same.
    """

    kind: Literal["model", "classifier", "clip"]
    config: Mapping[str, Any]
    keys: KeyTable
    computed: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what stands in a file under our names, without what is computed; no value is copied."""
        return self.keys.translate({name: value for name, value in state.items() if name not in self.computed})

    def shapes_there(self, wanted: Shapes) -> dict[str, tuple[int, ...]]:
        """Return our shapes by their names, with those of what is computed."""
        there = {self.keys.to_theirs(name): shape for name, shape in wanted.items()}
        return there | {name: tuple(value.shape) for name, value in self.computed.items()}


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file fit those of a network, by the file's own names.

    Args:
        taken: how many fit.
        missing: names that the file lacks.
        extra: names that the network has no place for.
        differing: names whose shape or kind is not the network's, with what is there and what is wanted.
    """

    taken: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    differing: tuple[str, ...]

    @property
    def problems(self) -> int:
        """How many tensors have no place, and places no tensor."""
        return len(self.missing) + len(self.extra) + len(self.differing)

    @property
    def whole(self) -> bool:
        """Whether every tensor has its place and every place its tensor."""
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.taken} of its {self.taken + len(self.extra) + len(self.differing)} tensors fit"]
        for what, names in (("missing", self.missing), ("extra", self.extra), ("of another shape", self.differing)):
            if names:
                more = f", and {len(names) - 4} more" if len(names) > 4 else ""
                lines.append(f"{len(names)} {what}: {', '.join(names[:4])}{more}")
        return "\n  ".join(lines)


def compare(state: Mapping[str, Tensor], wanted: Shapes, blueprint: Blueprint) -> Fit:
    """Return how a file's tensors fit.

    Args:
        state: the file's tensors by its own names.
        wanted: shapes by our names.
        blueprint: what the file is taken for.
    """
    found, keys = blueprint.tensors(state), blueprint.keys
    both = sorted(found.keys() & wanted.keys())
    problems = {keys.to_theirs(name): _problem(found[name], wanted[name]) for name in both}
    for name, value in blueprint.computed.items():
        if name in state:
            problems[name] = _problem(state[name], tuple(value.shape)) or _deviation(state[name], value)
    differing = tuple(f"{name} {problem}" for name, problem in problems.items() if problem)
    return Fit(
        taken=len(problems) - len(differing),
        missing=tuple(sorted(map(keys.to_theirs, wanted.keys() - found.keys()))),
        extra=tuple(sorted(map(keys.to_theirs, found.keys() - wanted.keys()))),
        differing=differing,
    )


def _problem(value: Tensor, shape: tuple[int, ...]) -> str | None:
    if tuple(value.shape) != tuple(shape):
        return f"{tuple(value.shape)} where {tuple(shape)} is wanted"
    return None if value.is_floating_point() else f"of {value.dtype} where floats are wanted"


def _deviation(value: Tensor, computed: Tensor) -> str | None:
    apart = (value.double() - computed.double()).abs().max().item()
    return None if apart < 1e-2 else f"is up to {apart:.2g} from what it must be"  # averaging over a training rounds


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], name: str) -> list[str]:
    """Return what two sets of sizes do not share, as "model_channels 192 where imagenet256 has 256".

    Args:
        found: sizes of the file.
        wanted: sizes of what it was taken for.
        name: of what it was taken for.
    """
    return [
        f"{size} {_shown(found.get(size))} where {name} has {_shown(wanted.get(size))}"
        for size in dict.fromkeys([*wanted, *found])
        if found.get(size) != wanted.get(size)
    ]


def numbers(count: int) -> tuple[str, ...]:
    """Return the names of classes that have none: "0", "1", ..."""
    return tuple(map(str, range(count)))


def _shown(value: Any) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "(" + ", ".join(map(str, value)) + ")"
    return "none" if value is None else str(value)


def _renamed(name: str, pattern: str, into: str) -> str | None:
    before, star, after = pattern.partition("*")
    if not star:
        return into if name == pattern else None
    fits = name.startswith(before) and name.endswith(after) and len(name) >= len(before) + len(after)
    return into.replace("*", name[len(before) : len(name) - len(after)]) if fits else None
