"""A picture of many samples: a row for every guidance weight, a column for every class."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from guidon.model import Model
from guidon.tasks.generate import to_uint8

COLUMNS, CELL, MARGIN = 10, 64, 56


def sample_grid(model: Model, weights: Sequence[float], *, seed: int = 0) -> Image.Image:
    """Sample the first classes (or a few images without class) at several weights and lay them out with their weights.

    Every row starts from the same noise, so what differs between rows is the guidance.
    """
    conditional = model.classes is not None
    labels = list(range(len(model.classes)))[:COLUMNS] if model.classes is not None else None
    count = len(labels) if labels is not None else COLUMNS
    rows = []
    for weight in weights if conditional else (1.0,):
        rows.append(model.sample(labels, n=None if conditional else count, rule=float(weight), seed=seed).x)
    pixels = to_uint8(torch.stack(rows)).permute(0, 1, 3, 4, 2).cpu().numpy()  # (R, N, H, W, C)
    scale = max(1, CELL // max(model.shape[1:]))
    height, width = model.shape[1] * scale, model.shape[2] * scale
    left = MARGIN if conditional else 0
    sheet = Image.new("RGB", (left + count * (width + 2), len(rows) * (height + 2)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for y, row in enumerate(pixels):
        if conditional:
            draw.text((4, y * (height + 2) + height // 2 - 8), f"w={weights[y]:g}", fill="black", font=font)
        for x, image in enumerate(row):
            tile = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
            sheet.paste(
                tile.resize((width, height), Image.Resampling.NEAREST), (left + x * (width + 2), y * (height + 2))
            )
    return sheet


def png_bytes(image: Image.Image) -> bytes:
    """Return an image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
