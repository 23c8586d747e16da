"""`train`: from a recipe to a folder with a model, or a classifier, showing and storing along the way.

A run's folder holds ``recipe.yaml``, ``checkpoint/`` (to resume), ``samples/``, ``logs/``, ``snapshots/`` (power averages, if
asked for), and in the end ``model/`` (averaged weights, for `guidon.load`) and ``train.json``. What a run does between
steps and at its end beyond that is its recipe's business: `RunRecipe.between` and `RunRecipe.finish`.
"""

from __future__ import annotations

import json
import platform
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guidon._version import __version__
from guidon.checkpoints.atomic import write_text
from guidon.errors import BadRecipe, BadValue, MissingFile
from guidon.training.run_recipe import RunRecipe, Trained, differences, seconds
from guidon.training.state import read_notes
from guidon.training.trainer import Step, Trainer

RECENT = 100  # steps over which speed and loss are averaged for display


def train(
    recipe: RunRecipe[Trained],
    out: str | Path,
    *,
    resume: bool = False,
    budget: str | None = None,
    progress: bool = True,
    on_step: Callable[[Step], None] | None = None,
) -> Trained:
    """Train what a recipe describes, a model or a classifier, or go on training it.

    Args:
        recipe: what to do.
        out: folder of the run.
        resume: go on with the run that is in ``out``, exactly as if it had never stopped (its learning rate can follow the
            clock, with ``train.budget``; then not to the last bit).
        budget: wall-clock time such as "20m", in place of the recipe's.
        progress: show a progress bar on standard error.
        on_step: called after every step.

    Returns:
        It with averaged weights, as it is in ``out/model``.

    Raises:
        BadValue: there is a run in ``out`` already.
        MissingFile: there is no run to resume.
        BadRecipe: the recipe does not fit the data, or is not that of the run to resume.
        SaveFailed: a save could not be finished; the last checkpoint is untouched.
        NumericalError: the loss is not finite.
    """
    out = Path(out).expanduser()
    if budget is not None:
        seconds(budget)
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"budget": budget})})
    notes = _notes_of(out, recipe, resume)
    threads = torch.get_num_threads()
    try:
        trainer = Trainer(recipe, logs=out / "logs" if recipe.train.trackers else None, threads=notes.get("threads"))
        if notes:
            trainer.resume(out / "checkpoint")
        return _run(trainer, out, progress, on_step)
    finally:
        torch.set_num_threads(threads)


def _notes_of(out: Path, recipe: RunRecipe[Any], resume: bool) -> dict[str, Any]:
    """Return the notes of the checkpoint to resume, empty at a new start; refuse what would mix two runs."""
    if not resume:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadValue(
                f"{out} is not empty; go on with the run that is there with --resume, choose another folder, or delete it"
            )
        return {}
    if not out.is_dir():
        raise MissingFile(f"there is no run to resume in {out}; check the folder, or start without resuming")
    notes = read_notes(out / "checkpoint")
    if notes is None:  # stopped before its first checkpoint
        return {}
    if changed := differences(notes["recipe"], recipe):
        raise BadRecipe(
            f"the run in {out} was started with other settings: {', '.join(changed)}; resume with the recipe in {out / 'recipe.yaml'},"
            " or start in another folder"
        )
    return notes


def _run(trainer: Trainer[Trained], out: Path, progress: bool, on_step: Callable[[Step], None] | None) -> Trained:
    accelerator, recipe = trainer.accelerator, trainer.recipe
    main, settings = accelerator.is_main_process, recipe.train
    if main:
        write_text(out / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    accelerator.init_trackers("", init_kwargs={"tensorboard": {"purge_step": trainer.step + 1}})
    due = _Due(settings.checkpoint_every)
    recent: deque[Step] = deque(maxlen=RECENT)
    loss = trainer.loss
    if not trainer.step:  # what was measured at the start, the thread count above all, is then known to whoever resumes
        trainer.save(out / "checkpoint")
        if main:
            recipe.begin(trainer, out)
    with _bar(progress and main) as bar, _finished_steps() as interrupted:
        task = bar.add_task("training", total=1.0, loss="", rate="")
        for step in trainer.steps():
            recent.append(step)
            loss = trainer.loss = sum(s.loss for s in recent) / len(recent)
            rate = (step.images - recent[0].images) / max(step.seconds - recent[0].seconds, 1e-9)
            bar.update(task, completed=step.progress, loss=f"loss {loss:.4f}", rate=f"{rate:,.0f} images/s")
            if step.step % settings.log_every == 0:
                also = {name: sum(s.also[name] for s in recent) / len(recent) for name in step.also}
                values = {"loss": loss, "lr": step.lr, "images/s": rate, "gradient": step.gradient, **also}
                accelerator.log({name: value for name, value in values.items() if value is not None}, step=step.step)
            if main:
                recipe.between(trainer, out)
            if due(step.step):
                trainer.save(out / "checkpoint")
            if on_step is not None:
                on_step(step)
            if trainer.agree(interrupted()):
                trainer.save(out / "checkpoint")
                raise KeyboardInterrupt
    model = _finish(trainer, out, loss)
    accelerator.end_training()  # last: it ends the group of processes
    return model


def _finish(trainer: Trainer[Trained], out: Path, loss: float | None) -> Trained:
    """Write the last checkpoint, the model and the account of the run."""
    trainer.save(out / "checkpoint")
    skipped = trainer.data.skipped
    uncaptioned = trainer.data.uncaptioned if getattr(trainer.model.config, "text", None) is not None else None
    account = {
        "steps": trainer.step,
        "images": trainer.images,
        "seconds": round(trainer.seconds, 2),
        "images_per_second": round(trainer.images / max(trainer.seconds, 1e-9), 2),
        "loss": loss,
        "parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "skipped": {"count": len(skipped), "report": skipped.report()},
        **({} if uncaptioned is None else {"uncaptioned": {"count": len(uncaptioned), "report": uncaptioned.report()}}),
        "guidon": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {trainer.device.type}, {trainer.threads} threads, {trainer.world} processes",
    }
    model = trainer.average.model
    model.config = model.config.model_copy(update={"training": account})
    model.name = str(out / "model")
    trainer.recipe.finish(trainer, out)
    if trainer.accelerator.is_main_process:
        model.save_pretrained(out / "model")
        write_text(out / "train.json", json.dumps(account, indent=2) + "\n")
        for items in (skipped, uncaptioned):
            if items:
                Console(stderr=True).print(f"[yellow]{items.report()}[/yellow]")
    trainer.accelerator.wait_for_everyone()
    return model


@contextmanager
def _finished_steps() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait for the end of the step, so that a checkpoint can be written; a second one stops at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


class _Due:
    """Says when the next checkpoint is due: every so many steps, or every so much time."""

    def __init__(self, every: int | str) -> None:
        self._every, self._last = every, time.monotonic()

    def __call__(self, step: int) -> bool:
        if isinstance(self._every, int):
            return step % self._every == 0
        now = time.monotonic()
        if now - self._last < seconds(self._every):
            return False
        self._last = now
        return True


def _bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not shown,
    )
