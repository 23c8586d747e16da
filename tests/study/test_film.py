"""Films: what a model believed of its images on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.sweeps import tiny_model

from guidon.errors import BadValue, NotSupported
from guidon.model import Model
from guidon.study.film import Film, film_sheet


def shot(value: float, n: int = 3, channels: int = 1) -> torch.Tensor:
    return torch.full((n, channels, 4, 4), value)


def test_steps_are_spread_evenly_and_the_last_is_among_them():
    film = Film(images=2, frames=4)
    for done in range(1, 11):
        film.on_step(done, 10, shot(done / 10))
    steps, images = film.strip()
    assert steps == [1, 4, 7, 10] and images.shape == (4, 2, 1, 4, 4)
    assert images[:, 0, 0, 0, 0].tolist() == [round((step / 10 + 1) * 127.5) for step in steps]


def test_of_several_evaluations_of_a_step_the_last_counts():
    film = Film()
    for value in (0.1, 0.9):
        film.on_step(1, 1, shot(value))
    assert film.strip()[1][0, 0, 0, 0, 0] == round(1.9 * 127.5)


def test_a_second_run_begins_anew():
    film = Film()
    for done in (1, 2):
        film.on_step(done, 2, shot(0))
    for done in (1, 2):
        film.on_step(done, 2, torch.zeros(3, 1, 8, 8))
    assert film.strip()[1].shape == (2, 3, 1, 8, 8)


def test_the_last_frame_is_the_image_and_filming_changes_nothing(tmp_path):
    model, film, others = Model.from_pretrained(tiny_model(tmp_path / "m")), Film(images=2), []
    asked = {"told": [0, 1, 2], "solver": "euler", "steps": 4, "rule": "cfg(2)"}
    filmed = model.sample(**asked, on_step=film.beside(lambda done, steps, x0: others.append(done)))
    assert torch.equal(filmed.x, model.sample(**asked).x)
    steps, images = film.strip()
    assert steps == [1, 2, 3, 4] == others
    assert np.array_equal(images[-1], np.moveaxis(filmed.uint8()[:2], -1, 1))


def test_a_sheet_has_a_row_for_each_film_and_image_and_a_column_for_each_step():
    films = {"weak": Film(images=2), "strong": Film(images=2)}
    for weight, film in enumerate(films.values()):
        for done in (1, 2, 3):
            film.on_step(
                done,
                3,
                torch.tensor([0.2, 0.4])[:, None, None, None] * (done - 2) * (1 + weight) * torch.ones(2, 1, 4, 4),
            )
    made = film_sheet(films, ["cat", "dog"])
    values = [[made.picture.getpixel(made.places[r, c])[0] for c in range(3)] for r in range(4)]
    grey = {
        row: [round((size * step + 1) * 127.5) for step in (-1, 0, 1)] for row, size in enumerate((0.2, 0.4, 0.4, 0.8))
    }
    assert np.abs(np.array(values) - [grey[row] for row in range(4)]).max() <= 1


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(BadValue, match="empty"):
        Film().strip()
    with pytest.raises(NotSupported, match="latents"):
        Film().on_step(1, 2, shot(0, channels=4))
    short, long = Film(), Film()
    short.on_step(1, 1, shot(0))
    for done in (1, 2):
        long.on_step(done, 2, shot(0))
    with pytest.raises(BadValue, match="other steps"):
        film_sheet({"a": short, "b": long})
