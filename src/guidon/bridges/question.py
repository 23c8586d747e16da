"""One call of a network of diffusers as a question: its arguments by name, of which some have a row for each image."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guidon.errors import NotSupported

TIMES = ("timestep", "timesteps", "t")
SHARED = ("img_ids", "txt_ids", "image_rotary_emb", "freqs_cis", "freqs_cos", "freqs_sin", "rotary_emb")
"""Arguments that all images share, whatever their first dimension is."""


@dataclass(frozen=True)
class Question:
    """The arguments of one call of a network.

    Args:
        words: all of them, by name; those with a row for each image have it first, at any depth.
        state: the name of the argument that is the noisy state.
        rows: how many rows that has.
    """

    words: Mapping[str, Any]
    state: str
    rows: int

    @staticmethod
    def of(network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Question:
        """Return the question that a call of a network is."""
        signature = inspect.signature(type(plain(network)).forward)
        words = dict(signature.bind(None, *args, **kwargs).arguments)
        first, *others = signature.parameters
        words.pop(first)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                words |= words.pop(name, {})
        state = others[0]
        if not isinstance(words.get(state), Tensor):
            raise NotSupported(
                f"{type(plain(network)).__name__} is asked about no tensor {state!r}; guidon cannot steer it"
            )
        return Question(words, state, words[state].shape[0])

    @property
    def x(self) -> Tensor:
        """The noisy state (rows, ...), as the network is shown it."""
        state: Tensor = self.words[self.state]
        return state

    @property
    def time(self) -> float:
        """The time that the network is told."""
        for name in TIMES:
            if name in self.words:
                return float(torch.as_tensor(self.words[name]).flatten()[0])
        raise NotSupported(f"a network that is told no time cannot be steered; it is told {', '.join(self.words)}")

    def take(self, index: slice | list[int]) -> Question:
        """Return the question about some of the rows."""
        taken = _each(self.words, lambda value: value[index] if self._has_rows(value) else value)
        return Question(taken, self.state, taken[self.state].shape[0])

    def told_as(self, other: Question) -> Question:
        """Return the question with what another one tells beside state, time and what a ControlNet saw."""
        if other.rows != self.rows:
            raise NotSupported(
                f"the pipeline asks about {self.rows} images here and about {other.rows} under another prompt, so one cannot stand "
                "for the other; use a rule without further conditions"
            )
        kept = {
            name
            for name in self.words
            if name == self.state or name in TIMES or "residual" in name or "controlnet" in name
        }
        words = {name: value for name, value in other.words.items() if name not in kept}
        return dataclasses.replace(self, words=words | {name: self.words[name] for name in kept})

    def telling(self, words: Mapping[str, Any]) -> Question:
        """Return the question with some arguments replaced."""
        return dataclasses.replace(self, words={**self.words, **words})

    @property
    def form(self) -> tuple[tuple[str, str], ...]:
        """What two questions must have in common to be asked in one call: the shapes of what has rows."""

        def shape(value: Tensor) -> object:
            return (*value.shape[1:], value.dtype) if self._has_rows(value) else "one for all"

        return tuple(
            sorted((name, str(_each(value, shape))) for name, value in self.words.items() if name not in SHARED)
        )

    @staticmethod
    def joined(questions: Sequence[Question]) -> Question:
        """Return several questions of one form as one, one after the other."""
        if len(questions) == 1:
            return questions[0]
        first = questions[0]
        words = _together([question.words for question in questions], first._has_rows)
        return Question(words, first.state, sum(question.rows for question in questions))

    def _has_rows(self, value: Tensor) -> bool:
        return value.ndim > 0 and value.shape[0] == self.rows


def plain(network: nn.Module) -> nn.Module:
    """Return what `torch.compile` was given."""
    inside: nn.Module = getattr(network, "_orig_mod", network)
    return inside


def said(output: Any) -> Tensor:
    """Return the tensor that matters of what a network of diffusers returns: the first."""
    first = output[0]
    if not isinstance(first, Tensor):
        raise NotSupported("networks that answer with a list, one tensor an image, cannot be steered")
    return first


def saying(output: Any, raw: Tensor) -> Any:
    """Return what a network returned with another tensor first."""
    if isinstance(output, tuple):
        return (raw, *output[1:])
    first = dataclasses.fields(output)[0].name
    return dataclasses.replace(output, **{first: raw})


def _each(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return a structure with every tensor that may have rows changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: part if name in SHARED else _each(part, change) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_each(part, change) for part in value)
    return value


def _together(values: Sequence[Any], has_rows: Callable[[Tensor], bool]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values)) if has_rows(first) else first
    if isinstance(first, Mapping):
        return {
            name: part if name in SHARED else _together([value[name] for value in values], has_rows)
            for name, part in first.items()
        }
    if isinstance(first, list | tuple):
        return type(first)(_together(parts, has_rows) for parts in zip(*values, strict=True))
    return first
