"""Every kind of source gives the same pictures, labels and captions; damage is skipped and told; nonsense is refused with a remedy."""

from __future__ import annotations

import io
import os
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from support import pictures

from guidon.errors import DataError, ShapeMismatch, UnknownLabel
from guidon.training import data as data_module
from guidon.training.data import DataConfig, LazyData, MemoryData, StreamData, TrainingData, open_data

N = 40
DIGITS = [str(i) for i in range(10)]
SHARED = Path(os.environ.get("GUIDON_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def opened(source: object, **fields: Any) -> TrainingData:
    return open_data(DataConfig(source=str(source), **fields), seed=3)


def seen(data: TrainingData, items: int, batch_size: int = 4) -> dict[int, tuple[np.ndarray, int | None, str | None]]:
    """Return the first items by the number in their first two pixels: picture (C, H, W) uint8, label, caption."""
    found = {}
    for batch in islice(data.batches(batch_size), items // batch_size):
        assert batch.images.dtype == torch.float32
        assert batch.images.shape == (batch_size, *data.shape)
        raw = ((batch.images + 1) * 127.5).round().to(torch.uint8).numpy()
        for i, picture in enumerate(raw):
            label = int(batch.labels[i]) if batch.labels is not None else None
            caption = batch.captions[i] if batch.captions is not None else None
            found[int(picture[0, 0, 0]) * 200 + int(picture[0, 0, 1])] = (picture, label, caption)
    return found


def make(kind: str, root: Path, damaged: tuple[int, ...] = ()) -> Path:
    return {"folder": pictures.folder, "parquet": pictures.parquet, "webdataset": pictures.shards}[kind](
        root / kind, N, damaged
    )


def saved(root: Path) -> Path:
    import datasets

    table = pq.read_table(make("parquet", root) / "train-00000.parquet")
    datasets.DatasetDict({"train": datasets.Dataset(table)}).save_to_disk(root / "saved")
    return root / "saved"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["folder", "parquet", "webdataset", "saved"])
def test_every_source_gives_the_pictures_with_their_labels_and_captions(
    kind: str, streaming: bool, tmp_path: Path
) -> None:
    source = saved(tmp_path) if kind == "saved" else make(kind, tmp_path)
    data = opened(source, streaming=streaming, classes=DIGITS if kind == "webdataset" else None)
    streams = streaming and kind in ("parquet", "webdataset")
    assert isinstance(data, StreamData if streams else LazyData if streaming else MemoryData)
    assert data.size == (None if streams else N)
    prefix = {"folder": "class-", "webdataset": ""}.get(kind, "digit-")
    assert data.classes == [prefix + name for name in DIGITS]
    found = seen(data, N)
    assert sorted(found) == list(range(N))
    for i, (picture, label) in enumerate(zip(*pictures.arrays(N), strict=True)):
        np.testing.assert_array_equal(found[i][0][0], picture)
        assert found[i][1] == label
        assert found[i][2] == (None if kind == "folder" else f"a photo of a {label}")
    assert len(data.skipped) == 0


def test_the_digits_need_neither_scikit_learn_nor_datasets_to_be_imported() -> None:
    data = opened("digits")
    assert isinstance(data, MemoryData)
    assert data.shape == (1, 8, 8)
    assert data.size == 1797
    assert data.classes == DIGITS
    images = next(data.batches(1797)).images
    assert (images.min(), images.max()) == (-1, 1)
    reference = pytest.importorskip("sklearn.datasets").load_digits()
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels, reference.target)
    np.testing.assert_allclose(data.pixels[:, 0] / 127.5 - 1, reference.images / 8 - 1, atol=1 / 255 + 1e-6)


def test_the_config_can_be_read_without_torch_and_datasets() -> None:
    import subprocess

    check = "import sys, guidon.training.sources; print({'torch', 'datasets', 'numpy'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


@pytest.mark.parametrize("kind", ["folder", "parquet", "webdataset"])
def test_local_files_leave_no_copy_in_a_cache(kind: str, tmp_path: Path, own_cache: Path) -> None:
    opened(make(kind, tmp_path))
    assert [file for file in own_cache.rglob("*") if file.is_file() and file.suffix != ".lock"] == []


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_files_too_large_to_hold_go_through_the_cache(
    kind: str, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guidon.training.sources.ENCODED_LIMIT", 100)
    monkeypatch.setattr(data_module, "MEMORY_LIMIT", 100)
    data = opened(make(kind, tmp_path))
    assert isinstance(data, LazyData)
    assert any(own_cache.rglob("*.arrow"))
    assert {i: label for i, (_, label, _) in seen(data, N).items()} == dict(enumerate(pictures.arrays(N)[1]))


# --- damage ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["folder", "parquet", "webdataset"])
def test_damaged_pictures_are_skipped_counted_and_told(kind: str, streaming: bool, tmp_path: Path) -> None:
    damaged = (0, 7, 39)
    source = make(kind, tmp_path, damaged)
    data = opened(source, streaming=streaming, classes=DIGITS if kind == "webdataset" else None)
    found = seen(data, 3 * N)
    assert sorted(found) == [i for i in range(N) if i not in damaged]
    labels = pictures.arrays(N)[1]
    assert all(label == labels[i] for i, (_, label, _) in found.items()), "a label parted from its picture"
    assert len(data.skipped) == 3
    of = "" if data.size is None else " of 40"
    assert data.skipped.report().startswith(f"3{of} images could not be read: ")
    assert "cannot identify image file" in data.skipped.report()
    assert {"folder": "0007.png", "parquet": "7.png", "webdataset": "0007.png"}[kind] in data.skipped.report()
    if isinstance(data, MemoryData):
        assert data.size == N - 3


def test_damaged_pictures_are_replaced_the_same_way_every_time(tmp_path: Path) -> None:
    source = make("parquet", tmp_path, damaged=tuple(range(5, 30)))
    for fields in ({"streaming": True, "buffer": 16}, {}):
        first, second = (
            torch.cat([b.images for b in islice(opened(source, **fields).batches(8), 12)]) for _ in range(2)
        )
        assert torch.equal(first, second)


def test_a_stream_leaves_out_blocks_in_which_nothing_can_be_read(tmp_path: Path) -> None:
    data = opened(make("parquet", tmp_path, damaged=tuple(range(16))), streaming=True, buffer=8)
    assert sorted(seen(data, 3 * N)) == list(range(16, N))
    assert len(data.skipped) == 16


@pytest.mark.parametrize("streaming", [False, True])
def test_a_truncated_shard_ends_early_and_the_others_go_on(streaming: bool, tmp_path: Path) -> None:
    source = make("webdataset", tmp_path)
    shard = source / "shard-1.tar"
    shard.write_bytes(shard.read_bytes()[: 512 * 6 * 9 + 512 + 30])  # within the first picture of its tenth item
    data = opened(source, streaming=streaming, classes=DIGITS)
    found = seen(data, 4 * N)
    assert set(range(13)) | set(range(26, N)) < set(found) < set(range(N))
    assert "shard 1" in data.skipped.report()


def test_odd_files_are_brought_to_one_form(tmp_path: Path) -> None:
    files = {
        "grey.png": Image.new("L", (12, 8), 255),
        "sixteen-bit.png": Image.fromarray(np.full((8, 8), 65535, np.uint16)),
        "palette.png": Image.new("RGB", (8, 8), "white").convert("P"),
        "transparent.png": Image.new("RGBA", (9, 16), (0, 0, 0, 0)),
        "large.jpg": Image.new("RGB", (300, 500), "white"),
        "one-bit.png": Image.new("1", (8, 8), 1),
    }
    for name, picture in files.items():
        picture.save(tmp_path / name)
    data = opened(tmp_path, size=8, channels=3)
    assert data.shape == (3, 8, 8)
    assert data.classes is None
    assert next(data.batches(len(files))).labels is None
    assert torch.equal(next(data.batches(len(files))).images, torch.ones(len(files), 3, 8, 8))


def test_resizing_is_antialiased_and_keeps_the_middle(tmp_path: Path) -> None:
    stripes = np.zeros((64, 96), np.uint8)
    stripes[:, ::2] = 255  # finer than the target can show: must become even grey
    stripes[:, :16] = stripes[:, 80:] = 0  # outside of the middle
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    image = next(opened(tmp_path, size=16).batches(1)).images
    assert image.shape == (1, 1, 16, 16)
    assert image[..., 2:-2].abs().max() < 0.02


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    picture = np.zeros((8, 8), np.uint8)
    picture[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert next(opened(tmp_path).batches(1)).images[0, 0, :, 0].tolist() == [-1] * 7 + [1]


# --- columns, classes, splits ----------------------------------------------------------------------------------------------


def table(root: Path, **columns: list[Any]) -> Path:
    root.mkdir(exist_ok=True)
    rows = len(next(iter(columns.values())))
    images = [pictures.png(picture) for picture in pictures.arrays(rows)[0]]
    pq.write_table(pa.table({"scan": images, **columns}), root / "a.parquet")
    return root


def test_columns_and_classes_are_found_without_metadata(tmp_path: Path) -> None:
    data = opened(table(tmp_path, label=["dog", "cat", "dog"], text=["x", "y", "z"]))
    assert data.classes == ["cat", "dog"]
    assert {i: (label, caption) for i, (_, label, caption) in seen(data, 3, 3).items()} == {
        0: (1, "x"),
        1: (0, "y"),
        2: (1, "z"),
    }


def test_the_recipe_decides_over_columns_and_the_order_of_classes(tmp_path: Path) -> None:
    source = table(tmp_path, label=["dog", "cat", "dog"], kind=[2, 0, 1], text=["x", "y", "z"])
    assert opened(source, classes=["dog", "cat", "cow"]).classes == ["dog", "cat", "cow"]
    assert sorted(label for _, label, _ in seen(opened(source, classes=["dog", "cat"]), 3, 3).values()) == [0, 0, 1]
    assert opened(source, label_column="kind").classes == ["0", "1", "2"]
    ignoring = opened(source, label_column="none", caption_column="none")
    assert ignoring.classes is None
    assert (next(ignoring.batches(2)).labels, next(ignoring.batches(2)).captions) == (None, None)


def test_missing_columns_are_named_with_the_nearest(tmp_path: Path) -> None:
    source = table(tmp_path, label=[0], text=["x"])
    with pytest.raises(
        DataError, match=r"no column 'lable' \(did you mean 'label'\?\); their columns are: scan, label, text"
    ):
        opened(source, label_column="lable")
    with pytest.raises(DataError, match=r"no column 'image'.*data.image_column"):
        opened(source, image_column="image")
    pq.write_table(pa.table({"label": [0]}), source / "a.parquet")
    with pytest.raises(DataError, match="no column of images; their columns are: label"):
        opened(source)
    pq.write_table(pa.table({"image": [pictures.DAMAGED], "tags": [["a", "b"]]}), source / "a.parquet")
    with pytest.raises(DataError, match="does not hold one class"):
        opened(source, label_column="tags")


def test_labels_outside_the_classes_are_refused(tmp_path: Path) -> None:
    source = table(tmp_path, label=[0, 1, 2, 2])
    with pytest.raises(
        UnknownLabel, match=r"2 of 4 items, the first of them item 2: label 2 is outside the 2 classes 0..1"
    ):
        opened(source, classes=["a", "b"])
    with pytest.raises(UnknownLabel, match=r"class 'dgo' is not among the 2 classes .did you mean 'dog'"):
        opened(table(tmp_path, label=["dog", "dgo"]), classes=["dog", "cat"])
    with pytest.raises(UnknownLabel, match="no label"):
        opened(table(tmp_path, label=[0, None]))
    with pytest.raises(DataError, match=r"list them in data.classes"):
        opened(source, streaming=True)
    tested = pictures.parquet(tmp_path / "unlabelled", 3)  # as in test sets whose classes are kept secret
    hidden = pq.read_table(tested)
    pq.write_table(hidden.set_column(1, "label", pa.array([3, -1, -1])), tested / "train-00000.parquet")
    with pytest.raises(
        UnknownLabel, match=r"2 of 3 items, the first of them item 1: label -1 is outside the 10 classes"
    ):
        opened(tested)
    stream = opened(tested, streaming=True)
    assert set(seen(stream, 8)) == {0}
    assert "label -1 is outside" in stream.skipped.report()


def test_splits_are_told_apart_by_file_and_folder_names(tmp_path: Path) -> None:
    pictures.parquet(tmp_path / "p", 10)
    (tmp_path / "p" / "test-0.parquet").write_bytes((tmp_path / "p" / "train-00000.parquet").read_bytes())
    assert opened(tmp_path / "p").size == 10
    with pytest.raises(DataError, match=r"no split 'tset' \(did you mean 'test'\?\); it has: test, train"):
        opened(tmp_path / "p", split="tset")
    pictures.folder(tmp_path / "f" / "train", 20)
    pictures.folder(tmp_path / "f" / "test", 10)
    assert opened(tmp_path / "f").size == 20
    assert opened(tmp_path / "f", split="test").size == 10
    with pytest.raises(DataError, match="no split 'val'; it has: test, train"):
        opened(tmp_path / "f", split="val")
    with pytest.raises(DataError, match="no split 'val'; there are: train"):
        opened(saved(tmp_path), split="val")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_limit_takes_the_first_items_in_every_epoch(streaming: bool, tmp_path: Path) -> None:
    for kind in ("parquet", "webdataset", "folder"):
        data = opened(
            make(kind, tmp_path), limit=6, streaming=streaming, classes=DIGITS if kind == "webdataset" else None
        )
        expected = range(6)
        if kind == "folder":  # first by path: class 0 comes first
            expected = sorted(range(N), key=lambda i: (pictures.arrays(N)[1][i], i))[:6]
        assert sorted(seen(data, 24)) == sorted(expected)


# --- refusals --------------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"'digts' \(did you mean 'digits'\?\): looked for .*digts.*--set data\.source="
    ):
        opened("digts")
    with pytest.raises(DataError, match=r"looked for .*/\*.parquet"):
        opened(tmp_path / "*.parquet")
    with pytest.raises(
        DataError,
        match=r"cannot open 'some/where', read as hub.*/some/where does not exist either.*--set data\.source=",
    ):
        opened("some/where")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"{tmp_path}/empty"):
        opened("empty")
    with pytest.raises(DataError, match="nothing that can be read as parquet"):
        opened("empty", format="parquet")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"cannot tell how to read .*notes.txt"):
        opened("notes.txt")
    with pytest.raises(DataError, match="one split"):
        opened("digits", split="test")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_wholly_unreadable_data_set_is_refused_at_the_start(streaming: bool, tmp_path: Path) -> None:
    for kind in ("folder", "parquet", "webdataset"):
        source = make(kind, tmp_path, damaged=tuple(range(N)))
        with pytest.raises(DataError, match=r"no readable image: 40.*cannot identify image file"):
            opened(source, streaming=streaming, classes=DIGITS if kind == "webdataset" else None)
    for suffix in ("parquet", "tar"):
        broken = tmp_path / f"broken.{suffix}"
        broken.write_bytes(b"not at all")
        with pytest.raises(DataError, match=f"broken.{suffix}"):
            opened(broken, streaming=streaming, classes=DIGITS)


