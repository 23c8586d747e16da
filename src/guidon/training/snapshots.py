"""Power averages stored along a run, and the model of any other average length made of them afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from guidon.checkpoints.atomic import write_bytes
from guidon.errors import DamagedCheckpoint
from guidon.model import Model
from guidon.training.ema import Average, Power, Snapshot, reconstruct


def save_snapshot(folder: Path, average: Average[Model], images: int) -> None:
    """Store a power average as it is after so many images; raises `SaveFailed`."""
    assert isinstance(average.profile, Power)
    length = average.profile.length
    tensors = {name: value.detach().cpu().contiguous() for name, value in average.model.state_dict().items()}
    notes = {"images": str(images), "length": repr(length)}
    write_bytes(folder / f"{images:012d}-{length:.4f}.safetensors", safetensors.torch.save(tensors, notes))


def read_snapshots(folder: Path) -> list[Snapshot]:
    """Return the snapshots of a folder in the order of time; their tensors are read when they are needed.

    Raises:
        DamagedCheckpoint: a file is cut short or is not a snapshot.
    """
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                notes = file.metadata()
                found.append(Snapshot(int(notes["images"]), float(notes["length"]), _OnDisk(path)))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DamagedCheckpoint(
                f"{path} is cut short or is not a snapshot ({error}); delete it to go without it"
            ) from error
    return found


def reconstruct_model(run: str | Path, length: float, images: int | None = None) -> Model:
    """Return a run's model with the power average of any length.

    Args:
        run: folder that `guidon train` wrote, with stored power averages (``train.power_averages``).
        length: relative length of the average that is wanted, 0 < length < 0.288.
        images: the moment that is wanted, in images seen; left out: the end of the run.

    Raises:
        BadValue: the run stored no averages, or the length or the moment is out of range.
        MissingFile: there is no finished model in the run.
    """
    model = Model.from_pretrained(Path(run) / "model")
    model.load_state_dict(reconstruct(read_snapshots(Path(run) / "snapshots"), length, images))
    return model


class _OnDisk(Mapping[str, Tensor]):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._path, "pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        with safe_open(self._path, "pt") as file:
            return iter(list(file.keys()))

    def __len__(self) -> int:
        return sum(1 for _ in self)
