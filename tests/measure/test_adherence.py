import numpy as np
import pytest

from guidon.errors import BadValue
from guidon.measure.adherence import adherence, showing
from guidon.scenes.render import render
from guidon.scenes.scene import Scene, Thing

RED_LEFT = Scene((Thing("red", "circle", "big", 0.25, 0.5), Thing("blue", "square", "small", 0.75, 0.5)))
ALONE = Scene((Thing("green", "cross", "small", 0.25, 0.25),))


def pictures(*scenes: Scene) -> np.ndarray:
    return np.stack([render(scene, 32) for scene in scenes])


def test_every_part_is_counted_where_it_was_said():
    found = adherence(
        pictures(RED_LEFT, RED_LEFT, ALONE, ALONE),
        [
            "a red circle left of a blue square",  # all right
            "a red circle right of a small green square",  # relation and one colour wrong
            "a small green cross in the top left",  # all right
            "a big green cross and a thing",  # size and number wrong, the second thing is not there
        ],
    )
    assert (found.whole.held, found.whole.cases) == (2, 4) and (found.things.held, found.things.cases) == (2, 4)
    shares = {part: (share.held, share.cases) for part, share in found.parts.items()}
    assert shares["relation"] == (1, 2) and shares["count"] == (3, 4) and shares["place"] == (1, 1)
    assert shares["colour"] == (5, 6) and shares["size"] == (2, 3)


def test_the_share_has_the_error_of_a_count():
    found = adherence(pictures(*[ALONE] * 4), ["a green cross"] * 3 + ["a red cross"])
    assert found.whole.share == 0.75 and found.whole.standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_an_attribute_is_seen_wherever_it_is():
    images = pictures(RED_LEFT, ALONE)
    assert showing(images, "red").tolist() == [True, False]
    assert showing(images, "cross").tolist() == [False, True]
    assert showing(images, "small").tolist() == [True, True]


def test_every_image_needs_a_caption():
    with pytest.raises(BadValue, match="1 captions for 2"):
        adherence(pictures(RED_LEFT, ALONE), ["a thing"])
