"""Rows of images: the same in any blocks, resumed after a break, refused where they are of something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from guidon.errors import BadValue, DamagedCheckpoint, DataError, MissingFile, NotSupported
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
