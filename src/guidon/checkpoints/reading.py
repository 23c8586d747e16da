"""Reading files of tensors that others wrote, without ever running what stands in them."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidon.checkpoints.native import read_tensors
from guidon.errors import CheckpointError, DamagedCheckpoint, MissingFile

ZIP = b"PK\x03\x04"
# where programs that train keep a network beside an optimiser; averaged weights are what one samples from, so they come first
PARTS = ("ema", "model_ema", "ema_state_dict", "ema_model", "model", "state_dict", "model_state_dict", "net")
HARMLESS: list[Any] = [
    argparse.Namespace
]  # attributes and nothing else; DiT's training checkpoints keep their arguments in one


@dataclass(frozen=True)
class State:
    """The named tensors of a file.

    Args:
        tensors: by the file's own names.
        part: the entry that held them, such as "ema"; None where the whole file does.
    """

    tensors: dict[str, Tensor]
    part: str | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every name with its shape."""
        return {name: tuple(value.shape) for name, value in self.tensors.items()}


def read_state(path: Path) -> State:
    """Read the named tensors of a ``.pt`` or ``.safetensors`` file, mapped into memory where the file allows it.

    Of a training checkpoint the averaged weights are taken where there are any, else the network's own.

    Raises:
        MissingFile: there is no such file.
        DamagedCheckpoint: it is cut short, holds no tensors, or asks to run code, which is never done.
    """
    if not path.is_file():
        raise MissingFile(
            f"there is no file {path}; give the checkpoint that was downloaded, a .pt or .safetensors file"
        )
    head = _head(path)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and 0 not in head:
        raise DamagedCheckpoint(f"{path} is a web page, not a checkpoint; download the file itself")
    if path.suffix == ".safetensors":
        return State(_named(read_tensors(path)))
    held = _load(path, mapped=head.startswith(ZIP))  # as torch writes since 1.6; older files are read whole
    if not isinstance(held, Mapping):
        raise DamagedCheckpoint(f"{path} holds {_article(held)}, not named tensors; save model.state_dict() instead")
    if {"state", "param_groups"} <= held.keys():
        raise DamagedCheckpoint(
            f"{path} is the state of an optimiser; give the network's file, beside it: ema_*.pt or model*.pt"
        )
    for part in (None, *PARTS):
        inside = held if part is None else held.get(part)
        if isinstance(inside, Mapping) and (tensors := _named(inside)):
            return State(tensors, part)
    raise DamagedCheckpoint(
        f"{path} holds no named tensors but {', '.join(map(str, list(held)[:5])) or 'nothing'}; save model.state_dict() instead"
    )


def _head(path: Path) -> bytes:
    """Return the first bytes of a file, which tell its format."""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise CheckpointError(f"cannot read {path} ({error.strerror}); check its permissions") from error


def _load(path: Path, mapped: bool) -> Any:
    """Return what a file of torch holds; only tensors and plain containers come out of it."""
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol and of TorchScript; what matters is raised
            return torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except Exception as error:  # what a broken pickle raises may be of any type
        said = str(error)
        if asked := re.search(r"GLOBAL ([\w.]+)", said):
            raise DamagedCheckpoint(
                f"{path} asks to run code when it is read ({asked[1]}), which guidon never does; "
                "get a file of tensors alone: .safetensors, or what torch.save(model.state_dict(), ...) writes"
            ) from error
        if "TorchScript" in said:
            raise DamagedCheckpoint(f"{path} is a program (TorchScript), not a checkpoint; get the weights") from error
        if isinstance(error, pickle.UnpicklingError):
            raise DamagedCheckpoint(
                f"{path} is cut short, or is a pickle of more than tensors, which guidon never reads; "
                "download or copy it again, or get the weights alone (.safetensors)"
            ) from error
        why = f" ({said.splitlines()[0][:80]})" if said and isinstance(error, RuntimeError) else ""  # torch's own words
        raise DamagedCheckpoint(
            f"{path} is cut short or is not a checkpoint{why}; download or copy it again"
        ) from error


def _named(held: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of a mapping by name, without the prefix that training on several devices gives all names."""
    tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _article(held: Any) -> str:
    return f"a {type(held).__name__}"
