"""Processes that work together, and processes that must not do the same thing at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from guidon.errors import SaveFailed


def team() -> tuple[int, int, Callable[[], None]]:
    """Return which process this is, of how many, and how to wait for the others."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return 0, 1, lambda: None
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return state.process_index, state.num_processes, state.wait_for_everyone


def leave_team() -> None:
    """End the group of processes, where there is one; what follows, one process does alone."""
    if team()[1] > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other commands from what is written at a path; whoever comes second waits.

    Of a team the first process does this for all: the others wait for it at their next meeting. A process that ends, however it does,
    lets the next one in.

    Args:
        path: of a file or a folder; the lock is a file beside it.

    Raises:
        SaveFailed: nothing can be written beside it.
    """
    lock = path.with_name(f".{path.name}.lock")
    if team()[0] > 0:
        yield
        return
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise SaveFailed(
            f"could not write beside {path} ({error.strerror or error}); free space, or choose another folder"
        ) from error
    with file:
        yield