def test_shards_without_images_are_refused(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("0001.cls")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"3"))
    with pytest.raises(DataError, match="no column of images; their columns are: cls"):
        opened(tmp_path / "a.tar")


@pytest.mark.parametrize("streaming", [False, True])
def test_images_of_differing_sizes_want_a_size(streaming: bool, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (9, 8)).save(tmp_path / "b.png")
    with pytest.raises(ShapeMismatch, match=r"b.png: it is 8x9 pixels where the others have 8x8; set data.size"):
        opened(tmp_path, streaming=streaming)
    assert opened(tmp_path, size=8, streaming=streaming).shape == (1, 8, 8)


def test_misspelt_and_impossible_settings_are_refused() -> None:
    for fields in ({"sizes": 32}, {"size": 0}, {"channels": 2}, {"limit": 0}, {"classes": []}, {"format": "zip"}):
        with pytest.raises(ValidationError):
            DataConfig(**fields)  # type: ignore[arg-type]
    assert all(field.description for field in DataConfig.model_fields.values())


@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason=f"no folder cifar10 in {SHARED} (set GUIDON_DATA)")
def test_cifar10(tmp_path: Path) -> None:
    memory, stream = (opened(SHARED / "cifar10", limit=300, streaming=streaming) for streaming in (False, True))
    assert memory.shape == stream.shape == (3, 32, 32)
    assert memory.classes == stream.classes
    assert memory.classes is not None
    assert memory.classes[:3] == ["airplane", "automobile", "bird"]
    for data in (memory, stream):
        batch = next(data.batches(300))
        assert batch.labels is not None and batch.captions is not None
        assert batch.captions == [f"a photo of a {memory.classes[label]}" for label in batch.labels]
        assert len(batch.images.flatten(1).unique(dim=0)) == 300
        assert -0.5 < batch.images.mean() < 0.3
