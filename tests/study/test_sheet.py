"""Sheets: every image stands where its row and its column say."""

from __future__ import annotations

import numpy as np
import pytest
from support.cells import figure, sweep

from guidon.errors import BadValue, NotSupported
from guidon.study.sheet import SIDE, Sheet, image_names, mosaic, sheet, tiled, write_sheets


@pytest.fixture
def cells(tmp_path):
    return sweep(tmp_path, lambda rule, w: {"saturation": figure(w)}, captions=["a cat", "a dog", "a fox", "an owl"])


def pixel(made: Sheet, row: int, column: int, across: float = 0.5, down: float = 0.5) -> tuple[int, ...]:
    left, top = made.places[row, column]
    at = left + int(across * made.size[0]), top + int(down * made.size[1])
    return made.picture.getpixel(at)


def test_weights_against_the_images_of_a_cell(cells):
    made = sheet(cells, "w", held={"rule": "apg"})
    assert made.size == (SIDE, SIDE) and len(made.places) == 3 * 4
    for r in range(3):
        for i in range(4):
            assert pixel(made, r, i) == (3 + r, 10 * i, 200)  # the cells of apg are the last three


def test_images_against_an_axis_is_the_sheet_turned(cells):
    made = sheet(cells, "image", "w", held={"rule": "plain"})
    assert {(r, c): pixel(made, r, c) for r, c in made.places} == {
        (i, w): (w, 10 * i, 200) for i in range(4) for w in range(3)
    }


def test_axis_against_axis_shows_squares_of_images(cells):
    made = sheet(cells, "rule", "w", images=4)
    assert len(made.places) == 2 * 3
    for r in range(2):
        for w in range(3):
            corners = [pixel(made, r, w, x, y) for y in (0.25, 0.75) for x in (0.25, 0.75)]
            assert corners == [(3 * r + w, 10 * i, 200) for i in range(4)]


def test_tiles_do_not_overlap_and_lie_on_the_picture(cells):
    made = sheet(cells, "rule", "w")
    lefts, tops = (
        [made.places[at][side] for at in ats] for side, ats in enumerate(([(0, c) for c in range(3)], [(0, 0), (1, 0)]))
    )
    assert lefts == sorted(lefts) and tops == sorted(tops)
    covered = np.zeros((made.picture.height, made.picture.width), int)
    for left, top in made.places.values():
        assert left >= 0 and top >= 0
        covered[top : top + made.size[1], left : left + made.size[0]] += 1
    assert covered.max() == 1 and covered.sum() == len(made.places) * made.size[0] * made.size[1]


def test_a_cell_that_is_missing_leaves_an_empty_place(cells):
    made = sheet([cell for cell in cells if cell.axes != {"rule": "plain", "w": 2}], "rule", "w")
    assert pixel(made, 0, 1) == (244, 244, 245) and pixel(made, 1, 1) == (4, 0, 200)


def test_small_images_are_enlarged_without_smoothing():
    chequered = np.indices((5, 5)).sum(0) % 2 * np.uint8(255)
    made = tiled([[chequered[None].astype(np.uint8)]], ["r"], ["c"])
    left, top = made.places[0, 0]
    width, height = made.size
    found = np.asarray(made.picture)[top : top + height, left : left + width, 0]
    assert width % 5 == 0 and width >= SIDE
    assert np.array_equal(found, chequered.repeat(height // 5, 0).repeat(width // 5, 1))


def test_the_largest_square_of_images():
    images = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), np.uint8)
    assert mosaic(images).shape == (3, 4, 4)
    assert mosaic(images)[0, ::2, ::2].tolist() == [[0, 1], [2, 3]]


def test_images_are_named_by_what_was_told_or_their_seeds(cells, tmp_path):
    assert image_names(cells[0], 2) == ["a cat", "a dog"]
    plain = sweep(tmp_path / "plain", lambda rule, w: {}, weights=(1,))
    assert image_names(plain[0], 2) == ["seed 3", "seed 4"]


def test_wrong_wishes_are_refused(cells, tmp_path):
    with pytest.raises(BadValue, match=r"no axis ruel.*'rule'"):
        sheet(cells, "ruel")
    with pytest.raises(BadValue, match="two axes"):
        sheet(cells, "w", "w")
    with pytest.raises(BadValue, match="no cell has w=7"):
        sheet(cells, "rule", held={"w": 7})
    bare = sweep(tmp_path / "bare", lambda rule, w: {}, images=0)
    with pytest.raises(NotSupported, match="kept no images"):
        sheet(bare, "w")
    assert write_sheets(bare, tmp_path) == []


def test_sheets_of_a_sweep_are_written(cells, tmp_path):
    names = [path.name for path in write_sheets(cells, tmp_path / "out")]
    assert names == ["sheet-rule-w.png", "sheet-01-plain.png", "sheet-02-apg.png"]
