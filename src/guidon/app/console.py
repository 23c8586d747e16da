"""The console that commands print results on."""

from __future__ import annotations

from rich.console import Console


class Output(Console):
    """Standard output; a reader that has seen enough, `head` for instance, ends the command without complaint."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Let the command line end as for every other command; rich would exit with 1."""
        raise BrokenPipeError
