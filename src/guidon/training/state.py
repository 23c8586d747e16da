"""The state of a run on disk: a named dictionary of stateful objects, as safetensors and JSON, never pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from guidon.checkpoints.atomic import recover_folder, replaced_folder
from guidon.checkpoints.native import read_tensors, write_tensors
from guidon.errors import DamagedCheckpoint, MissingFile

STATE, TENSORS = "state.json", "state.safetensors"


class Stateful(Protocol):
    """What can give its state and take it up again."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


class OptimizerState:
    """An optimizer whose restored state is laid out in memory as its parameters are.

    The same numbers in another layout are added in another order somewhere, and a resumed run would drift in the last bit.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it up."""
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        laid_out = {
            index: {
                name: torch.empty_like(parameters[index]).copy_(value)
                if value.shape == parameters[index].shape
                else value
                for name, value in entries.items()
            }
            for index, entries in state["state"].items()
        }
        self._optimizer.load_state_dict({"state": laid_out, "param_groups": state["param_groups"]})


def save_state(folder: Path, objects: Mapping[str, Stateful], notes: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        folder: where; a checkpoint that is there is replaced once the new one is complete.
        objects: whose state is kept, by name.
        notes: JSON-able, given back by `read_notes`.

    Raises:
        SaveFailed: the disk is full or the folder cannot be written; the old checkpoint is untouched.
    """
    tensors: dict[str, Tensor] = {}
    states = {name: _without_tensors(value.state_dict(), name, tensors) for name, value in objects.items()}
    with replaced_folder(folder) as new:
        write_tensors(new / TENSORS, tensors)
        (new / STATE).write_text(json.dumps({"format": 1, "notes": notes, "states": states}))


def read_notes(folder: Path) -> dict[str, Any] | None:
    """Return the notes of a checkpoint, or None where there is none yet; raises `DamagedCheckpoint`."""
    recover_folder(folder)
    return _read(folder)["notes"] if folder.is_dir() else None


def load_state(folder: Path, objects: Mapping[str, Stateful]) -> None:
    """Give every object the state it had.

    Raises:
        MissingFile: the checkpoint lacks a file.
        DamagedCheckpoint: a file is cut short, or the states are of other objects than these.
    """
    states = _read(folder)["states"]
    if not (folder / TENSORS).is_file():
        raise MissingFile(f"{folder} has no {TENSORS}; copy the whole folder again")
    tensors = read_tensors(folder / TENSORS)
    if states.keys() != objects.keys():
        raise DamagedCheckpoint(
            f"{folder} holds {sorted(states)} instead of {sorted(objects)}; resume with the version that wrote it"
        )
    for name, value in objects.items():
        try:
            value.load_state_dict(_with_tensors(states[name], tensors))
        except (KeyError, RuntimeError, ValueError) as error:
            raise DamagedCheckpoint(
                f"the {name} in {folder} does not fit this run ({str(error).splitlines()[0]}); start again in another folder"
            ) from error


def _read(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise MissingFile(f"{folder} has no {STATE}; copy the whole folder again, or start in another one") from error
    except ValueError as error:
        raise DamagedCheckpoint(
            f"{path} is not readable JSON ({error}); copy it again, or start in another folder"
        ) from error


def _without_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` with a reference in place of every tensor, and the tensors by path; dictionaries become lists of pairs."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):  # pairs keep keys that are numbers
        return {"pairs": [[key, _without_tensors(part, f"{path}.{key}", tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, f"{path}.{i}", tensors) for i, part in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _with_tensors(part, tensors) for key, part in value["pairs"]}
    if isinstance(value, list):
        return [_with_tensors(part, tensors) for part in value]
    return value
