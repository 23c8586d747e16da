"""Images of a sweep in rows and columns: any axis against any other, or against the images of a cell."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from guidon.checkpoints.atomic import write_bytes
from guidon.errors import BadValue, MissingFile, NotSupported, nearest
from guidon.lettering import font
from guidon.measure.observe import IMAGES
from guidon.study.columns import along, axes, coloured, shown, slug
from guidon.training.grid import png_bytes

if TYPE_CHECKING:
    from guidon.study.store import Cell

IMAGE = "image"  # the axis of the images of a cell
SIDE, GAP, MARGIN = 64, 4, 16  # pixels: of an image at least, between images, around all
LABEL, LETTERS, LINE = 190, 26, 15  # pixels of a row's label at most; letters of its lines, and their height
WIDEST = 10  # images of a cell in a sheet
PAPER, INK, FAINT, EMPTY = "white", (24, 24, 27), (113, 113, 122), (244, 244, 245)

Place = tuple[int, int]


@dataclass(frozen=True)
class Sheet:
    """A picture of tiles.

    Args:
        picture: RGB.
        places: left and top of the tile in each (row, column).
        size: width and height of a tile.
    """

    picture: Image.Image
    places: Mapping[tuple[int, int], Place]
    size: tuple[int, int]


def kept_images(cell: Cell, count: int | None = None) -> np.ndarray | None:
    """Return the first images that a cell has kept, uint8 (N, C, H, W); None where it has kept none."""
    try:
        rows = cell.rows()
    except MissingFile:  # a sweep may be passed on without the folders of its cells
        return None
    return np.asarray(rows[IMAGES][:count]) if IMAGES in rows and len(rows[IMAGES]) else None


def cell_images(cell: Cell, count: int | None = None) -> np.ndarray:
    """Return the first images that a cell has kept, uint8 (N, C, H, W); raises `NotSupported` where it has kept none."""
    images = kept_images(cell, count)
    if images is None:
        raise NotSupported(f"the cell {cell.key} has kept no images; sweep again with keep_images")
    return images


def tiled(
    tiles: Sequence[Sequence[np.ndarray | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    *,
    side: int = SIDE,
) -> Sheet:
    """Lay images out with a label at every row and column; small ones are enlarged without smoothing.

    Args:
        tiles: by row and column, each uint8 (C, H, W) of one shape, C 1 or 3; None where there is no image.
        rows, columns: their labels; long ones take several lines.
        title: the line on top.
        side: of a tile at least, in pixels.
    """
    shape = next((tile.shape for line in tiles for tile in line if tile is not None), None)
    if shape is None:
        raise BadValue("there is no image to show; keep images when measuring")
    scale = math.ceil(side / max(shape[1:]))
    height, width = shape[1] * scale, shape[2] * scale
    normal, small = font(13), font(12)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    at_rows = [
        "\n".join(textwrap.wrap(label, LETTERS, max_lines=max(1, height // LINE), placeholder=" ...")) for label in rows
    ]
    letters = max(6, int((width + GAP) / small.getlength("n")))
    at_columns = ["\n".join(textwrap.wrap(label, letters, max_lines=4, placeholder=" ...")) for label in columns]
    left = MARGIN + min(
        LABEL,
        round(max((pen.multiline_textbbox((0, 0), text, small)[2] for text in at_rows if text), default=-10)) + 10,
    )
    head = max((text.count("\n") + 1 for text in at_columns if text), default=0)
    letters = max(24, int((left + len(columns) * (width + GAP)) / 7.5))
    above = "\n".join(wrapped for line in title.splitlines() for wrapped in textwrap.wrap(line, letters))
    top = MARGIN + (22 + (above.count("\n")) * 17 if above else 0) + head * LINE + (6 if head else 0)
    right, bottom = left + len(columns) * (width + GAP) - GAP, top + len(rows) * (height + GAP) - GAP
    needed = round(pen.multiline_textbbox((0, 0), above, normal)[2]) + MARGIN if above else 0
    sheet = Image.new("RGB", (max(right, needed) + MARGIN, bottom + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.multiline_text((MARGIN, MARGIN - 4), above, FAINT, normal, spacing=2)
    places = {}
    for c, text in enumerate(at_columns):
        middle = left + c * (width + GAP) + width // 2
        draw.multiline_text((middle, top - 6), text, INK, small, anchor="md", align="center", spacing=2)
    for r, text in enumerate(at_rows):
        y = top + r * (height + GAP)
        draw.multiline_text((left - 10, y + height // 2), text, INK, small, anchor="rm", align="right", spacing=2)
        for c, tile in enumerate(tiles[r]):
            places[r, c] = x, _ = left + c * (width + GAP), y
            if tile is None:
                draw.rectangle((x, y, x + width - 1, y + height - 1), EMPTY)
            else:
                sheet.paste(picture(tile).resize((width, height), Image.Resampling.NEAREST), (x, y))
    return Sheet(sheet, places, (width, height))


def picture(pixels: np.ndarray) -> Image.Image:
    """Return pixels (C, H, W) as an RGB image, C 1 or 3."""
    whole = np.moveaxis(np.asarray(pixels), 0, -1)
    return Image.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole).convert("RGB")


def mosaic(images: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) as one, the largest square of them, a row after the other."""
    side = math.isqrt(len(images))
    square = images[: side * side].reshape(side, side, *images.shape[1:])
    return np.concatenate(np.concatenate(list(square), -2), -1) if side > 1 else images[0]


