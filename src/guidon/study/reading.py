"""Reading stored images through: which of them can be read, what they hold, and remembering that while the files stay the same."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from PIL import Image

from guidon.checkpoints.atomic import write_text
from guidon.errors import ShapeMismatch
from guidon.measure.observe import digest
from guidon.measure.processes import alone, team
from guidon.scenes.draw import draw
from guidon.scenes.render import render
from guidon.scenes.scene import Scene
from guidon.training.batches import decoding_threads, random_for
from guidon.training.captions import Captions
from guidon.training.columns import Columns, Item
from guidon.training.data import SCENE, DataConfig
from guidon.training.pixels import Decoder, Unreadable
from guidon.training.records import Records, Skipped, TableRecords
from guidon.training.scene_data import SceneData
from guidon.training.sources import locate, open_source

T = TypeVar("T")
Shape = tuple[int, int, int]
OnImages = Callable[[int, int], None]

SCENES = 2000  # of the shapes, which have no end of their own
CHUNK = 256  # items that are read together
PNG, HEAD, RECORD = b"\x89PNG", 1 << 16, "guidon"  # the record of `guidon sample` stands near the beginning of a PNG


@dataclass(frozen=True)
class Scenes(Records):
    """Captioned scenes of the shapes, each a function of its number.

    Args:
        count: of them.
        side: height and width.
    """

    count: int
    side: int

    def __len__(self) -> int:
        return self.count

    def fetch(self, indices: Sequence[int]) -> list[Item]:
        return [
            Item(f"scene {i}", render(scene, self.side), None, ((text,),)) for i, scene, text in self._drawn(indices)
        ]

    def labels(self) -> list[int | str | None]:
        return [None] * self.count

    def captions(self) -> Iterator[Captions]:
        return (((text,),) for _, _, text in self._drawn(range(self.count)))

    def _drawn(self, indices: Sequence[int]) -> Iterator[tuple[int, Scene, str]]:
        return ((i, *draw(random_for("measured scenes", i))) for i in indices)


@dataclass(frozen=True)
class Found:
    """What reading a set of images through has found.

    Args:
        content: fingerprint of the images that could be read, in their order.
        shape: (C, H, W) of all; None where none could be read.
        unreadable: of those that could not, by number, the name and the reason.
    """

    content: str
    shape: Shape | None
    unreadable: dict[int, tuple[str, str]]


def opened(config: DataConfig, skipped: Skipped) -> tuple[Columns, Records]:
    """Open what a config names, so that any item can be reached by its number; raises as `open_source`."""
    if locate(config)[0] == "shapes":
        side = SceneData(config.size or SCENE).shape[1]  # which refuses what is too small for shapes
        return Columns("image", caption="caption"), Scenes(config.limit or SCENES, side)
    columns, items = open_source(config.model_copy(update={"streaming": False}), skipped)
    assert isinstance(items, Records)
    return columns, items


def read_all(records: Records, decoder: Decoder, on_images: OnImages | None) -> Found:
    """Read and decode every image; the first that can be read tells the shape of all."""
    content, unreadable = sha256(), {}
    for start in range(0, len(records), CHUNK):
        items = records.fetch(range(start, min(start + CHUNK, len(records))))
        first = 0
        while decoder.shape is None and first < len(items):
            shape = _read(decoder, items[first])[1]
            if not isinstance(shape, str):
                decoder = replace(decoder, channels=shape[0], shape=shape)
            first += 1
        for i, (item, (code, shape)) in enumerate(zip(items, in_threads(partial(_read, decoder), items), strict=True)):
            if isinstance(shape, str):
                unreadable[start + i] = (item.name, shape)
            else:
                content.update(code)
        if on_images is not None:
            on_images(start + len(items), len(records))
    return Found(content.hexdigest(), decoder.shape, unreadable)


def _read(decoder: Decoder, item: Item) -> tuple[bytes, Shape | str]:
    """Return the digest of an encoded image, and its shape, or why it cannot be read."""
    if item.image is None:
        return b"", "it has no image"
    try:
        image = Path(item.image).read_bytes() if isinstance(item.image, str) else item.image
        code = sha256(image if isinstance(image, bytes) else image.tobytes()).digest()
        if isinstance(image, bytes) and _is_sheet(image):
            raise Unreadable("it is a contact sheet")
        channels, height, width = decoder(replace(item, image=image)).shape
        return code, (channels, height, width)
    except ShapeMismatch as error:
        raise ShapeMismatch(f"{item.name}: {error}") from error
    except (Unreadable, OSError) as error:
        return b"", " ".join(str(error).split())


def _is_sheet(image: bytes) -> bool:
    """Return whether a file is the contact sheet that ``guidon sample`` writes beside its images."""
    if not image.startswith(PNG) or RECORD.encode() + b"\0" not in image[:HEAD]:
        return False
    with Image.open(io.BytesIO(image)) as picture:
        text = picture.info.get(RECORD, "")
    try:
        record = json.loads(text)
    except ValueError:
        return False
    return isinstance(record, dict) and "seeds" in record and record.get("image", 0) is None


def in_threads(function: Callable[[Item], T], items: Sequence[Item]) -> list[T]:
    """Return what a function gives for each item, in their order."""
    with ThreadPoolExecutor(decoding_threads()) as pool:
        return list(pool.map(function, items))


def _memory(config: DataConfig, records: Records, cache: Path | None) -> Path | None:
    """Return where it is remembered what is in some files; None where there are none, or nothing is remembered."""
    if cache is None:
        return None
    if isinstance(records, TableRecords):
        files = [Path(part["filename"]) for part in records.table.cache_files]
    else:
        files = [file for path in locate(config)[1] for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    if not files:
        return None
    states = [(str(file.absolute()), (state := file.stat()).st_size, state.st_mtime_ns) for file in files]
    return cache / "stored" / f"{digest(config.model_dump(mode='json'), states)}.json"


def remembered(config: DataConfig, records: Records, cache: Path | None) -> Found | None:
    """Return what was found when these very files were last read; None where that is not known."""
    path = _memory(config, records, cache)
    if path is None or not path.exists():
        return None
    try:
        told = json.loads(path.read_text())
        unreadable = {int(i): (name, reason) for i, (name, reason) in told["unreadable"].items()}
        return Found(told["content"], tuple(told["shape"]), unreadable)
    except (OSError, ValueError, KeyError, TypeError):  # then it is read again
        return None


def remember(found: Found, config: DataConfig, records: Records, cache: Path | None) -> None:
    """Keep what was found in these files for the next time; one process of a distributed run does."""
    path = _memory(config, records, cache)
    if path is not None and team()[0] == 0:
        with alone(path):
            write_text(path, json.dumps(asdict(found)))
