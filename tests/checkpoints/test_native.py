from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import torch

from guidon.checkpoints import atomic, native
from guidon.checkpoints.native import read_checkpoint, write_checkpoint
from guidon.errors import DamagedCheckpoint, MissingFile, SaveFailed

CONFIG = {"shape": [1, 8, 8], "classes": ["a", "b"]}
TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "model", CONFIG, TENSORS)
    return tmp_path / "model"


def test_what_is_written_comes_back(folder: Path) -> None:
    config, tensors = read_checkpoint(folder)
    assert config == CONFIG
    assert tensors.keys() == TENSORS.keys()
    assert all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in TENSORS.items()
    )


def test_whoever_may_read_the_config_may_read_the_numbers(folder: Path) -> None:
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(MissingFile, match=name):
        read_checkpoint(folder)


def test_a_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="guidon train"):
        read_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 5, 60, -4])
def test_a_truncated_tensor_file_is_refused(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedCheckpoint, match="cut short"):
        read_checkpoint(folder)


def test_a_pickle_is_refused(folder: Path) -> None:
    torch.save(TENSORS, folder / "model.safetensors")
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]"])
def test_a_broken_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(DamagedCheckpoint, match="config"):
        read_checkpoint(folder)


def test_a_full_disk_leaves_the_checkpoint_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(native, "write_tensors", full)
    with pytest.raises(SaveFailed, match="No space left"):
        write_checkpoint(folder, {"shape": "other"}, {})
    assert read_checkpoint(folder)[0] == CONFIG
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # and no rubbish beside it


def test_a_crash_between_the_two_renames_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        pass

    replace, calls = atomic.os.replace, []

    def crash_at_the_second(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == 2:
            raise Crash
        replace(*paths)

    monkeypatch.setattr(atomic.os, "replace", crash_at_the_second)
    with pytest.raises(Crash):
        write_checkpoint(folder, {"shape": "other"}, {})
    monkeypatch.undo()
    assert not folder.exists()
    assert read_checkpoint(folder)[0] == CONFIG
    assert not folder.exists()  # reading moves nothing: the writer may be at work
    write_checkpoint(folder, {"shape": "other"}, TENSORS)
    assert read_checkpoint(folder)[0] == {"shape": "other"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_what_is_not_a_checkpoint_is_never_replaced(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    with pytest.raises(SaveFailed, match="README"):
        write_checkpoint(folder, CONFIG, TENSORS)
    assert (folder / "README.md").read_text() == "mine"


def test_a_copy_beside_a_checkpoint_is_left_alone(folder: Path) -> None:
    copy = folder.with_name("model.old")
    shutil.copytree(folder, copy)
    read_checkpoint(folder)
    write_checkpoint(folder, {"shape": "other"}, TENSORS)
    assert read_checkpoint(copy)[0] == CONFIG


def test_the_current_folder_is_a_folder_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert read_checkpoint(".")[0] == CONFIG


def test_write_bytes_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    atomic.write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "_sync", full)
    with pytest.raises(SaveFailed, match="untouched"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
