"""The parser gets back the scene that was drawn, exactly, and through noise and blur."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage

from guidon.errors import BadValue, ShapeMismatch
from guidon.scenes.draw import KINDS, draw
from guidon.scenes.read import read
from guidon.scenes.render import AREA, cover, render
from guidon.scenes.scene import COLOURS, SHAPES, SIZES, Scene, Thing

PIXEL = 0.5  # how far a position may be from where the thing was drawn


def scenes(count: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [draw(rng, kind)[0] for kind in KINDS for _ in range(count // len(KINDS))]


def same(drawn: Scene, seen: Scene, side: int) -> bool:
    """Whether both hold the same things, each within half a pixel of where it was drawn."""
    left = list(seen.things)
    for thing in drawn.things:
        look = (thing.colour, thing.shape, thing.size)
        near = [
            other
            for other in left
            if (other.colour, other.shape, other.size) == look
            and max(abs(other.x - thing.x), abs(other.y - thing.y)) * side <= PIXEL
        ]
        if not near:
            return False
        left.remove(near[0])
    return not left


def worn(image: np.ndarray, rng: np.random.Generator, *, noise: float, blur: float) -> np.ndarray:
    soft = ndimage.gaussian_filter(image / 255, (blur, blur, 0))
    return (np.clip(soft + noise * rng.standard_normal(soft.shape), 0, 1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("side", [32, 48, 64])
def test_every_scene_is_recovered_exactly(side: int) -> None:
    assert all(same(scene, read(render(scene, side)), side) for scene in scenes(1200, side))


@pytest.mark.parametrize("side", [32, 64])
def test_scenes_are_recovered_through_noise_and_blur(side: int) -> None:
    rng = np.random.default_rng(0)
    right = [same(s, read(worn(render(s, side), rng, noise=0.05, blur=0.4)), side) for s in scenes(800, 1)]
    assert np.mean(right) >= 0.99


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colour_slightly_off_is_still_that_colour(colour: str) -> None:
    image = render(Scene((Thing(colour, "circle", "big", 0.5, 0.5),)), 32).astype(float)
    rng = np.random.default_rng(3)
    for shift in rng.uniform(-40, 40, (30, 3)):
        (seen,) = read((image + shift * (image < 255).any(-1, keepdims=True)).clip(0, 255).astype(np.uint8)).things
        assert (seen.colour, seen.shape, seen.size) == (colour, "circle", "big")


def test_colours_lie_far_apart() -> None:
    everything = [*COLOURS.values(), (255, 255, 255)]
    assert min(np.linalg.norm(np.subtract(a, b)) / 255 for a, b in combinations(everything, 2)) > 0.7


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ink_of_a_shape_is_its_area(shape: str) -> None:
    for width in SIZES.values():
        mask = cover(shape, 16.3, 15.8, 32 * width, (32, 32))
        assert mask.sum() == pytest.approx(AREA[shape] * (32 * width) ** 2, rel=0.02)
        assert mask.min() >= 0
        assert mask.max() == 1


def test_things_do_not_touch_and_lie_whole_inside() -> None:
    for scene in scenes(2000, 2):
        for thing in scene.things:
            half = SIZES[thing.size] / 2
            assert min(thing.x, thing.y) - half >= 0.99 / 32
            assert max(thing.x, thing.y) + half <= 1 - 0.99 / 32
        for a, b in combinations(scene.things, 2):
            apart = max(abs(a.x - b.x), abs(a.y - b.y)) - (SIZES[a.size] + SIZES[b.size]) / 2
            assert apart >= 2 / 32


def test_what_is_no_shape_is_seen_without_one() -> None:
    bar = np.full((32, 32, 3), 255, np.uint8)
    bar[14:18, 6:26] = COLOURS["blue"]
    (seen,) = read(bar).things
    assert (seen.colour, seen.shape) == ("blue", None)
    standing = render(Scene((Thing("red", "triangle", "big", 0.5, 0.5),)), 32)
    assert read(standing[::-1]).things[0].shape is None
    assert read(standing).things[0].shape == "triangle"


def test_what_is_of_no_colour_is_seen_without_one() -> None:
    image = np.full((32, 32, 3), 255, np.uint8)
    image[10:18, 10:18] = (0, 130, 130)
    (seen,) = read(image).things
    assert (seen.colour, seen.shape, seen.size) == (None, "square", "small")


def test_specks_are_ignored_and_an_empty_image_holds_nothing() -> None:
    scene = Scene((Thing("black", "cross", "small", 0.3, 0.3),))
    image = render(scene, 32)
    image[25:27, 25:28] = 0
    assert same(scene, read(image), 32)
    assert read(np.full((32, 32, 3), 255, np.uint8)) == Scene(())


def test_shapes_of_two_colours_that_touch_are_two_but_a_rim_is_none() -> None:
    image = np.full((32, 32, 3), 255, np.uint8)
    image[8:16, 8:16], image[8:16, 16:24] = COLOURS["red"], COLOURS["blue"]
    assert sorted((t.colour, t.shape) for t in read(image).things) == [("blue", "square"), ("red", "square")]
    image = np.full((32, 32, 3), 255, np.uint8)
    image[8:21, 8:21] = COLOURS["purple"]
    image[9:20, 9:20] = COLOURS["blue"]
    (seen,) = read(image).things
    assert (seen.colour, seen.shape, seen.size) == ("blue", "square", "big")


def test_what_cannot_be_drawn_or_read_is_refused() -> None:
    with pytest.raises(BadValue, match=r"31x31 pixels; set data\.size to 32"):
        render(Scene(()), 31)
    with pytest.raises(BadValue, match="without shape"):
        render(Scene((Thing("red", None, "big", 0.5, 0.5),)), 32)
    for bad in (np.zeros((3, 32, 32), np.uint8), np.zeros((32, 32, 3)), np.zeros((32, 32), np.uint8)):
        with pytest.raises(ShapeMismatch, match="uint8 array"):
            read(bad)
