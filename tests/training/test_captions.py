"""What is said of an image: where captions come from, which of them is drawn, and what becomes of images without one."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from support import pictures

from guidon.errors import BadRecipe, DataError, NotSupported
from guidon.training import data as data_module
from guidon.training.captions import drawn, said, template, wordings
from guidon.training.data import DataConfig, LazyData, MemoryData, StreamData, TrainingData, open_data
from guidon.training.holdout import open_divided
from guidon.training.recipe import read_recipe

N = 24
KINDS = ("memory", "lazy", "stream")
TAGS = ["red", "round", "shiny"]


def table(root: Path, **columns: list[Any]) -> Path:
    root.mkdir(exist_ok=True, parents=True)
    count = len(next(iter(columns.values())))
    images = [{"bytes": pictures.png(p), "path": f"{i}.png"} for i, p in enumerate(pictures.arrays(count)[0])]
    types: dict[str, Any] = {"image": {"_type": "Image"}}
    for name, values in columns.items():
        known = {"style": {"_type": "ClassLabel", "names": ["noto_flat", "fluent"]}}
        types[name] = known.get(name) or (
            {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
            if any(isinstance(value, list) for value in values)
            else {"dtype": "string", "_type": "Value"}
        )
    metadata = {"huggingface": json.dumps({"info": {"features": types}})}
    content = pa.table({"image": images, **columns}).replace_schema_metadata(metadata)
    pq.write_table(content, root / "train-00000.parquet", row_group_size=7)
    return root


def flat_folder(root: Path, count: int, texts: dict[int, str]) -> Path:
    root.mkdir(exist_ok=True, parents=True)
    for i, picture in enumerate(pictures.arrays(count)[0]):
        (root / f"{i:02d}.png").write_bytes(pictures.png(picture))
        if i in texts:
            (root / f"{i:02d}.txt").write_text(texts[i])
    return root


def opened(source: Path, kind: str = "memory", *, seed: int = 0, **fields: Any) -> TrainingData:
    config = DataConfig(source=str(source), streaming=kind == "stream", **fields)
    if kind == "lazy":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data_module, "MEMORY_LIMIT", 1)
            data = open_data(config, seed=seed)
    else:
        data = open_data(config, seed=seed)
    assert isinstance(data, {"memory": MemoryData, "lazy": LazyData, "stream": StreamData}[kind])
    return data


def told(data: TrainingData, visits: int = 1, batch_size: int = 8) -> dict[int, list[str]]:
    """Return what was said of every image at its visits, by its number."""
    found: dict[int, list[str]] = {}
    for batch in islice(data.batches(batch_size), visits * N // batch_size):
        assert batch.captions is not None
        first = ((batch.images[:, 0, 0, :2] + 1) * 127.5).round().int()
        for number, caption in zip(
            (first @ torch.tensor([200, 1], dtype=torch.int32)).tolist(), batch.captions, strict=True
        ):
            found.setdefault(number, []).append(caption)
    return found


# --- one caption of several ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_one_caption_of_an_image_is_drawn_at_each_visit_and_all_are_equally_likely(kind: str, tmp_path: Path) -> None:
    source = table(tmp_path, caption=[[f"a {i}", f"b {i}", f"c {i}"] for i in range(N)])
    found = told(opened(source, kind, **({"buffer": 16} if kind == "stream" else {})), visits=60)
    assert all(set(texts) <= {f"{letter} {i}" for letter in "abc"} for i, texts in found.items())
    letters = Counter(text[0] for texts in found.values() for text in texts)
    for letter in "abc":  # of 1,440 draws: five standard deviations
        assert abs(letters[letter] - 480) < 90
    assert all(len(set(texts)) == 3 for texts in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_depends_on_seed_and_step_and_place_alone(kind: str, tmp_path: Path) -> None:
    source = table(tmp_path, caption=[f"thing {i}" for i in range(N)], tags=[TAGS] * N)
    fields = {"captions": ("{caption}", "{caption}, {tags}"), "buffer": 16}

    def captions(seed: int = 0, count: int = 12, **where: int) -> list[list[str]]:
        return [
            batch.captions or []
            for batch in islice(opened(source, kind, seed=seed, **fields).batches(8, **where), count)
        ]

    whole = captions()
    assert captions() == whole
    assert captions(start_step=5, count=7) == whole[5:], "a resumed run"
    parts = [captions(rank=rank, world=4) for rank in range(4)]
    assert [[text for part in parts for text in part[step]] for step in range(12)] == whole, "four processes"
    assert captions(seed=1) != whole
    if kind == "lazy":
        in_memory = [batch.captions for batch in islice(opened(source, **fields).batches(8), 12)]
        assert in_memory == whole


def test_a_list_gives_every_part_of_itself_in_every_order() -> None:
    wording = ("a ", ("x", "y", "z"), ".")
    chance = random.Random(0)
    counts = Counter(said(wording, chance) for _ in range(6000))
    sizes = Counter(text.count(",") + 1 for text in counts.elements())
    assert len(counts) == 3 + 6 + 6
    assert all(abs(sizes[size] - 2000) < 200 for size in (1, 2, 3)), "as many of one as of two as of all three"
    assert said(wording) == "a x, y, z."


def test_a_caption_is_a_function_of_its_number() -> None:
    captions = wordings([str(i) for i in range(1000)])
    assert [drawn(captions, n) for n in range(50)] == [drawn(captions, n) for n in range(50)]
    assert len({drawn(captions, n) for n in range(50)}) > 40
    assert drawn((), 3) == ""


# --- templates -------------------------------------------------------------------------------------------------------------


def test_templates_speak_of_the_columns_of_a_row(tmp_path: Path) -> None:
    columns = {
        "caption": [" sun ", "moon", "", None] * 6,
        "tags": [["hot", "far"], [], ["dim"], ["dark"]] * 6,
        "style": [0, 1, 0, None] * 6,
    }
    source = table(tmp_path, **columns)
    found = told(opened(source, captions=["{caption}", "{caption}, {style}", "tagged {tags}"]), visits=40)
    wanted = [
        {"sun", "sun, noto_flat", "tagged hot", "tagged far", "tagged hot, far", "tagged far, hot"},
        {"moon", "moon, fluent"},
        {"tagged dim"},
        {"tagged dark"},
    ]
    assert {number: set(texts) for number, texts in found.items()} == {i: wanted[i % 4] for i in range(N)}


def test_a_template_of_an_unknown_column_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path, caption=["x"] * N, style=[0] * N)
    with pytest.raises(
        DataError, match=r"'{captoin}' names the column 'captoin'.*did you mean 'caption'.*: image, caption, style"
    ):
        opened(source, captions=["{captoin}"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"captions": ["{caption"]}, "cannot read the caption template"),
        ({"captions": ["{caption:>9}"]}, "more than names of columns"),
        ({"captions": ["{}"]}, "more than names of columns"),
        ({"captions": [""]}, "is empty"),
        ({"captions": ["{text}"], "caption_column": "text"}, "either captions or caption_column"),
    ],
)
def test_templates_that_cannot_be_read_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataConfig(**fields)


def test_braces_that_are_meant_can_be_written_twice() -> None:
    assert template("{{{a}}}").wording({"a": "x"}.get) == ("{", "x", "}")


# --- where captions come from ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_every_line_of_a_text_file_beside_an_image_is_a_caption(streaming: bool, tmp_path: Path) -> None:
    flat_folder(tmp_path, N, {i: f"the {i}\r\n\n  a {i}  \n" for i in range(N)})
    (tmp_path / "README.txt").write_text("of no image")
    data = open_data(DataConfig(source=str(tmp_path), streaming=streaming))
    assert data.classes is None
    assert {i: set(texts) for i, texts in told(data, 30).items()} == {i: {f"the {i}", f"a {i}"} for i in range(N)}


def test_text_files_and_folders_of_classes_go_together(tmp_path: Path) -> None:
    pictures.folder(tmp_path, N)
    for image in tmp_path.rglob("*.png"):
        image.with_suffix(".txt").write_text(f"{image.parent.name} number {int(image.stem)}", encoding="utf-8-sig")
    data = open_data(DataConfig(source=str(tmp_path)))
    assert data.classes == [f"class-{i}" for i in range(10)]
    classes = pictures.arrays(N)[1]
    assert told(data) == {i: [f"class-{label} number {i}"] for i, label in enumerate(classes)}


def test_a_table_beside_the_images_comes_before_text_files_which_can_be_named(tmp_path: Path) -> None:
    flat_folder(tmp_path, N, {i: f"from a file: {i}" for i in range(N)})
    rows = [f"{i:02d}.png,from the table: {i}" for i in range(N)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    assert told(opened(tmp_path)) == {i: [f"from the table: {i}"] for i in range(N)}
    assert told(opened(tmp_path, caption_column="txt")) == {i: [f"from a file: {i}"] for i in range(N)}
    both = told(opened(tmp_path, captions=["{text}", "{txt}"]), visits=20)
    assert all(set(texts) == {f"from a file: {i}", f"from the table: {i}"} for i, texts in both.items())


@pytest.mark.parametrize("streaming", [False, True])
def test_the_lines_of_a_text_in_a_shard_are_captions(streaming: bool, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, picture in enumerate(pictures.arrays(N)[0]):
            for suffix, content in (("png", pictures.png(picture)), ("txt", f"the {i}\na {i}".encode())):
                entry = tarfile.TarInfo(f"{i:04d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    data = open_data(DataConfig(source=str(tmp_path), streaming=streaming, buffer=N))
    assert {i: set(texts) for i, texts in told(data, 30).items()} == {i: {f"the {i}", f"a {i}"} for i in range(N)}


def test_a_text_of_a_table_is_one_caption_whatever_its_lines(tmp_path: Path) -> None:
    source = table(tmp_path, caption=["first\nsecond"] * N)
    assert {text for texts in told(opened(source)).values() for text in texts} == {"first\nsecond"}


# --- images without a caption ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_a_caption_are_counted_and_said_to_train_the_null(kind: str, tmp_path: Path) -> None:
    captions: list[str | None] = [f"thing {i}" for i in range(N)]
    captions[3], captions[10], captions[11] = None, "", "  \n"
    data = opened(table(tmp_path, caption=captions), kind, **({"buffer": 16} if kind == "stream" else {}))
    found = told(data, visits=2)
    assert {i for i, texts in found.items() if texts[0] == ""} == {3, 10, 11}
    assert data.uncaptioned is not None
    assert len(data.uncaptioned) == 3
    of = "" if kind == "stream" else " of 24"
    assert data.uncaptioned.report().startswith(f"3{of} images have no caption and train the null: ")
    for name in ("3.png", "10.png", "11.png"):
        assert name in data.uncaptioned.report()
    data.check_captions()
    again = opened(table(tmp_path, caption=captions), kind)
    again.load_state_dict(json.loads(json.dumps(data.state_dict())))
    assert again.uncaptioned is not None
    assert again.uncaptioned.items() == data.uncaptioned.items()


def test_a_folder_in_which_some_images_have_text_files(tmp_path: Path) -> None:
    data = opened(flat_folder(tmp_path, N, dict.fromkeys(range(5), "x") | {7: "\n"}))
    assert Counter(text for texts in told(data).values() for text in texts) == {"x": 5, "": N - 5}
    assert data.uncaptioned is not None
    assert (
        data.uncaptioned.report(2) == "19 of 24 images have no caption and train the null: 05.png, 06.png, and 17 more"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_data_without_any_caption_are_refused_where_texts_are_wanted(kind: str, tmp_path: Path) -> None:
    empty = opened(table(tmp_path / "a", caption=["", None] * 12), kind)
    with pytest.raises(
        DataError, match=r"every caption is empty.*a\.png, a\.txt.*data\.caption_column.*data\.captions"
    ):
        empty.check_captions()
    none = opened(table(tmp_path / "b", note=["x"] * N), kind)
    assert next(none.batches(4)).captions is None
    with pytest.raises(DataError, match="the data have no captions"):
        none.check_captions()


def test_a_recipe_of_a_model_of_texts_refuses_data_without_captions() -> None:
    recipe = read_recipe({"data": {"source": "digits"}, "model": {"text": {}}, "train": {"steps": 1}})
    with pytest.raises(DataError, match="told texts, but the data have no captions"):
        recipe.open()


@pytest.mark.parametrize("kind", KINDS)
def test_the_wordings_hold_all_that_can_be_said(kind: str, tmp_path: Path) -> None:
    source = table(tmp_path, caption=[f"thing {i}" for i in range(N)], tags=[TAGS] * N)
    data = opened(source, kind, captions=["{caption}", "{tags}"])
    assert sorted(data.wordings()) == sorted([f"thing {i}" for i in range(N)] + ["red, round, shiny"] * N)


# --- held out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_images_held_out_have_their_first_caption(streaming: bool, tmp_path: Path) -> None:
    source = flat_folder(tmp_path, N, {i: f"first {i}\nsecond {i}" for i in range(1, N)})
    data = open_divided(DataConfig(source=str(source), hold_out=0.25, streaming=streaming, flip=True), seed=5)
    assert data.held_out is not None and data.held_out.captions is not None
    assert data.size == N - 6
    raw = ((data.held_out.images[:, 0, 0, 1] + 1) * 127.5).round().int().tolist()
    assert data.held_out.captions == [f"first {i}" if i else "" for i in raw]
    plain = open_divided(DataConfig(source=str(source), hold_out=0.25), seed=5)
    assert set(told(plain, visits=3)).isdisjoint(raw)


@pytest.mark.parametrize("streaming", [False, True])
def test_another_part_of_the_source_can_be_held_out(streaming: bool, tmp_path: Path) -> None:
    table(tmp_path, caption=[f"trained {i}" for i in range(N)])
    (tmp_path / "train-00000.parquet").rename(tmp_path / "part.parquet")
    table(tmp_path, caption=[f"kept {i}" for i in range(10)])
    (tmp_path / "train-00000.parquet").rename(tmp_path / "test-00000.parquet")
    (tmp_path / "part.parquet").rename(tmp_path / "train-00000.parquet")
    fields = {"validation": "test", "flip": True, "crop": 2}
    data = open_divided(DataConfig(source=str(tmp_path), streaming=streaming, **fields), seed=5)
    assert data.held_out is not None and data.held_out.captions is not None
    raw = ((data.held_out.images[:10, 0, 0, 1] + 1) * 127.5).round().int().tolist()
    assert data.held_out.captions[:10] == [f"kept {i}" for i in raw], "neither mirrored nor moved"
    assert sorted(raw) == list(range(10))
    assert not any("kept" in text for texts in told(data, 2).values() for text in texts)


def test_of_a_stream_no_share_can_be_held_out(tmp_path: Path) -> None:
    config = DataConfig(source=str(table(tmp_path, caption=["x"] * N)), streaming=True, hold_out=0.5)
    with pytest.raises(NotSupported, match=r"data\.validation.*data\.hold_out=null"):
        open_divided(config, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_where_none_are_held_out_the_first_images_are_shown_and_the_run_goes_on_from_where_it_is(
    kind: str, tmp_path: Path
) -> None:
    fields = {"buffer": 5} if kind == "stream" else {}
    source = table(tmp_path, caption=[f"thing {i}" for i in range(N)])
    data, other = opened(source, kind, **fields), opened(source, kind, **fields)
    running = data.batches(4)
    for _ in range(7):
        next(running)
    before = data.state_dict()
    assert data.shown.captions == next(other.batches(10)).captions
    assert data.state_dict() == before
    assert next(running).captions == next(islice(opened(source, kind, **fields).batches(4), 7, None)).captions


# --- shapes ----------------------------------------------------------------------------------------------------------------


def test_the_shapes_are_a_source_with_captions_and_fresh_scenes_to_measure_on() -> None:
    data = open_divided(DataConfig(source="shapes", hold_out=0.1), seed=3)
    assert data.shape == (3, 32, 32)
    data.check_captions()
    batch = next(data.batches(16))
    assert batch.captions is not None and all(batch.captions)
    assert data.held_out is not None and data.held_out.captions is not None
    assert len(data.held_out) == len(data.held_out.captions) == data_module.HELD_SCENES
    assert open_data(DataConfig(source="anything", format="shapes", size=48)).shape == (3, 48, 48)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"flip": True}, "flip cannot be set for them .a moved or mirrored scene would belie its caption"),
        ({"crop": 2}, "crop cannot be set for them .a moved or mirrored"),
        ({"limit": 100, "captions": ["{x}"]}, "captions, limit cannot be set for them; leave it out"),
    ],
)
def test_what_would_belie_the_captions_of_shapes_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataConfig(source="shapes", **fields)
    assert DataConfig(**DataConfig(source="shapes").model_dump()).source == "shapes"


def test_scenes_too_small_to_tell_shapes_apart_are_refused() -> None:
    with pytest.raises(BadRecipe, match=r"data\.size 8"):
        open_data(DataConfig(source="shapes", size=8))


def test_the_pictures_do_not_depend_on_the_captions(tmp_path: Path) -> None:
    source = table(tmp_path, caption=[f"thing {i}" for i in range(N)])
    plain, templated = (
        opened(source, **fields, flip=True) for fields in ({}, {"captions": ["{caption}", "a {caption}"]})
    )
    for one, other in islice(zip(plain.batches(8), templated.batches(8), strict=False), 5):
        np.testing.assert_array_equal(one.images, other.images)
