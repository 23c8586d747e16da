"""Small real picture files of every kind that training can read, made from scikit-learn's handwritten digits."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from guidon.training.sources import digits

DAMAGED = b"\x89PNG\r\n\x1a\n and then nothing of the kind"


def arrays(n: int) -> tuple[list[np.ndarray], list[int]]:
    """Return n pictures (8, 8) uint8 whose top left pixel tells their number, and their classes."""
    items = digits()[:n]
    pictures = [item.image.copy() for item in items]
    for i, picture in enumerate(pictures):
        picture[0, 0], picture[0, 1] = i // 200, i % 200
    return pictures, [int(item.label) for item in items]


def png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "png")
    return stream.getvalue()


def folder(root: Path, n: int, damaged: Sequence[int] = ()) -> Path:
    for i, (picture, label) in enumerate(zip(*arrays(n), strict=True)):
        file = root / f"class-{label}" / f"{i:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(DAMAGED if i in damaged else png(picture))
    return root


def parquet(root: Path, n: int, damaged: Sequence[int] = (), files: int = 1, row_group: int = 16) -> Path:
    """Write `datasets`' layout: a struct of bytes and path, and the feature types in the schema metadata."""
    root.mkdir(parents=True, exist_ok=True)
    pictures, labels = arrays(n)
    names = [f"digit-{i}" for i in range(10)]
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": names},
        "caption": {"dtype": "string", "_type": "Value"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for f in range(files):
        rows = range(f, n, files)
        images = [{"bytes": DAMAGED if i in damaged else png(pictures[i]), "path": f"{i}.png"} for i in rows]
        table = pa.table(
            {
                "image": images,
                "label": [labels[i] for i in rows],
                "caption": [f"a photo of a {labels[i]}" for i in rows],
            }
        )
        pq.write_table(
            table.replace_schema_metadata(metadata), root / f"train-{f:05d}.parquet", row_group_size=row_group
        )
    return root


def shards(root: Path, n: int, damaged: Sequence[int] = (), files: int = 3) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    pictures, labels = arrays(n)
    for f in range(files):
        with tarfile.open(root / f"shard-{f}.tar", "w") as tar:
            for i in range(f * n // files, (f + 1) * n // files):
                for suffix, content in (
                    ("png", DAMAGED if i in damaged else png(pictures[i])),
                    ("cls", str(labels[i]).encode()),
                    ("json", json.dumps({"caption": f"a photo of a {labels[i]}"}).encode()),
                ):
                    entry = tarfile.TarInfo(f"{i:04d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return root
