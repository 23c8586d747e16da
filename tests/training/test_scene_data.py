"""Scenes to train on are a function of seed and step, split over processes without a trace, and captioned truly."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from guidon.errors import BadRecipe
from guidon.scenes.check import check
from guidon.scenes.read import read
from guidon.training.batches import Batch
from guidon.training.scene_data import SceneData


def some(count: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> list[Batch]:
    return list(islice(SceneData(32, seed=seed).batches(12, start, rank, world), count))


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.images, b.images) and a.captions == b.captions


def test_batches_hold_images_and_what_is_true_of_them() -> None:
    data = SceneData(64, seed=1)
    assert (data.shape, data.classes, data.size) == ((3, 64, 64), None, None)
    batch = next(data.batches(40))
    assert batch.images.shape == (40, 3, 64, 64)
    assert (batch.images.min(), batch.images.max()) == (-1, 1)
    assert batch.labels is None
    assert batch.captions is not None
    for image, caption in zip(batch.images, batch.captions, strict=True):
        pixels = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert check(caption, read(pixels)).all


def test_a_step_depends_on_the_seed_and_its_number_alone() -> None:
    whole = some(4)
    assert all(map(same, whole[2:], some(2, start=2)))
    assert not any(map(same, whole, some(4, seed=1)))
    assert not same(whole[0], whole[1])


def test_the_parts_of_all_processes_are_the_batch_of_one() -> None:
    for whole, *parts in zip(some(2), *(some(2, rank=r, world=3) for r in range(3)), strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert [caption for part in parts for caption in part.captions or []] == whole.captions


def test_the_language_is_that_of_the_first_scenes_and_nothing_is_painted_to_learn_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = [text for batch in islice(SceneData(32, seed=3).batches(256), 2) for text in batch.captions or []]
    monkeypatch.setattr("guidon.training.scene_data.render", None)
    found = list(SceneData(32, seed=3).wordings())
    assert len(found) == 79 * 256, "20,000 and the rest of a batch"
    assert found[:512] == wanted


def test_what_is_held_out_is_not_what_is_trained_on() -> None:
    held = SceneData(32, seed=0, held_out=12).held_out
    assert held is not None
    assert len(held) == len(held.captions or []) == 12
    assert not any(same(held, batch) for batch in some(3))
    assert same(held, SceneData(32, seed=0, held_out=12).held_out)  # type: ignore[arg-type]


def test_small_images_are_refused() -> None:
    with pytest.raises(BadRecipe, match=r"data\.size 16 is too small"):
        SceneData(16)


def test_shapes_have_three_channels_and_may_be_said_to() -> None:
    from pydantic import ValidationError

    from guidon.training.sources import DataConfig

    assert DataConfig(source="shapes", channels=3, size=32).channels == 3
    with pytest.raises(ValidationError, match="channels cannot be set"):
        DataConfig(source="shapes", channels=1)
