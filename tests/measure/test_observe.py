"""Rows of images: the same in any blocks, resumed after a break, refused where they are of something else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from guidon.errors import BadValue, DamagedCheckpoint, DataError, MissingFile, NotSupported, SaveFailed
from guidon.measure.observe import ImageSet, Observer, Rows, observe


class Numbered(ImageSet):
    """Images that hold their own number."""

    def __init__(self, n: int = 11, fingerprint: str = "numbers") -> None:
        self.n, self.fingerprint, self.asked = n, fingerprint, []
        self.labels, self.classes = np.arange(n) % 3, ("a", "b", "c")
        self.captions = tuple(f"number {i}" for i in range(n))

    def __len__(self) -> int:
        return self.n

    def block(self, start: int, stop: int) -> Tensor:
        self.asked.append((start, stop))
        return torch.arange(start, stop, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)


class Means(Observer):
    """Sees the mean of an image and the length of its caption; breaks at an image, where told to."""

    def __init__(self, fingerprint: str = "v1", breaks_at: int = -1) -> None:
        self.name, self.fingerprint, self.breaks_at = "means", fingerprint, breaks_at

    def look(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, np.ndarray]:
        assert captions is not None and len(captions) == len(images)
        mean = images.float().mean((1, 2, 3)).numpy()
        if self.breaks_at in mean:
            raise KeyboardInterrupt
        return {"means/value": mean, "means/letters": np.array([[len(c)] for c in captions], np.int64)}


def test_rows_are_what_was_seen_whatever_the_blocks(tmp_path: Path) -> None:
    for block in (1, 4, 11, 100):
        rows = observe(Numbered(), [Means()], tmp_path / str(block), block=block, keep_images=5)
        assert len(rows) == 11 and rows.aspects == ("images", "means/letters", "means/value")
        assert np.array_equal(rows["means/value"], np.arange(11))
        assert np.array_equal(rows["means/letters"][:, 0], [8] * 10 + [9])
        assert np.array_equal(rows["images"][:, 2, 1, 1], np.arange(5))
        assert rows.labels is not None and np.array_equal(rows.labels, np.arange(11) % 3)
        assert rows.classes == ("a", "b", "c") and rows.captions is not None and rows.captions[10] == "number 10"
        assert rows.observers == {"means": "v1"} and rows.fingerprint == "numbers"


def test_a_broken_run_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        observe(Numbered(), [Means(breaks_at=7)], tmp_path, block=2)
    with pytest.raises(MissingFile, match="not finished"):
        Rows.open(tmp_path)
    again, shown = Numbered(), []
    rows = observe(again, [Means()], tmp_path, block=5, on_block=lambda *done: shown.append(done))
    assert again.asked == [(6, 8), (8, 10), (10, 11)]  # in the blocks of the first run
    assert shown == [(4, 6), (5, 6), (6, 6)]
    assert np.array_equal(rows["means/value"], np.arange(11))
    finished = Numbered()
    observe(finished, [Means()], tmp_path)
    assert finished.asked == []


@pytest.mark.parametrize(
    ("images", "observer", "keep", "says"),
    [
        (Numbered(12), Means(), 0, "other n"),
        (Numbered(fingerprint="others"), Means(), 0, "other fingerprint"),
        (Numbered(), Means("v2"), 0, "other observers"),
        (Numbered(), Means(), 3, "other keep_images"),
    ],
)
def test_rows_of_something_else_are_refused(
    tmp_path: Path, images: Numbered, observer: Means, keep: int, says: str
) -> None:
    observe(Numbered(), [Means()], tmp_path)
    with pytest.raises(BadValue, match=says):
        observe(images, [observer], tmp_path, keep_images=keep)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        observe(Numbered(0), [Means()], tmp_path / "none")
    with pytest.raises(BadValue, match="called alike"):
        observe(Numbered(), [Means(), Means("v2")], tmp_path / "twice")
    with pytest.raises(MissingFile, match="no rows"):
        Rows.open(tmp_path)
    with pytest.raises(NotSupported, match="means/letters, means/value"):
        observe(Numbered(), [Means()], tmp_path / "some")["inception/features"]
    (tmp_path / "some" / "means.value.npy").write_bytes(b"no array")
    with pytest.raises(DamagedCheckpoint, match="measure again"):
        Rows.open(tmp_path / "some")
    with pytest.raises(BadValue, match="one length"):
        Rows.of({"a": np.zeros(3), "b": np.zeros(4)})


def test_what_cannot_be_read_is_not_said_to_be_unwritable(tmp_path: Path) -> None:
    class Gone(Numbered):
        def block(self, start: int, stop: int) -> Tensor:
            if start >= self.gone_from:
                raise FileNotFoundError(2, "no such image")
            return super().block(start, stop)

    images = Gone()
    for images.gone_from in (0, 4):
        with pytest.raises(FileNotFoundError) as error:
            observe(images, [Means()], tmp_path / "rows", block=4)
        assert not isinstance(error.value, SaveFailed)
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveFailed, match="could not write"):
        observe(Numbered(), [Means()], tmp_path / "file" / "rows")


def test_a_full_disk_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("guidon.measure.observe._keep", full)
    with pytest.raises(SaveFailed, match=r"rows \(No space left on device\); free space"):
        observe(Numbered(), [Means()], tmp_path / "rows")


def test_classes_are_called_what_they_are_called_now(tmp_path: Path) -> None:
    observe(Numbered(), [Means()], tmp_path)
    renamed = Numbered()
    renamed.classes = ("x", "y", "z")
    assert observe(renamed, [Means()], tmp_path).classes == ("x", "y", "z")


COMMAND = """
import sys, time
from pathlib import Path
from measure.test_observe import Means, Numbered, observe

class Slow(Means):
    def look(self, images, captions):
        time.sleep(0.2)
        with open(sys.argv[2], "a") as log:
            log.write("look\\n")
        return super().look(images, captions)

rows = observe(Numbered(), [Slow()], Path(sys.argv[1]), block=3)
assert rows["means/value"].tolist() == list(range(11)), rows["means/value"]
"""


def test_two_commands_look_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "cache" / "rows"), str(tmp_path / "log")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        said = one.communicate(timeout=300)[1]
        assert one.returncode == 0, said
    assert (tmp_path / "log").read_text().count("look") == 4
