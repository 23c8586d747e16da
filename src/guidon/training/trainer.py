"""The heart of training: a generator that makes one optimizer step at a time and tells about it.

Whoever drives it decides what else happens between steps: progress bars, samples, checkpoints (see `guidon.training.loop`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration, broadcast_object_list
from torch import Tensor

from guidon import registry
from guidon.conditioning import Texts
from guidon.errors import BadRecipe, NumericalError
from guidon.models.layers import checkpoint_stages
from guidon.training.batches import Batch, random_for
from guidon.training.ema import Average, Power
from guidon.training.optimizer import build_optimizers, share_of_peak
from guidon.training.run_recipe import RunRecipe, Trained, differences, flat, seconds
from guidon.training.state import OptimizerState, Stateful, load_state, read_notes, save_state
from guidon.training.threads import fastest_threads
from guidon.training.times import ImportanceTimes


@dataclass(frozen=True)
class Step:
    """What happened in a step.

    Args:
        step: steps done, this one included.
        images: images seen.
        seconds: wall-clock time since the first step, without pauses between a stop and a resume.
        progress: how far the run is, 0 to 1.
        loss: of this step's batch, over all processes.
        lr: AdamW's learning rate in this step.
        gradient: norm of the gradient before it was clipped; None if nothing is clipped.
        also: what the loss measured beside itself, by name.
    """

    step: int
    images: int
    seconds: float
    progress: float
    loss: float
    lr: float
    gradient: float | None
    also: Mapping[str, float] = field(default_factory=dict)


class Trainer(Generic[Trained]):
    """A training run in memory.

    Args:
        recipe: what to do.
        logs: folder for the trackers; None for no trackers.
        threads: CPU threads to use where the recipe does not say; None: measure what is fastest.

    Attributes:
        model: with the raw weights.
        average: the average of the weights that the recipe asks for; ``average.model`` is the one to sample.
        powers: the power averages to be stored.
        step, seconds: how far the run is.
        loss: recent mean, kept by whoever drives the run and stored with it; None before the first step.

    Raises:
        BadRecipe: the recipe does not fit the data, the network or the number of processes.
        DataError: the data cannot be read.
    """

    def __init__(self, recipe: RunRecipe[Trained], *, logs: Path | None = None, threads: int | None = None) -> None:
        self.recipe = recipe
        train = recipe.train
        _check_trackers(train.trackers)
        AcceleratorState._reset_state()  # an earlier run of this process may have used another precision
        self.accelerator = Accelerator(
            mixed_precision="bf16" if train.precision == "bf16" else "no",
            gradient_accumulation_steps=train.accumulate,
            log_with=list(train.trackers) if logs else None,
            project_config=ProjectConfiguration(logging_dir=str(logs)) if logs else None,
        )
        self.device, self.world = self.accelerator.device, self.accelerator.num_processes
        if train.batch_size % (self.world * train.accumulate):
            raise BadRecipe(
                f"train.batch_size {train.batch_size} does not divide into {train.accumulate} parts for each of {self.world} processes;"
                " choose a multiple"
            )
        self.data = recipe.open()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            held = self.data.held_out.captions if self.data.held_out is not None else None
            self.model = recipe.build(self.data.shape, self.data.classes, self.data.wordings, held or ())
        self._layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.model.to(self.device, memory_format=self._layout)  # type: ignore[call-overload]
        self.average = Average(self.model, registry.parse("average", train.average))
        self.powers = [Average(self.model, Power(length)) for length in recipe.stored_averages]
        if train.checkpointing:
            checkpoint_stages(self.model)
        if train.compile:
            self.model.network.compile()
        optimizers = build_optimizers(self.model, train)
        self._optimizer_states = {name: OptimizerState(optimizer) for name, optimizer in optimizers.items()}
        self._optimizers = [self.accelerator.prepare(optimizer) for optimizer in optimizers.values()]
        self._objective = recipe.loss(self.model)
        self._loss = self.accelerator.prepare(self._objective).train()
        self._times: ImportanceTimes | None = getattr(self._objective, "times", None)
        self.step, self.seconds = 0, 0.0
        self.loss: float | None = None
        self.threads = self._set_threads(train.threads or threads)

    @property
    def images(self) -> int:
        """Images seen, over all processes."""
        return self.step * self.recipe.train.batch_size

    @property
    def progress(self) -> float:
        """How far the run is, 0 to 1: by its steps or its budget, whichever is further."""
        train = self.recipe.train
        by_steps = self.step / train.steps if train.steps else 0.0
        by_time = self.seconds / seconds(train.budget) if train.budget else 0.0
        return min(max(by_steps, by_time), 1.0)

    def steps(self) -> Iterator[Step]:
        """Make the steps that are left, one at a time.

        Raises:
            NumericalError: the loss or its gradient is not finite; the weights are those before that step.
        """
        train = self.recipe.train
        begun = time.monotonic() - self.seconds
        batches = self.data.batches(train.batch_size, self.step, self.accelerator.process_index, self.world)
        with closing(batches):  # type: ignore[type-var]
            while True:
                self.seconds = self._agreed(time.monotonic() - begun)
                if self.progress >= 1:
                    return
                share = share_of_peak(train, self.step, self.progress)
                for optimizer in self._optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = share * group["peak"]
                loss, gradient, also = self._step(next(batches))
                for average in (self.average, *self.powers):
                    average.update(self.model, self.images, train.batch_size)
                self.step += 1
                self.seconds = self._agreed(time.monotonic() - begun)
                yield Step(self.step, self.images, self.seconds, self.progress, loss, share * train.lr, gradient, also)

    def save(self, folder: Path) -> None:
        """Write a checkpoint from which `resume` continues exactly; raises `SaveFailed`."""
        if self.accelerator.is_main_process:
            notes = {
                "step": self.step,
                "seconds": self.seconds,
                "loss": self.loss,
                "threads": self.threads,
                "recipe": flat(self.recipe),
            }
            save_state(folder, self._objects(), notes)

    def resume(self, folder: Path) -> None:
        """Go back to where a checkpoint was written.

        Raises:
            MissingFile, DamagedCheckpoint: the checkpoint cannot be read.
            BadRecipe: it was written under another recipe.
        """
        notes = read_notes(folder) or {}
        if changed := differences(notes.get("recipe", {}), self.recipe):
            raise BadRecipe(f"the checkpoint in {folder} was trained with other settings: {', '.join(changed)}")
        load_state(folder, self._objects())
        self.step, self.seconds, self.loss = notes["step"], notes["seconds"], notes["loss"]

    def _objects(self) -> dict[str, Stateful]:
        powers = {f"power-{average.profile.length}": average for average in self.powers}  # type: ignore[attr-defined]
        times = {} if self._times is None else {"times": self._times}
        return {
            "model": self.model,
            "average": self.average,
            **powers,
            **self._optimizer_states,
            "data": self.data,
            **times,
        }

    def _step(self, batch: Batch) -> tuple[float, float | None, dict[str, float]]:
        """Make one optimizer step and return the loss, the gradient's norm, and what the loss measured beside itself."""
        train, rank = self.recipe.train, self.accelerator.process_index
        self.accelerator.gradient_accumulation_steps = train.accumulate  # all accelerators of a process share it
        torch.manual_seed(
            int(random_for("network", train.seed, self.step, rank).integers(2**63))
        )  # for dropout in the network
        share = len(batch)
        whole = torch.Size((train.batch_size, *self.data.shape))
        draw = self.recipe.draw(self.model, whole, step=self.step, device=self.device)
        if self._times is not None:
            times, weight = self._times.draw(train.batch_size, seed=train.seed, step=self.step)
            draw = replace(draw, level=self.model.process.level(times), weight=weight)
        draw = draw.take(slice(rank * share, (rank + 1) * share))
        images = batch.images.to(self.device, memory_format=self._layout)
        told = self._objective.told(batch)
        told = told.to(self.device) if isinstance(told, Tensor) else told
        losses, unweighed, also, size = [], [], [], share // train.accumulate
        for rows in (slice(start, start + size) for start in range(0, share, size)):
            with self.accelerator.accumulate(self._loss):
                chance = draw.take(rows)
                each = self._loss(images[rows], _rows(told, rows), chance)  # (B,)
                loss = (each if self._times is None else each * chance.weight.to(each)).mean()
                self.accelerator.backward(loss)
                losses.append(loss.detach())
                unweighed.append(each.detach())
                also.append(getattr(self._objective, "also", {}))
        mean = self.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        gradient = None
        if train.clip is not None:
            gradient = float(self.accelerator.clip_grad_norm_(self.model.parameters(), train.clip))
        if not math.isfinite(mean) or not math.isfinite(gradient or 0.0):
            raise NumericalError(
                f"at step {self.step + 1} the loss is {mean:g} and its gradient {gradient}; the last checkpoint is good."
                " Start again with a lower train.lr, a longer train.warmup, or train.precision fp32"
            )
        if self._times is not None:
            self._times.update(times, self.accelerator.gather(torch.cat(unweighed)))
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        measured = {name: torch.stack([part[name] for part in also]).mean() for name in also[0]}
        return mean, gradient, {n: self.accelerator.reduce(value, "mean").item() for n, value in measured.items()}

    def agree(self, wanted: bool) -> bool:
        """Return whether any process wants something, the same answer in all; every process must ask at every step."""
        if self.world == 1:
            return wanted
        return self.accelerator.reduce(torch.tensor(float(wanted), device=self.device), "sum").item() > 0

    def _agreed(self, elapsed: float) -> float:
        """Return the first process's time, so that all end at the same step."""
        return elapsed if self.world == 1 else broadcast_object_list([elapsed])[0]

    def _set_threads(self, wanted: int | None) -> int:
        available = torch.get_num_threads()
        if wanted is None and available > 1 and self.world == 1 and self.device.type == "cpu":
            size = self.recipe.train.batch_size // self.recipe.train.accumulate
            images = torch.zeros(size, *self.data.shape).to(memory_format=self._layout)
            told = self._objective.told(Batch(images, torch.zeros(size, dtype=torch.long), [""] * size))
            draw = self.recipe.draw(self.model, images.shape, step=0, device=self.device)
            wanted = fastest_threads(lambda: self._loss(images, told, draw).mean().backward(), available)
            self._loss.zero_grad()
        torch.set_num_threads(wanted or available)
        return torch.get_num_threads()


def _rows(told: Tensor | Texts | None, rows: slice) -> Tensor | Texts | None:
    """Return what some images of a batch are told."""
    return told.take(rows) if isinstance(told, Texts) else None if told is None else told[rows]


def _check_trackers(names: tuple[str, ...]) -> None:
    available = [str(tracker) for tracker in get_available_trackers()]
    if unknown := sorted(set(names) - set(available)):
        raise BadRecipe(
            f"train.trackers: {', '.join(unknown)} is not among the trackers installed here: {', '.join(available) or 'none'};"
            " install it with pip, or leave it out"
        )
