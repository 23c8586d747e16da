"""Progress bars, on standard error so that results can be piped; nothing where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)


def loading(what: str) -> AbstractContextManager[object]:
    """Show that something takes seconds to load."""
    return console.status(f"loading {what}") if console.is_terminal else nullcontext()


@contextmanager
def steps_bar(what: str, unit: str = "steps", *, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Show a bar with time left; gives a function to call with (steps done, steps, anything).

    Args:
        what: is done.
        unit: of the steps.
        shown: False in all processes of a distributed run but one.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True) as progress:
        task = progress.add_task(what, total=None)

        def show(done: int, steps: int, _: Any = None) -> None:
            progress.update(task, completed=done, total=steps)

        yield show
