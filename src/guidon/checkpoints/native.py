"""guidon's own checkpoints: ``config.json`` says what the model is, ``model.safetensors`` holds its numbers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from guidon.checkpoints.atomic import replaced_folder, surviving
from guidon.errors import CheckpointError, DamagedCheckpoint, MissingFile, SaveFailed

CONFIG, TENSORS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


def write_checkpoint(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokenizer: str | None = None
) -> None:
    """Write a checkpoint folder whole or not at all.

    Args:
        folder: where; a checkpoint that is there already is replaced once the new one is complete.
        config: what can be written as JSON.
        tensors: names and values.
        tokenizer: the content of ``tokenizer.json``; None for no such file.

    Raises:
        SaveFailed: the disk is full, the folder cannot be written, or it holds other things than a checkpoint; what was
            there is untouched.
    """
    there = Path(folder).expanduser()
    if there.is_dir() and (other := {path.name for path in there.iterdir()} - {CONFIG, TENSORS, TOKENIZER}):
        raise SaveFailed(
            f"{there} holds other things ({', '.join(sorted(other)[:3])}); choose an empty or a new folder"
        )
    with replaced_folder(folder) as new:
        (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        if tokenizer is not None:
            (new / TOKENIZER).write_text(tokenizer)
        write_tensors(new / TENSORS, tensors)


def read_checkpoint(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint folder back: its config and its tensors; raises as `read_config` does."""
    return read_config(folder), read_tensors(surviving(folder) / TENSORS)


def read_tokenizer(folder: str | Path) -> str:
    """Return the content of the ``tokenizer.json`` of a checkpoint folder; raises `MissingFile`."""
    path = surviving(folder) / TOKENIZER
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise MissingFile(
            f"{folder} has no {TOKENIZER}, and its model is told texts; copy the whole folder again"
        ) from error
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(f"{path} is not readable ({error}); copy it again") from error


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read the config of a checkpoint folder.

    Raises:
        MissingFile: the folder or one of its files is not there.
        DamagedCheckpoint: a file is cut short or is not what its name says.
    """
    given, folder = folder, surviving(folder)
    if not folder.is_dir():
        raise MissingFile(f"there is no model folder {given}; give the folder that `guidon train` wrote (RUN/model)")
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise MissingFile(f"{folder} has no {name}; copy the whole folder again, both {CONFIG} and {TENSORS}")
    try:
        config = json.loads((folder / CONFIG).read_text())
    except OSError as error:
        raise CheckpointError(f"cannot read {folder / CONFIG} ({error.strerror}); check its permissions") from error
    except ValueError as error:
        raise DamagedCheckpoint(f"{folder / CONFIG} is not readable JSON ({error}); copy it again") from error
    if not isinstance(config, dict):
        raise DamagedCheckpoint(f"{folder / CONFIG} does not hold a model's config; copy it again")
    return config


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise `DamagedCheckpoint` unless tensors read from ``source`` have the names and shapes of those wanted."""
    expected = {name: tuple(value.shape) for name, value in wanted.items()}
    there = {name: tuple(value.shape) for name, value in found.items()}
    if differing := sorted(name for name in expected.keys() | there.keys() if expected.get(name) != there.get(name)):
        raise DamagedCheckpoint(
            f"{source}/{TENSORS} does not fit its {CONFIG}: {len(differing)} tensors differ, "
            f"for instance {differing[0]}; copy both files from the same model"
        )


def local_folder(source: str | Path) -> Path:
    """Return the folder that a path or a hub id stands for, fetched from the hub if need be; raises `MissingFile`."""
    folder = Path(source).expanduser()
    if not surviving(folder / CONFIG).exists() and surviving(folder / "model" / CONFIG).exists():
        return folder / "model"  # a run's folder stands for the model in it
    if surviving(folder).exists() or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=[CONFIG, TENSORS, TOKENIZER]))
    except Exception as error:  # the hub's client lets errors of several libraries through
        raise MissingFile(
            f"{source} is neither a folder here nor a model that the hub gave ({type(error).__name__}); "
            "check the path, the name, and the network"
        ) from error


def upload(save: Callable[[Path], None], repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a checkpoint folder to the Hugging Face hub and return its address.

    Args:
        save: writes the folder.
        repo_id: "owner/name"; made if it does not exist.
        private: whether a repository that is made is private.
        token: access token; left out: the one of `hf auth login`.

    Raises:
        SaveFailed: the hub did not take it.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "model")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=Path(folder) / "model"))
        except Exception as error:  # the hub's client lets errors of several libraries through
            raise SaveFailed(
                f"could not upload to {repo_id} ({' '.join(str(error).split())[:300]}); log in with `hf auth login`, "
                "check the name and the network"
            ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors, with notes in its header; an error of the file system is raised as `OSError`."""
    host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # as for any new file; the library's own are for their owner alone
    try:
        safetensors.torch.save_file(host, path, notes)
        path.chmod(mode)
    except SafetensorError as error:  # the library wraps a full disk in an error of its own
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors; raises `DamagedCheckpoint` for a file that is cut short or is not safetensors."""
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path} ({error.strerror or error}); check its permissions") from error
    except (SafetensorError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{path} is cut short or is not a safetensors file ({error}); copy it again or use an earlier checkpoint"
        ) from error