def sheet(
    cells: Sequence[Cell],
    rows: str,
    columns: str = IMAGE,
    *,
    held: Mapping[str, Any] | None = None,
    images: int | None = None,
    title: str = "",
) -> Sheet:
    """Lay out the images of a sweep.

    Args:
        cells: of the sweep.
        rows, columns: two of its axes, or one of them `IMAGE`: the images of a cell, each by its seed.
        held: values of the other axes; where none is given that of the first cell.
        images: of a cell; in a row of them 10 unless told, in a tile (which shows the largest square of them) 1.
        title: left out: what is held.

    Raises:
        BadValue: there is no such axis, or no such cell.
        NotSupported: the cells have kept no images.
    """
    found = axes(cells)
    for name in (rows, columns):
        if name not in (*found, IMAGE):
            raise BadValue(f"there is no axis {name}{nearest(name, found)}; there are: {', '.join([*found, IMAGE])}")
    if rows == columns:
        raise BadValue(f"rows and columns are both {rows}; name two axes, or {IMAGE}")
    chosen = [cell for cell in cells if all(cell.axes.get(name) == value for name, value in (held or {}).items())]
    if not chosen:
        raise BadValue(f"no cell has {_told(held or {})}; choose among the values of the sweep")
    fixed = {name: value for name, value in chosen[0].axes.items() if name not in (rows, columns)}
    chosen = [cell for cell in chosen if all(cell.axes.get(name) == value for name, value in fixed.items())]
    title = title or _told({name: value for name, value in fixed.items() if len(found[name]) > 1})
    if IMAGE not in (rows, columns):
        up, across = (
            [value for value in found[name] if any(c.axes.get(name) == value for c in chosen)]
            for name in (rows, columns)
        )
        by = {(shown(cell.axes.get(rows)), shown(cell.axes.get(columns))): cell for cell in chosen}
        tiles = [[_tile(by.get((shown(y), shown(x))), images or 1) for x in across] for y in up]
        side = SIDE * math.isqrt(images or 1)
        at = [f"{rows}={shown(y)}" for y in up], [f"{columns}={shown(x)}" for x in across]
        return tiled(tiles, *at, title, side=side)
    name = columns if rows == IMAGE else rows
    chosen.sort(key=lambda cell: found[name].index(cell.axes[name]) if name in cell.axes else -1)
    shots = [cell_images(cell, images or WIDEST) for cell in chosen]
    count = min(len(each) for each in shots)
    labels, seeds = [f"{name}={shown(cell.axes.get(name))}" for cell in chosen], image_names(chosen[0], count)
    lines = [[each[i] for i in range(count)] for each in shots]
    if rows == IMAGE:
        return tiled([list(line) for line in zip(*lines, strict=True)], seeds, labels, title)
    return tiled(lines, labels, seeds, title)


def image_names(cell: Cell, count: int) -> list[str]:
    """Return the names of the first images of a cell, whose rows are there: what was told, or else their seeds."""
    rows, seed = cell.rows(), int(cell.settings.get("seed") or 0)
    if rows.captions is not None:
        return [str(text) for text in rows.captions[:count]]
    if rows.labels is not None and rows.classes is not None:
        labels = rows.labels[:count].tolist()
        return [rows.classes[label] if label >= 0 else f"seed {seed + i}" for i, label in enumerate(labels)]
    return [f"seed {seed + i}" for i in range(count)]


def write_sheets(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Write the sheet of the two main axes, and for each value of one (``sheet-02-apg.png``) that of the other; return where."""
    cells = [cell for cell in cells if kept_images(cell, 1) is not None]
    if not cells:
        return []
    run, hue = along(cells), coloured(cells)
    if run is None or hue is None:
        name = run or hue or next(iter(axes(cells)), None)
        return [] if name is None else [_written(sheet(cells, name), folder, name)]
    written = [_written(sheet(cells, hue, run, images=4), folder, f"{hue}-{run}")]
    for i, value in enumerate(axes(cells)[hue], 1):
        written.append(_written(sheet(cells, run, held={hue: value}), folder, f"{i:02d}-{shown(value)}"))
    return written


def _written(made: Sheet, folder: Path, name: str) -> Path:
    path = folder / f"sheet-{slug(name)}.png"
    write_bytes(path, png_bytes(made.picture))
    return path


def _tile(cell: Cell | None, count: int) -> np.ndarray | None:
    return None if cell is None else mosaic(cell_images(cell, count))


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())
