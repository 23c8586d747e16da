"""Random crops, and images that are kept from training."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from training.tiny_classifier import tiny_classifier_recipe

from guidon.errors import BadRecipe, BadValue, NotSupported
from guidon.training.batches import TrainingData
from guidon.training.crops import moved
from guidon.training.data import DataConfig, LazyData, open_data
from guidon.training.holdout import MOST, hold_out

COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty images 4x4, each of one grey that no other has; its class is the tens of its number."""
    root = tmp_path_factory.mktemp("greys")
    for i in range(COUNT):
        (root / f"{i // 10}").mkdir(exist_ok=True)
        Image.new("L", (4, 4), 5 * i).save(root / f"{i // 10}" / f"{i:02}.png")
    return root


def numbers(images: torch.Tensor) -> list[int]:
    """Return which of the forty the images (B, 1, 4, 4) are."""
    return [round(float(value)) for value in (images[:, 0, 0, 0] + 1) * 127.5 / 5]


def opened(folder, kind: str, **more) -> TrainingData:
    return open_data(DataConfig(source=str(folder), streaming=kind == "lazy", **more), seed=3)


@given(st.integers(2, 9), st.integers(2, 9), st.data())
def test_moving_an_image_crops_its_reflected_padding(height, width, data):
    down, right = data.draw(st.integers(1 - height, height - 1)), data.draw(st.integers(1 - width, width - 1))
    pixels = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    got = moved(pixels, torch.tensor([[down, right], [0, 0]]))
    pad = max(height, width) - 1
    rows, columns = min(pad, height - 1), min(pad, width - 1)
    padded = F.pad(pixels[:1].double(), (columns, columns, rows, rows), mode="reflect")
    expected = padded[0, :, rows - down : rows - down + height, columns - right : columns - right + width]
    assert torch.equal(got[0].double(), expected)
    assert torch.equal(got[1], pixels[1])


def test_crops_move_by_at_most_the_padding_and_by_every_way_there_is():
    plain, cropped = (open_data(DataConfig(source="digits", limit=64, crop=crop), seed=1) for crop in (0, 2))
    ways = torch.tensor([(down, right) for down in range(-2, 3) for right in range(-2, 3)])
    seen = set()
    for one, other in islice(zip(plain.batches(32), cropped.batches(32), strict=True), 20):
        assert torch.equal(one.labels, other.labels)
        candidates = torch.stack([moved(one.images, way.expand(32, 2)) for way in ways])  # (25, B, C, H, W)
        same = (candidates == other.images).flatten(2).all(2)  # (25, B)
        assert same.any(0).all()
        seen |= {int(column.nonzero()[0]) for column in same.T if column.sum() == 1}
    assert len(seen) == len(ways)


def test_crops_are_a_function_of_seed_and_step():
    def batches(seed: int, start: int = 0, rank: int = 0, world: int = 1) -> list[torch.Tensor]:
        data = open_data(DataConfig(source="digits", limit=16, crop=1), seed=seed)
        return [batch.images for batch in islice(data.batches(16, start, rank, world), 6 - start)]

    whole = batches(0)
    for start in range(6):
        assert all(torch.equal(a, b) for a, b in zip(whole[start:], batches(0, start), strict=True))
    parts = [batches(0, rank=rank, world=2) for rank in range(2)]
    assert all(torch.equal(torch.cat([a, b]), c) for a, b, c in zip(*parts, whole, strict=True))
    assert not any(torch.equal(a.sort(0)[0], b.sort(0)[0]) for a, b in zip(whole, batches(1), strict=True))


def test_a_crop_as_large_as_the_image_is_refused():
    with pytest.raises(BadValue, match=r"data\.crop 8 moves images of 8x8 out of sight"):
        open_data(DataConfig(source="digits", crop=8))


@pytest.mark.parametrize("kind", ["memory", "lazy"])
def test_held_out_images_are_never_trained_on_and_all_others_are(folder, kind):
    data = hold_out(opened(folder, kind, flip=True), 0.2, seed=5)
    assert isinstance(data, LazyData) == (kind == "lazy")
    held, trained = numbers(data.held_out.images), set()
    for batch in islice(data.batches(8), 12):  # three epochs of what is left
        trained |= set(numbers(batch.images))
        assert batch.labels.tolist() == [number // 10 for number in numbers(batch.images)]
    assert len(held) == 8
    assert sorted(held + list(trained)) == list(range(COUNT))
    assert data.held_out.labels.tolist() == [number // 10 for number in held]


def test_what_is_held_out_is_decided_by_the_seed_and_no_other_than_the_order_changes(folder):
    def held(kind: str, seed: int) -> list[int]:
        return numbers(hold_out(opened(folder, kind), 0.2, seed=seed).held_out.images)

    assert held("memory", 5) == held("lazy", 5)
    assert held("memory", 5) != held("memory", 6)


def test_a_damaged_image_is_left_out_of_those_held_out(folder, tmp_path):
    for i in range(COUNT):
        path = folder / f"{i // 10}" / f"{i:02}.png"
        (tmp_path / f"{i // 10}").mkdir(exist_ok=True)
        (tmp_path / f"{i // 10}" / f"{i:02}.png").write_bytes(
            path.read_bytes()[:20] if i % 4 == 1 else path.read_bytes()
        )
    data = hold_out(opened(tmp_path, "lazy"), 0.5, seed=5)
    held = numbers(data.held_out.images)
    assert data.held_out.labels.tolist() == [number // 10 for number in held]
    assert not any(number % 4 == 1 for number in held)
    whole = numbers(hold_out(opened(folder, "lazy"), 0.5, seed=5).held_out.images)
    assert held == [number for number in whole if number % 4 != 1]


def test_at_most_so_many_are_held_out(monkeypatch, folder):
    monkeypatch.setattr("guidon.training.holdout.MOST", 3)
    assert len(hold_out(opened(folder, "memory"), 0.5, seed=0).held_out) == 3
    assert MOST >= 1000


def test_nothing_to_measure_on_or_to_train_on_is_refused(folder):
    with pytest.raises(BadRecipe, match=r"data\.hold_out 0\.01 of 40 images is 0"):
        hold_out(opened(folder, "memory"), 0.01, seed=0)
    with pytest.raises(BadRecipe, match=r"data\.hold_out 0\.99 of 40 images is 40"):
        hold_out(opened(folder, "memory"), 0.99, seed=0)


def test_a_stream_cannot_hold_out(tmp_path):
    class Stream(TrainingData):
        def _batches(self, batch_size, start_step, part):
            raise AssertionError

    stream = Stream(shape=(1, 8, 8), classes=["a"], size=None, skipped=None, seed=0, flip=False)
    with pytest.raises(NotSupported, match=r"stream.*leave data\.streaming out"):
        hold_out(stream, 0.5, seed=0)


def test_a_recipe_opens_its_data_without_those_held_out():
    recipe = tiny_classifier_recipe(data={"crop": 1})
    data = recipe.open()
    assert (data.size, len(data.held_out), data.crop, data.classes) == (180, 20, 1, list("0123456789"))
