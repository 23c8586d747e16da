from __future__ import annotations

import pytest
import torch
from PIL import Image

from guidon.conditioning.images import FAR, as_tensor, known_pixels
from guidon.errors import BadValue

SHAPE = (1, 2, 2)
PICTURE = torch.tensor([[[[-1.0, 1.0], [0.5, 3.7]]]])


def test_a_mask_may_be_soft() -> None:
    anew = torch.tensor([[[[0.0, 1.0], [0.25, 0.0]]]])
    pixels, known = known_pixels(SHAPE, 2, PICTURE, anew)
    assert known.tolist() == [[[[1.0, 0.0], [0.75, 1.0]]]] * 2
    torch.testing.assert_close(pixels, (PICTURE * (1 - anew)).expand(2, -1, -1, -1))
    assert torch.equal(known_pixels(SHAPE, 1, PICTURE, anew.bool())[1], 1 - anew.bool().float())


@pytest.mark.parametrize("wrong", [-1.0, 255.0, 1.01, float("nan")])
def test_a_mask_of_other_numbers_is_refused(wrong: float) -> None:
    anew = torch.zeros(1, 1, 2, 2)
    anew[0, 0, 1, 0] = wrong
    with pytest.raises(BadValue, match=f"from 0, kept, to 1, painted anew, and there is {wrong:g}; scale"):
        known_pixels(SHAPE, 1, PICTURE, anew)


@pytest.mark.parametrize("wrong", [255.0, -11.0, float("inf")])
def test_an_image_far_out_of_its_range_is_refused(wrong: float) -> None:
    far = PICTURE.clone()
    far[0, 0, 0, 1] = wrong
    for look in (lambda: known_pixels(SHAPE, 1, far, torch.zeros(1, 1, 2, 2)), lambda: as_tensor(far, 1, "enlarges")):
        with pytest.raises(BadValue, match=f"there is {wrong:g}; divide by 127.5"):
            look()


def test_white_and_latents_are_not_far() -> None:
    assert as_tensor(Image.new("L", (2, 2), 255), 1, "enlarges").eq(1).all()
    assert torch.equal(as_tensor(PICTURE * 2, 1, "enlarges"), PICTURE * 2) and FAR > 7.4
