"""The loss on images that are kept from training, always at the same times and with the same noise: what differs is the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from guidon.checkpoints.atomic import write_text
from guidon.errors import DamagedCheckpoint, MissingFile
from guidon.model import Model
from guidon.training.batches import Batch

if TYPE_CHECKING:
    from guidon.training.recipe import DenoisingRecipe

MEASURED = 512  # images that are measured on; the noise is the same each time, so differences show on few
PART = 64  # of them at once
LOSSES = "validation.json"


@dataclass(frozen=True)
class Validation:
    """What was measured.

    Args:
        step: of training, 0 before the first.
        loss: mean over the images held out, of the averaged weights, every condition given.
    """

    step: int
    loss: float


@torch.no_grad()
def validation_loss(recipe: DenoisingRecipe, model: Model, held: Batch) -> float:
    """Return the loss of a model on images held out, none of their conditions dropped.

    Args:
        recipe: says what is minimised; it drops no condition.
        model: to measure.
        held: the images; `MEASURED` of them are used, evenly spread.
    """
    chosen = torch.linspace(0, len(held) - 1, min(len(held), MEASURED)).round().long()
    images = held.images[chosen]
    labels = None if held.labels is None else held.labels[chosen]
    captions = None if held.captions is None else [held.captions[i] for i in chosen]
    draw = recipe.draw(model, images.shape, step=0, device=model.device)
    loss, training = recipe.loss(model), model.training
    loss.eval()
    total = 0.0
    for start in range(0, len(images), PART):
        rows = slice(start, start + PART)
        part = Batch(
            images[rows].to(model.device),
            None if labels is None else labels[rows],
            None if captions is None else captions[rows],
        )
        told = loss.told(part)
        told = told.to(model.device) if isinstance(told, torch.Tensor) else told
        total += float(loss(part.images, told, draw.take(rows)).sum())
    model.train(training)
    return total / len(images)


def note(folder: Path, found: Validation) -> list[Validation]:
    """Add what was measured to validation.json, in place of what is there from that step on, and return all; raises `SaveFailed`."""
    try:
        before = [each for each in read_validation(folder) if each.step < found.step]
    except MissingFile:
        before = []
    entries = [*before, found]
    write_text(folder / LOSSES, json.dumps([asdict(entry) for entry in entries], indent=1) + "\n")
    return entries


def read_validation(folder: Path) -> list[Validation]:
    """Return what was measured along a run.

    Raises:
        MissingFile: nothing was.
        DamagedCheckpoint: the file is cut short.
    """
    try:
        return [Validation(**entry) for entry in json.loads((folder / LOSSES).read_text())]
    except FileNotFoundError as error:
        raise MissingFile(f"{folder} has no {LOSSES}; set data.hold_out or data.validation") from error
    except (ValueError, TypeError) as error:
        raise DamagedCheckpoint(f"{folder / LOSSES} is not readable ({error}); copy it again") from error
