"""How far a sweep or a search is, with the time that is left, on standard error; gone when it is done."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guidon.app.progress import console
from guidon.study.store import Cell
from guidon.study.sweep import Failure, Job


class Bars:
    """One bar: of what comes first, and then of all that is to be done."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
        hidden = not console.is_terminal
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden)
        self.task = self.progress.add_task("opening the model", total=None)
        self.weights: dict[str, float] = {}
        self.spent = 0.0
        self.order: list[str] = []
        self.count = 0
        self.begun = False

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def prepare(self, what: str, done: int, parts: int) -> None:
        """Show how far what comes before the first cell is."""
        if not self.begun:
            self.progress.update(self.task, description=what, completed=done, total=parts)

    def plan(self, jobs: Sequence[Job], cells: int) -> None:
        """Begin the bar of a sweep, in which a cell is as long as it takes evaluations."""
        self.begun = True
        self.weights = {job.key: job.trial.nfe * job.point.setting.n for job in jobs}
        self.order, self.count = list(self.weights), cells
        self.progress.reset(self.task, total=sum(self.weights.values()) or 1, description=self._said())

    def block(self, done: int, blocks: int) -> None:
        """Show how far the cell in flight is."""
        weight = self.weights[self.order[0]] if self.order else 0.0
        self.progress.update(self.task, completed=self.spent + weight * done / blocks)

    def cell(self, cell: Cell, done: int, cells: int) -> None:
        """Show that a cell is finished."""
        self._past(cell.key)

    def failed(self, failure: Failure) -> None:
        """Show that a cell is done with."""
        self._past(failure.key)

    def tried(self, done: int, trials: int, cell: Cell | None) -> None:
        """Show that a trial of a search is done."""
        self.begun = True
        self.progress.update(self.task, completed=done, total=trials, description=f"trial {done} of {trials}")

    def _past(self, key: str) -> None:
        if key in self.order:
            self.order.remove(key)
            self.spent += self.weights[key]
        self.progress.update(self.task, completed=self.spent, description=self._said())

    def _said(self) -> str:
        return f"cell {min(self.count - len(self.order) + 1, self.count)} of {self.count}"
