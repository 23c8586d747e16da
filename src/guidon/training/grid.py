"""A picture of many samples: a row for every guidance weight, a column for every class or text."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from guidon.lettering import font as font_of
from guidon.model import Model
from guidon.tasks.generate import to_uint8
from guidon.training.batches import Batch, TrainingData
from guidon.training.shown import small_of

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

COLUMNS, MARGIN = 10, 56
CELL, TEXT_CELL = 64, 96  # pixels of an image's side at least, and of one with a text over it
LINES, LINE = 5, 13  # of a text over its column, and their height


def sample_grid(
    model: Model, weights: Sequence[float], *, prompts: Sequence[str] = (), shown: Batch | None = None, seed: int = 0
) -> Image.Image:
    """Sample the first classes or prompts (or a few images without either) at several weights and lay them out with their weights.

    Every row starts from the same noise, so what differs between rows is the guidance.

    Args:
        model: to sample.
        weights: of the rows; a model that never learned to do without a class has one of weight 1.
        prompts: of a model of texts.
        shown: images of which a model that enlarges or completes is shown the first, small or with a square cut out.
        seed: of the first column.
    """
    told: Sequence[Any] = (prompts if model.config.text is not None else range(len(model.classes or ())))[:COLUMNS]
    beside = _shown(model, shown, len(told) or COLUMNS)
    count = len(next(iter(beside.values()))) if beside else len(told) or COLUMNS
    told = list(told)[:count]
    asked: Any = told or None
    if told and model.tokenizer is not None:  # whoever trains has been warned of texts that are too long
        asked = model.tokenizer.encode(told, warn=False)
    rows, weights = [], weights if told and model.has_null else (1.0,)
    for weight in weights:
        rows.append(model.sample(asked, n=None if told else count, rule=float(weight), seed=seed, **beside).x)
    pixels = to_uint8(torch.stack(rows)).permute(0, 1, 3, 4, 2).cpu().numpy()  # (R, N, H, W, C)
    texts = [str(text or "(no text)") for text in told] if model.config.text is not None else []
    scale = max(1, (TEXT_CELL if texts else CELL) // max(model.shape[1:]))
    height, width = model.shape[1] * scale, model.shape[2] * scale
    font, small = font_of(14), font_of(11)
    captions = [wrapped(text, small, width - 6) for text in texts]
    left, top = MARGIN if told else 0, LINE * max((text.count("\n") + 1 for text in captions), default=0)
    top += 8 if captions else 0
    sheet = Image.new("RGB", (left + count * (width + 2), top + len(rows) * (height + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for x, text in enumerate(captions):
        middle = left + x * (width + 2) + width // 2
        draw.multiline_text((middle, top - 5), text, fill="black", font=small, spacing=2, anchor="md", align="center")
    for y, row in enumerate(pixels):
        if told:
            draw.text((4, top + y * (height + 2) + height // 2 - 8), f"w={weights[y]:g}", fill="black", font=font)
        for x, image in enumerate(row):
            tile = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).convert("RGB")
            tile = tile.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + x * (width + 2), top + y * (height + 2)))
    return sheet


def wrapped(text: str, font: Font, width: int) -> str:
    """Return a text in lines of so many pixels at most; of a long one as much as goes into `LINES` of them, and dots."""
    for letters in range(max(len(text), 4), 3, -1):
        lines = textwrap.wrap(text, letters, max_lines=LINES, placeholder="...")
        if all(font.getlength(line) <= width for line in lines):
            break
    return "\n".join(lines)


def first_captions(data: TrainingData) -> list[str]:
    """Return the first captions of data that differ, of those held out if any are; none where there are no captions."""
    if data.uncaptioned is None:
        return []
    held = data.held_out.captions if data.held_out is not None else None
    found: dict[str, None] = {}
    for text in held or data.wordings():
        found |= {text: None} if text else {}
        if len(found) == COLUMNS:
            break
    return list(found)


def _shown(model: Model, batch: Batch | None, count: int) -> dict[str, Any]:
    """Return what a model that enlarges or completes is shown of the first images, as arguments of `Model.sample`."""
    if batch is None or not (model.low_res or model.config.inpaint):
        return {}
    images = batch.images[:count]
    found: dict[str, Any] = {"image": small_of(images, model.low_res)} if model.low_res is not None else {}
    if model.config.inpaint:
        anew = torch.zeros(len(images), 1, *model.shape[1:])
        (height, width) = model.shape[1:]
        anew[..., height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
        found |= {"inpaint": images, "repaint": anew}
    return found


def png_bytes(image: Image.Image) -> bytes:
    """Return an image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
