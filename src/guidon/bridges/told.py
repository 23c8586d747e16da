"""What a pipeline tells its networks under another prompt: found by letting it begin, and stopping it when it asks."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from guidon.bridges.intercept import Original, instead_of_call
from guidon.bridges.layout import Layout
from guidon.bridges.question import Question
from guidon.errors import BadValue, NotSupported

Words = Mapping[str, Any]
PROMPTS = ("prompt", "class_labels", "image_embeds")
NEGATIVE = re.compile(r"negative_(pooled_)?prompt.*")
IN_PLACE_OF_PROMPTS = re.compile(r"(negative_)?(pooled_)?prompt_.*|negative_prompt")
OF_ONE_RUN = re.compile(r"callback.*|generator")  # must not be called for it, nor drawn from


class _Enough(Exception):
    """The pipeline has asked all that was to be known."""


def has_negative(words: Words) -> bool:
    """Return whether a call is told what it is not to show."""
    return any(value is not None for name, value in words.items() if NEGATIVE.fullmatch(name))


def without_negative(words: Words) -> dict[str, Any]:
    """Return the arguments of a call without what it is told not to show."""
    return {
        name: value for name, value in words.items() if not (NEGATIVE.fullmatch(name) or OF_ONE_RUN.fullmatch(name))
    }


def other_words(words: Words, parameters: Sequence[str], prompt: Any) -> dict[str, Any]:
    """Return the arguments of a call with another prompt for all its images; raises `NotSupported` where it is told none.

    Args:
        words: the arguments of the call.
        parameters: the names of all that it takes.
        prompt: a text, the number of a class, or the embedding of an image (D,) or (1, D), whichever the pipeline is told.
    """
    name = next((name for name in PROMPTS if name in parameters), None)
    if name is None:
        raise NotSupported(
            f"this pipeline is told none of {', '.join(PROMPTS)}, so nothing else can be told in its place"
        )
    kept = {
        key: value
        for key, value in words.items()
        if not (IN_PLACE_OF_PROMPTS.fullmatch(key) or OF_ONE_RUN.fullmatch(key))
    }
    given = words.get(name)
    if isinstance(given, Tensor) != isinstance(prompt, Tensor):
        raise BadValue(
            f"the pipeline is told {name} as {type(given).__name__}; what else it is told must be the same, not {prompt!r:.60}"
        )
    if isinstance(given, Tensor):
        return kept | {name: prompt.to(given).expand_as(given)}
    many = words.get("prompt_embeds") if given is None else given
    return kept | {name: prompt if many is None or isinstance(many, str) else [prompt] * len(many)}


def asked_under(
    pipe: Any, run: Callable[[], Any], networks: Sequence[nn.Module], layout: Layout, *, null: bool
) -> Question:
    """Return what a pipeline asks one of its networks first when it is called; it is stopped there, and nothing was drawn.

    Args:
        pipe: the pipeline.
        run: calls it.
        networks: of which it asks one first.
        layout: how it asks them.
        null: whether the question about nothing is wanted, not that about what is given.
    """
    found: list[Question] = []

    def look(network: nn.Module, own: Original, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        question = Question.of(network, args, kwargs)
        if layout.calls == "joint":
            given, nothing = layout.halves(question)
            found.append(nothing if null else given)
            raise _Enough
        found.append(question)
        if len(found) == 1 + null:
            raise _Enough
        return own(*args, **kwargs)

    with contextlib.ExitStack() as stack:
        for network in networks:
            stack.enter_context(instead_of_call(network, functools.partial(look, network)))
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(_silent(pipe))
        stack.enter_context(contextlib.suppress(_Enough))
        run()
    return found[-1]


@contextlib.contextmanager
def _silent(pipe: Any) -> Iterator[None]:
    """Let a pipeline show no progress bar."""
    held = getattr(pipe, "_progress_bar_config", None)
    pipe._progress_bar_config = {**(held or {}), "disable": True}
    try:
        yield
    finally:
        if held is None:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = held
