"""What a pipeline tells its networks under another prompt: found by letting it begin, and stopping it when it asks."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from guidon.bridges.intercept import Original, instead_of_call
from guidon.bridges.layout import Layout
from guidon.bridges.question import Question
from guidon.errors import NotSupported

Words = Mapping[str, Any]
PROMPTS = ("prompt", "class_labels")
OF_NEGATIVES = re.compile(r"negative_.*|callback.*|generator")
OF_PROMPTS = re.compile(r"(pooled_)?prompt_.*|negative_.*|callback.*|generator")  # whose generator must not be drawn from


class _Enough(Exception):
    """The pipeline has asked all that was to be known."""


def prompt_of(parameters: Sequence[str]) -> str:
    """Return the argument of a pipeline that says what is asked for; raises `NotSupported` where none does."""
    for name in PROMPTS:
        if name in parameters:
            return name
    raise NotSupported(
        "this pipeline is told neither prompt nor class_labels, so nothing else can be told in its place"
    )


def other_words(words: Words, parameters: Sequence[str], prompt: Any) -> dict[str, Any]:
    """Return the arguments of a call with another prompt for all its images, and no negative one."""
    name = prompt_of(parameters)
    count = _count(words, name)
    kept = {key: value for key, value in words.items() if not OF_PROMPTS.fullmatch(key)}
    return kept | {name: prompt if count is None else [prompt] * count}


def without_negative(words: Words) -> dict[str, Any]:
    """Return the arguments of a call without what it is told not to show."""
    return {key: value for key, value in words.items() if not OF_NEGATIVES.fullmatch(key)}


def _count(words: Words, name: str) -> int | None:
    """Return how many prompts a call is given, None for one that is no list."""
    prompt = words.get(name)
    if prompt is None:
        embeds = words.get("prompt_embeds")
        return None if embeds is None else int(embeds.shape[0])
    return len(prompt) if isinstance(prompt, list) else None


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
