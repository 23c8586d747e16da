"""What pictures are made of: where pixels and values go."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from guidon.lab import drawing


def test_tiles_stand_in_rows_with_white_between_them() -> None:
    images = torch.arange(6.0).reshape(2, 3, 1, 1, 1).expand(2, 3, 1, 2, 2)
    whole = drawing.tiles(images)[0]
    assert whole.shape == (5, 8)
    assert whole[0].tolist() == [0, 0, 1, 1, 1, 1, 2, 2] and whole[3, 0] == 3 and whole[4, 7] == 5
    assert (whole[2] == 1).all()


def test_a_lattice_goes_along_x_first() -> None:
    x, y, pairs = drawing.lattice((-1.0, 1.0, 0.0, 4.0), 3)
    assert x.tolist() == [-1, 0, 1] and y.tolist() == [0, 2, 4]
    assert pairs[:4].tolist() == [[-1, 0], [0, 0], [1, 0], [-1, 2]]


def test_a_histogram_is_a_density_that_knows_of_what_it_does_not_show() -> None:
    figure, ((axes,),) = drawing.panels(1, 1)
    drawing.histogram(axes, torch.tensor([0.1, 0.2, 0.6, 5.0]), 0.0, 1.0, bins=2)
    (stairs,) = axes.patches
    np.testing.assert_allclose(stairs.get_data().values, [1.0, 0.5])
    assert isinstance(figure, Figure)


def test_a_picture_goes_from_black_to_white_and_is_clipped() -> None:
    _, ((axes,),) = drawing.panels(1, 1)
    drawing.picture(axes, torch.tensor([[[-3.0, 0.0, 1.0]]]))
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.0, 0.5, 1.0]])
    assert axes.images[0].get_clim() == (0, 1)


def test_colours_begin_anew() -> None:
    assert drawing.color(0) == drawing.color(len(drawing.COLORS)) != drawing.color(1)
