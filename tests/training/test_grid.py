"""Sample sheets: every tile is the sample of its weight and its class or text, and what stands over a column fits there."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageFont
from support.text_models import text_model
from training.tiny import tiny_recipe

from guidon.training import grid
from guidon.training.grid import first_captions, sample_grid, wrapped

PROMPTS = ["a red circle", "two green triangles", "no red"]
LONG = "a small red circle above a very large and slightly transparent blue square in the upper left corner of it all"


def tiles(sheet: np.ndarray, rows: int, columns: int, side: int) -> np.ndarray:
    """Return what stands in every tile, (rows, columns, side, side, 3), counted from the lower right corner."""
    height, width, _ = sheet.shape
    at = [
        [
            sheet[height - (rows - y) * (side + 2) :, width - (columns - x) * (side + 2) :][:side, :side]
            for x in range(columns)
        ]
        for y in range(rows)
    ]
    return np.array(at)


def test_a_row_for_every_weight_and_a_column_for_every_text() -> None:
    model = text_model("cross", channels=3, sample={"steps": 2})
    sheet = np.asarray(sample_grid(model, [0, 3], prompts=PROMPTS, seed=5))
    side = grid.TEXT_CELL
    found = tiles(sheet, 2, 3, side)
    scale = side // 8
    for y, weight in enumerate([0.0, 3.0]):
        wanted = model.sample(PROMPTS, rule=weight, seed=5).uint8()
        assert np.array_equal(found[y], wanted.repeat(scale, 1).repeat(scale, 2))
    ink = sheet[: sheet.shape[0] - 2 * (side + 2)].min(axis=2) < 128
    for x in range(3):
        left = grid.MARGIN + x * (side + 2)
        assert ink[:, left : left + side].any(), "its text"
        assert not ink[:, left + side : left + side + 2].any(), "which leaves its neighbour alone"
    assert (sheet[-side:, : grid.MARGIN].min(axis=2) < 128).any(), "the weight"


def test_classes_and_nothing_have_no_texts() -> None:
    model = tiny_recipe().build((1, 8, 8), tuple("0123456789ab"))
    assert sample_grid(model, [1, 2]).size == (grid.MARGIN + 10 * 66, 2 * 66)
    plain = tiny_recipe({"vector": None}).build((1, 8, 8), None)
    assert sample_grid(plain, [1, 2]).size == (10 * 66, 66)


def test_a_model_of_texts_without_any_prompt_says_nothing() -> None:
    assert sample_grid(text_model("cross", sample={"steps": 1}), [1, 2]).size[1] < 2 * grid.TEXT_CELL


@pytest.mark.parametrize("width", [40, 90, 200])
@pytest.mark.parametrize("text", [LONG, "supercalifragilisticexpialidocious" * 2, "cat", "", "a b"])
def test_lines_fit_and_what_is_cut_is_marked(text: str, width: int) -> None:
    font = ImageFont.load_default(11)
    lines = wrapped(text, font, width).split("\n")
    assert len(lines) <= grid.LINES and all(font.getlength(line) <= width for line in lines)
    said = "".join(lines).replace(" ", "")
    if said.endswith("..."):
        assert text.replace(" ", "").startswith(said[:-3]) and len(lines) >= grid.LINES - 1
    else:
        assert said == text.replace(" ", "")


def test_the_first_captions_that_differ_are_shown() -> None:
    class Data:
        uncaptioned = object()
        held_out = None

        def wordings(self) -> list[str]:
            return ["a", "", "b", "a", *map(str, range(20))]

    assert first_captions(Data()) == ["a", "b", *map(str, range(8))]  # type: ignore[arg-type]
    Data.uncaptioned = None  # type: ignore[assignment]
    assert first_captions(Data()) == []  # type: ignore[arg-type]
