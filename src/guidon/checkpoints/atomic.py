"""Writing so that nothing already written is lost: all of it, or none of it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from guidon.errors import SaveFailed


@contextlib.contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of ``folder`` when the block ends well.

    Until then, and if anything fails, what was at ``folder`` stays. A crash between the two renames leaves it beside its
    place, where `surviving` finds it and the next write puts it back.

    Raises:
        SaveFailed: the disk is full or the folder cannot be written.
    """
    target, new, old = _places(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(target)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
        for path in new.rglob("*"):
            if path.is_file():
                _sync(path)
        if target.exists():
            os.replace(target, old)
        os.replace(new, target)
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise SaveFailed(
            f"could not save {target} ({error.strerror or error}); what was there before is untouched. "
            "Free space or choose another folder, then go on with --resume"
        ) from error


def surviving(folder: str | Path) -> Path:
    """Return where the content of a folder is: there, or beside it where a crash in `replaced_folder` left it."""
    target, _, old = _places(folder)
    return old if old.is_dir() and not target.exists() else target


def recover_folder(folder: str | Path) -> None:
    """End a swap that a crash in `replaced_folder` left half done; for the one process that writes the folder."""
    target, _, old = _places(folder)
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, target)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all; raises `SaveFailed`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all; raises `SaveFailed`."""
    target, new, _ = _places(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        _sync(new)
        os.replace(new, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise SaveFailed(
            f"could not write {target} ({error.strerror or error}); what was there before is untouched. "
            "Free space or choose another place"
        ) from error


def _places(path: str | Path) -> tuple[Path, Path, Path]:
    """Return a path, the one that is filled before it takes its place, and the one that holds what was there meanwhile."""
    target = Path(path).expanduser().resolve()
    return target, target.with_name(f".{target.name}.guidon-new"), target.with_name(f".{target.name}.guidon-old")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
