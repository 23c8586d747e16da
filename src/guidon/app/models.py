"""Opening a model for a command: where it is, what identifies its weights, and on which device it runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from guidon.app.recipes import resuming
from guidon.checkpoints.atomic import surviving
from guidon.checkpoints.native import CONFIG, TENSORS, local_folder
from guidon.classifier import Classifier
from guidon.classifier_request import load_classifier
from guidon.clip import Clip
from guidon.errors import BadValue, MissingFile, NotSupported
from guidon.model import Model
from guidon.models.degrade import read_degraded


def find_model(source: str | Path) -> str:
    """Return the model that a name means: a run's folder stands for the model in it; raises `MissingFile` for an unfinished run."""
    folder = Path(source).expanduser()
    if (folder / CONFIG).exists() or not (folder / "recipe.yaml").exists():
        return str(source)
    if not surviving(folder / "model").is_dir():
        raise MissingFile(f"the run in {folder} has no model yet; finish it: {resuming(folder)}")
    return str(folder / "model")


def holds_model(source: str | Path) -> bool:
    """Return whether a name is that of a model's folder here, or of a run's."""
    folder = Path(source).expanduser()
    return any((folder / name).exists() for name in (CONFIG, "recipe.yaml", f"model/{CONFIG}"))


def open_model(source: str | Path, device: str | None = None) -> tuple[Model, str]:
    """Load a model and return it with the SHA-256 of its weights file.

    Args:
        source: a model's folder, a run's folder, or a hub id.
        device: "cpu", "cuda", "cuda:1", ...; left out: the first GPU where there is one.

    Raises:
        CheckpointError: there is no such model, or it cannot be read.
        BadValue, NotSupported: no such device.
    """
    name = find_model(source)
    where = device_of(device)
    model = Model.from_pretrained(name)
    return model.to(where), file_digest(surviving(local_folder(name)) / TENSORS)


def open_weak(text: str, model: Model, device: str | None = None) -> Model:
    """Return the worse model to steer away from.

    Args:
        text: a folder or hub id, or ``self:0.1`` for the model itself with that much noise in its weights (``self:0.1:7``: of
            seed 7).
        model: the model itself.
        device: as in `open_model`.
    """
    noisy = read_degraded(text)
    return open_model(text, device)[0] if noisy is None else model.degraded(*noisy)


def open_classifier(
    source: str | Path, device: str | None = None, *, calibrated: bool = False
) -> tuple[Classifier | Clip, str]:
    """Load a classifier of noisy images, or a CLIP, and return it with the SHA-256 of its weights file.

    Args:
        source, device: as in `open_model`.
        calibrated: as in `Classifier.calibrated`; a CLIP has no temperatures.
    """
    name = find_model(source)
    classifier = load_classifier(name).to(device_of(device))
    digest = file_digest(surviving(local_folder(name)) / TENSORS)
    if not calibrated:
        return classifier, digest
    if isinstance(classifier, Clip):
        raise BadValue(f"{source} is a CLIP, which has no temperatures; leave --calibrated out")
    return classifier.calibrated(), digest


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def device_of(name: str | None) -> torch.device:
    """Return a device by name, or the first GPU where there is one; raises `BadValue` or `NotSupported`."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadValue(f"there is no device {name!r}; give cpu, cuda or cuda:1") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise NotSupported(
            f"this machine or this torch has no {name} ({str(error).splitlines()[0]}); give --device cpu"
        ) from error
    return device
