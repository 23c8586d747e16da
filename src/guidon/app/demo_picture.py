"""The picture of the demo: what guidance does to handwritten digits, weight by weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from guidon.lettering import font as font_of
from guidon.tasks.generate import to_uint8

Row = tuple[Tensor, Tensor, Mapping[str, Any]]

_SIDE = 3  # a cell shows so many images in each direction
_SCALE = 4  # screen pixels for a pixel
_GAP, _CELL_GAP, _MARGIN = 2, 14, 28
_NAMES, _NUMBERS = 150, 130  # width of the columns left and right
_PAPER, _INK, _FAINT, _WRONG = (255, 255, 255), (24, 24, 27), (113, 113, 122), (220, 38, 38)
_SAYINGS = {0: "told nothing", 1: "told the digit", 2: "guided", 4: "guided strongly", 8: "guided too far"}


def guidance_picture(rows: Mapping[float, Row], classes: Sequence[str]) -> Image.Image:
    """Draw a row for each weight and a column for each class; every cell holds nine images.

    The noise is the same in every row, so what differs is the guidance. Images that the judge takes for another class than
    the column's have a red frame.

    Args:
        rows: by weight: images (N, C, H, W) in [-1, 1] of the classes in turn, the class (N,) the judge sees in each, measures.
        classes: their names.
    """
    images = next(iter(rows.values()))[0]
    height, width = images.shape[2] * _SCALE, images.shape[3] * _SCALE
    cell_width, cell_height = _SIDE * (width + _GAP) - _GAP, _SIDE * (height + _GAP) - _GAP
    left, top = _MARGIN + _NAMES, _MARGIN + 92
    right = left + len(classes) * (cell_width + _CELL_GAP)
    size = (right + _NUMBERS + _MARGIN, top + len(rows) * (cell_height + _CELL_GAP) - _CELL_GAP + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    title, large, normal = font_of(24), font_of(20), font_of(14)
    draw.text((_MARGIN, _MARGIN), "What guidance does", _INK, title, anchor="lt")
    about = (
        "Same noise in every row. Red frame: a classifier trained on real digits sees another digit than was asked for."
    )
    draw.text((_MARGIN, _MARGIN + 34), about, _FAINT, normal, anchor="lt")
    for c, name in enumerate(classes):
        draw.text((left + c * (cell_width + _CELL_GAP) + cell_width // 2, top - 12), name, _INK, large, anchor="mb")
    draw.text((right, top - 14), "right digit / variety", _FAINT, normal, anchor="lb")
    for r, (weight, (images, seen, measures)) in enumerate(rows.items()):
        y = top + r * (cell_height + _CELL_GAP)
        middle = y + cell_height // 2
        draw.text((_MARGIN, middle - 4), f"w = {weight:g}", _INK, large, anchor="lb")
        draw.text((_MARGIN, middle + 4), _SAYINGS.get(int(weight), ""), _FAINT, normal, anchor="lt")
        draw.text((right, middle - 4), f"{measures['accuracy']:.0%}", _INK, large, anchor="lb")
        draw.text((right, middle + 4), f"recall {measures['recall']:.2f}", _FAINT, normal, anchor="lt")
        tiles = to_uint8(images).permute(0, 2, 3, 1).cpu()
        for c in range(len(classes)):
            for k in range(_SIDE**2):
                i = k * len(classes) + c
                place = (
                    left + c * (cell_width + _CELL_GAP) + k % _SIDE * (width + _GAP),
                    y + k // _SIDE * (height + _GAP),
                )
                sheet.paste(_tile(tiles[i], (width, height)), place)
                if int(seen[i]) != c:
                    draw.rectangle((*place, place[0] + width - 1, place[1] + height - 1), outline=_WRONG, width=2)
    return sheet


def _tile(pixels: Tensor, size: tuple[int, int]) -> Image.Image:
    """Return pixels (H, W, C) as an image of a size; smoothed, as eight by eight squares are hard to read as a digit."""
    image = Image.fromarray(pixels.expand(-1, -1, 3).to(torch.uint8).numpy())
    return image.resize(size, Image.Resampling.BICUBIC)
