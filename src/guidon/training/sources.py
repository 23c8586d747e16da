"""Where training images come from: embedded digits, shapes, folders, Parquet, WebDataset shards, saved data sets and the hub.

Everything but the digits and the shapes goes through `datasets`. Local files are read by its streaming readers, which copy
nothing into a cache. Importing this module imports neither torch nor `datasets`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from guidon.errors import BadValue, DataError, nearest
from guidon.training.captions import template
from guidon.training.columns import NO_COLUMN, TEXT_FILE, Columns, Item, choose
from guidon.training.records import CHUNK, ListRecords, Records, Shards, Skipped, TableRecords, readers, rows

Format = Literal["digits", "shapes", "folder", "parquet", "webdataset", "saved", "hub"]
ENCODED_LIMIT = 2 << 30  # bytes of encoded files that are held in memory; more goes through the cache of `datasets`
OF_SHAPES = ("source", "format", "size", "hold_out")  # the settings that mean something for shapes
SPLITS = ("train", "test", "val", "valid", "validation", "dev", "eval")


class DataConfig(BaseModel):
    """The ``data:`` section of a recipe. Relative paths start at the current directory; ``~`` is the home directory."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(
        "digits",
        description="digits (embedded), shapes (captioned scenes, drawn on the fly), a folder of images with a sub-folder per class"
        " or a text file beside each image, a folder or pattern of .parquet files or of WebDataset .tar shards, a folder"
        " written by datasets' save_to_disk, or a hub id owner/name",
    )
    format: Format | None = Field(None, description="how to read the source; found from what is there when absent")
    split: str = Field("train", description="which part to read where the source has parts")
    image_column: str | None = Field(None, description="column of images; guessed when absent")
    label_column: str | None = Field(
        None,
        description="column of classes (json.label reaches into records); guessed when absent; none to ignore them",
    )
    caption_column: str | None = Field(
        None,
        description="column of captions, a text or a list of texts of which one is drawn at each visit; guessed when absent (txt is"
        " the text file beside an image, a caption a line); none to ignore them",
    )
    captions: tuple[str, ...] = Field(
        (),
        description="templates of captions over the columns, one of which is drawn at each visit, such as ['{caption}', '{style},"
        " {tags}']; a list gives a random part of itself; a template with an empty column is not drawn",
    )
    classes: list[str] | None = Field(
        None,
        min_length=1,
        description="class names in the order of their ids; found in the data when absent. They must cover every label",
    )
    size: int | None = Field(
        None,
        ge=1,
        description="resize the shorter side to this and crop the middle; absent: all images must have one size",
    )
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 RGB; absent: as the first image has it")
    flip: bool = Field(
        False,
        description="mirror a random half of the images left to right; not where captions tell left from right",
    )
    crop: int = Field(
        0,
        ge=0,
        description="random crops: pixels by which an image moves at most, in each direction; its edges are reflected",
    )
    zoom: float = Field(
        1.0,
        gt=0,
        le=1,
        description="random resized crops: an image shows a square of at least this share of its area, anew at each visit;"
        " 1: all of the middle",
    )
    limit: int | None = Field(None, ge=1, description="use the first so many items only")
    streaming: bool = Field(
        False, description="for data larger than memory: never hold more than a few blocks of encoded images"
    )
    buffer: int = Field(
        2048, ge=1, description="streaming: how many items are shuffled together (shards are shuffled as well)"
    )
    hold_out: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the images (2000 at most) that is not trained on, to measure on",
    )
    validation: str | None = Field(
        None,
        description="the part of the source to measure on (2000 of its images at most), in place of a share held out",
    )

    @field_validator("captions")
    @classmethod
    def _templates(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            template(text)
        return texts

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.captions and self.caption_column not in (None, NO_COLUMN):
            raise BadValue(
                f"give either captions or caption_column; a template can name the column: '{{{self.caption_column}}}'"
            )
        if self.format == "shapes" or (self.format is None and self.source == "shapes"):
            idle = [
                name for name in self._changed if name not in OF_SHAPES and (name, self.channels) != ("channels", 3)
            ]
            if idle:
                why = (
                    " (a moved or mirrored scene would belie its caption)" if {"flip", "crop", "zoom"} & {*idle} else ""
                )
                raise BadValue(
                    f"the shapes are drawn on the fly, so {', '.join(idle)} cannot be set for them{why}; leave it out, or set data.source"
                )
        return self

    @property
    def _changed(self) -> list[str]:
        fields = DataConfig.model_fields.items()
        return [name for name, field in fields if getattr(self, name) != field.default]


def open_source(config: DataConfig, skipped: Skipped) -> tuple[Columns, Records | Shards]:
    """Open what a config names.

    Args:
        config: the ``data:`` section.
        skipped: is told of parts that cannot be read.

    Returns:
        the columns, and the items: `Shards` when streaming files or a hub data set, `Records` otherwise.

    Raises:
        DataError: there is nothing there, nothing of the kind, or the columns are missing.
    """
    form, files = locate(config)
    if form == "digits":
        return Columns("image", "label", None, tuple("0123456789")), ListRecords(digits()[: config.limit])
    more = f" and {len(files) - 1} more" if files[1:] else ""
    where = f"{config.source!r}, read as {form}" + (f" ({files[0].absolute()}{more})" if files else "")
    try:
        dataset = _load(form, config, files)
        features: dict[str, Any] = dataset.features or dict.fromkeys(next(iter(dataset)))
    except Exception as error:  # whatever a reader of a foreign file raises, the remedy is the same
        here = f"; {Path(config.source).absolute()} does not exist either" if form == "hub" else ""
        raise DataError(
            f"cannot open {where}: {' '.join(str(error).split())[:400]}{here}."
            f" Check data.source (--set data.source=... names another), data.split ({config.split!r}) and data.format"
        ) from error
    texts = _texts_beside(files[0]) if form == "folder" else {}
    columns = choose(
        features | ({TEXT_FILE: None} if texts else {}),
        image=config.image_column,
        label=config.label_column,
        caption=config.caption_column,
        captions=config.captions,
    )
    keys = [name for name in ("__key__", "__url__") if name in features]
    dataset = dataset.select_columns([name for name in columns.top + keys if name in features])
    if hasattr(features[columns.image], "decode"):
        dataset = dataset.cast_column(columns.image, dataclasses.replace(features[columns.image], decode=False))

    items: Records | Shards
    if hasattr(dataset, "__len__"):
        items = TableRecords(dataset.select(range(min(config.limit or len(dataset), len(dataset)))), columns)
    elif form == "folder":  # the list of its files is small, whatever their sizes
        found = [columns.item(_with_text(row, columns.image, texts), "") for row in rows(dataset.iter(CHUNK))]
        named = [dataclasses.replace(item, name=os.path.relpath(item.image, files[0].resolve())) for item in found]
        items = ListRecords(sorted(named, key=lambda item: item.name)[: config.limit])
    else:
        items = Shards(readers(dataset, 1 if form == "webdataset" else CHUNK, config.limit), columns, skipped)
        if not config.streaming:
            items = ListRecords(list(items.everything()))
    if next(items.everything(), None) is None:
        reason = f" ({skipped.report()})" if skipped else ""
        raise DataError(f"there is no image in {where}{reason}. Check data.source and data.split ({config.split!r})")
    return columns, items


def locate(config: DataConfig) -> tuple[Format, list[Path]]:
    """Return how to read a source, and its files (for folders of images and saved data sets: the folder).

    Raises:
        DataError: nothing is there; the message says what was looked for and where.
    """
    source, form = config.source, config.format
    if form == "digits" or (form is None and source == "digits"):
        if config.split != "train":
            raise DataError(f"the digits have one split, 'train', not {config.split!r}; set data.split to train")
        return "digits", []
    if form == "shapes" or (form is None and source == "shapes"):
        return "shapes", []
    path = Path(source).expanduser()
    if form == "hub" or (form is None and not path.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source)):
        return "hub", []
    if path.is_dir():
        if form in (None, "saved") and any(
            (path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json", "state.json")
        ):
            return "saved", [path]
        for kind, suffix in (("parquet", "*.parquet"), ("webdataset", "*.tar")):
            if form in (None, kind) and (files := sorted(path.rglob(suffix))):
                return kind, _of_split(files, path, config.split)  # type: ignore[return-value]
        if form in (None, "folder"):
            return "folder", [_split_folder(path, config.split)]
        raise DataError(
            f"{path.resolve()} holds nothing that can be read as {form}; drop data.format, or correct data.source"
        )
    root = Path(path.absolute().anchor)
    try:
        files = [path] if path.is_file() else sorted(root.glob(str(path.absolute().relative_to(root))))
    except ValueError as error:  # "**" beside other letters
        raise DataError(f"cannot read the pattern {source!r} ({error}); write ** between slashes only") from error
    if not files:
        hint = nearest(source, ["digits", "shapes"])
        raise DataError(
            f"there is no file, folder or pattern {source!r}{hint}: looked for {path.absolute()}."
            " Give a path, 'digits', 'shapes', or a hub id of the form owner/name, for a recipe with --set data.source=..."
        )
    kinds = {".parquet": "parquet", ".tar": "webdataset"}
    found = form or kinds.get(files[0].suffix, "folder")
    if found not in kinds.values() or any(file.is_dir() for file in files):
        raise DataError(
            f"cannot tell how to read {files[0]}: give a folder, or .parquet or .tar files, in data.source, or set data.format"
        )
    return found, files  # type: ignore[return-value]


def digits() -> list[Item]:
    """Return scikit-learn's 1,797 handwritten digits (8x8 grey), read from its file: importing the library takes seconds."""
    import numpy as np

    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    table = np.loadtxt(Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz"), delimiter=",")
    images = np.round(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # the file counts ink from 0 to 16
    return [
        Item(f"digit {i}", image, int(label)) for i, (image, label) in enumerate(zip(images, table[:, 64], strict=True))
    ]


def _load(form: Format, config: DataConfig, files: list[Path]) -> Any:
    import datasets  # takes two seconds

    if form == "saved":
        saved = datasets.load_from_disk(str(files[0]))
        if isinstance(saved, datasets.DatasetDict):
            if config.split not in saved:
                raise DataError(f"there is no split {config.split!r}; there are: {', '.join(saved)}")
            return saved[config.split]
        return saved
    if form == "hub":
        return datasets.load_dataset(config.source, split=config.split, streaming=config.streaming)
    if form == "folder":
        return datasets.load_dataset(
            "imagefolder", data_dir=str(files[0]), data_files={"train": "**"}, split="train", streaming=True
        )
    in_memory = sum(file.stat().st_size for file in files) <= ENCODED_LIMIT
    dataset = datasets.load_dataset(
        form,
        data_files={"train": [str(file) for file in files]},
        split="train",
        streaming=config.streaming or in_memory,
    )
    return dataset.reshard() if form == "parquet" and config.streaming else dataset  # its row groups


def _texts_beside(folder: Path) -> dict[Path, Path]:
    """Return the text files that stand beside an image of the same name, by the path of that image without its suffix."""
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    files = list(folder.resolve().rglob("*.*"))
    images = {file.with_suffix("") for file in files if file.suffix.lower() in ImageFolder.EXTENSIONS}
    texts = {file.with_suffix(""): file for file in files if file.suffix == f".{TEXT_FILE}"}
    return {image: text for image, text in texts.items() if image in images}


def _with_text(row: dict[str, Any], image: str, texts: dict[Path, Path]) -> dict[str, Any]:
    """Return a row of a folder with the text that stands beside its image, if any does, in the column of text files."""
    beside = texts.get(Path(row[image]["path"]).with_suffix("")) if texts else None
    return row if beside is None else row | {TEXT_FILE: beside.read_text("utf-8-sig", errors="replace")}


def _of_split(files: list[Path], root: Path, split: str) -> list[Path]:
    """Keep the files whose name or folder says the split, or all where none says any."""
    words = {file: set(re.split(r"[^a-z]+", str(file.relative_to(root)).lower())) for file in files}
    said = {word for found in words.values() for word in found} & {*SPLITS}
    if not said:
        return files
    if split not in said:
        raise DataError(
            f"{root.resolve()} has no split {split!r}{nearest(split, said)}; it has: {', '.join(sorted(said))}. Set data.split"
        )
    return [file for file in files if split in words[file]]


def _split_folder(path: Path, split: str) -> Path:
    if (path / split).is_dir():
        return path / split
    parts = sorted(part.name for part in path.iterdir() if part.is_dir())
    if parts and set(parts) <= {*SPLITS}:
        raise DataError(
            f"{path.resolve()} has no split {split!r}{nearest(split, parts)}; it has: {', '.join(parts)}. Set data.split"
        )
    return path
