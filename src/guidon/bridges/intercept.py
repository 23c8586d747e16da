"""Standing in for a method of one object, for a while: of a network, of a scheduler, of a pipeline."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

Original = Callable[..., Any]
Answer = Callable[[Original, tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def instead_of_call(network: nn.Module, answer: Answer) -> Iterator[None]:
    """Let a function answer the calls of one network; it is handed the network's own call.

    It stands where `torch.nn.Module.compile` puts a compiled call, before all hooks, so that offloading, adapters and compiled
    networks work as ever when the own call is made.
    """
    slot = "_compiled_call_impl"
    held = network.__dict__.get(slot)
    own: Original = held if held is not None else network._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        return answer(own, args, kwargs)

    network.__dict__[slot] = call  # the setattr of a compiled network writes elsewhere
    try:
        yield
    finally:
        if held is None:
            network.__dict__.pop(slot)
        else:
            network.__dict__[slot] = held


@contextlib.contextmanager
def after_step(scheduler: Any, change: Callable[[Any], Any]) -> Iterator[None]:
    """Let a function change what the steps of one scheduler give."""
    held = scheduler.__dict__.get("step")
    own: Original = scheduler.step

    @functools.wraps(own)  # pipelines look at the signature
    def step(*args: Any, **kwargs: Any) -> Any:
        return change(own(*args, **kwargs))

    scheduler.step = step
    try:
        yield
    finally:
        if held is None:
            scheduler.__dict__.pop("step")
        else:
            scheduler.step = held


def class_with_call(kind: type, call: Callable[..., Any]) -> type:
    """Return a class like another in all but what a call of its objects does."""
    functools.update_wrapper(call, kind.__call__)
    same = {name: kind.__dict__[name] for name in ("__module__", "__qualname__", "__doc__") if name in kind.__dict__}
    return type(kind.__name__, (kind,), {**same, "__qualname__": kind.__qualname__, "__call__": call})
