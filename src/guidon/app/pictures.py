"""Images as files: what to call them, and the contact sheet that shows them together."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from guidon.errors import DataError, MissingFile
from guidon.lettering import font as font_of

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SHEET = "sheet"
_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
_SIDE, _GAP, _MARGIN, _WIDEST = 64, 4, 16, 12  # pixels, pixels, pixels, images
_SLUG = 40  # letters of a name that go into that of its file
_NAME, _LETTERS, _LINE = 180, 28, 15  # pixels of a name in one line; letters of a line, and its pixels, in several


def file_stems(seeds: Sequence[int], labels: Sequence[str | None]) -> list[str]:
    """Return one name for each image, ``0007-cat`` for seed 7 and class cat; long texts are cut, what would repeat is counted."""
    stems: list[str] = []
    seen: dict[str, int] = {}
    for seed, label in zip(seeds, labels, strict=True):
        slug = re.sub(r"[^\w.-]+", "_", label)[:_SLUG].strip("._") if label is not None else ""
        stem = f"{seed:04d}-{slug}" if slug else f"{seed:04d}"
        seen[stem] = seen.get(stem, 0) + 1
        stems.append(stem if seen[stem] == 1 else f"{stem}.{seen[stem]}")
    return stems


def free_paths(folder: Path, stems: Sequence[str], suffix: str = ".png") -> list[Path]:
    """Return a path for each name so that no file is overwritten; all of them get the same ``-2``, ``-3``, ... where one is taken."""
    run = 1
    while True:
        paths = [folder / f"{stem}{f'-{run}' if run > 1 else ''}{suffix}" for stem in stems]
        if not any(path.exists() for path in paths):
            return paths
        run += 1


def open_pictures(paths: Sequence[Path]) -> list[Image.Image]:
    """Return the pictures in files; raises `MissingFile` or `DataError` for one that cannot be read."""
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                pictures.append(picture.convert(picture.mode if picture.mode in ("L", "RGB") else "RGB"))
        except FileNotFoundError as error:
            raise MissingFile(f"there is no picture {path}; check the path") from error
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"cannot read the picture {path} ({error}); give a PNG or a JPEG") from error
    return pictures


def of_size(pictures: Sequence[Image.Image], size: Sequence[int], mask: bool = False) -> list[Image.Image]:
    """Return pictures brought to a size (height, width), those of a mask without in-betweens."""
    how = Image.Resampling.NEAREST if mask else Image.Resampling.BICUBIC
    return [
        picture if picture.size == (size[1], size[0]) else picture.resize((size[1], size[0]), how)
        for picture in pictures
    ]


def contact_sheet(images: Sequence[Image.Image], rows: Sequence[str | None], title: str) -> Image.Image:
    """Return all images on one sheet.

    Args:
        images: of one size; small ones are enlarged without smoothing.
        rows: the row that each image belongs to, by its name; a row of many images takes several lines, a long name too.
        title: the line on top.
    """
    lines = _lines(rows)
    scale = max(1, round(_SIDE / max(images[0].size)))
    width, height = (side * scale for side in images[0].size)
    font, small = font_of(16), font_of(13)
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    names = [_wrapped(name, font, small, height // _LINE) for name, _ in lines]
    widest = max((draw.multiline_textbbox((0, 0), name, like)[2] for name, like in names if name), default=0)
    left = _MARGIN + (round(widest) + 12 if widest else 0)
    columns = max(len(members) for _, members in lines)
    title_width = round(small.getlength(title))
    sheet = Image.new(
        "RGB",
        (
            max(left + columns * (width + _GAP) - _GAP, _MARGIN + title_width) + _MARGIN,
            _MARGIN + 24 + len(lines) * (height + _GAP) - _GAP + _MARGIN,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, _FAINT, small, anchor="lt")
    for i, ((name, like), (_, members)) in enumerate(zip(names, lines, strict=True)):
        top = _MARGIN + 24 + i * (height + _GAP)
        draw.multiline_text((left - 12, top + height // 2), name, _INK, like, anchor="rm", align="right", spacing=2)
        for j, member in enumerate(members):
            picture = images[member].convert("RGB").resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + j * (width + _GAP), top))
    return sheet


def _wrapped(name: str, font: Font, small: Font, lines: int) -> tuple[str, Font]:
    """Return a name with the font to write it in: a long one in several lines of small letters, as many as there is room for."""
    if font.getlength(name) <= _NAME:
        return name, font
    return "\n".join(textwrap.wrap(name, _LETTERS, max_lines=max(lines, 1), placeholder=" ...")), small


def _lines(rows: Sequence[str | None]) -> list[tuple[str, list[int]]]:
    """Return (name, images) for each line of the sheet, in the order in which the rows first appear."""
    groups: dict[str | None, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row, []).append(i)
    if len(groups) > 1 and all(
        len(members) == 1 for members in groups.values()
    ):  # one of each: side by side reads better
        groups = {None: list(range(len(rows)))} if len(rows) > _WIDEST else groups
    lines = []
    for name, members in groups.items():
        for start in range(0, len(members), _WIDEST):
            lines.append((name or "" if start == 0 else "", members[start : start + _WIDEST]))
    return lines
