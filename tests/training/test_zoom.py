"""Random resized crops show parts of at least the share that was asked for, sharp, the same ones for the same seed and step."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from guidon.errors import BadRecipe
from guidon.training.crops import resized
from guidon.training.data import DataConfig, TrainingData, open_data
from guidon.training.holdout import open_divided

SIDE = 32


@pytest.fixture
def ramps(tmp_path: Path) -> Path:
    """Images of which every pixel tells its place: red grows to the right, green downwards."""
    across = np.broadcast_to(np.linspace(0, 255, 128)[None, :], (128, 128))
    picture = np.stack([across, across.T, np.zeros((128, 128))], axis=2).round().astype(np.uint8)
    for i in range(12):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    return tmp_path


def opened(source: Path, zoom: float = 0.5, *, seed: int = 0, **fields: Any) -> TrainingData:
    return open_data(DataConfig(source=str(source), size=SIDE, zoom=zoom, **fields), seed=seed)


def spans(data: TrainingData, steps: int = 60) -> torch.Tensor:
    """Return what part of the width and of the height every image shows (N, 2), and where the middle of it is (N, 2)."""
    images = torch.cat([batch.images for batch in islice(data.batches(12), steps)])
    assert images.shape[1:] == (3, SIDE, SIDE)
    seen = (images + 1) / 2
    inner = seen[:, :, 8:24, 8:24]  # of the ends the resizing sees less
    width = (inner[:, 0, :, -1] - inner[:, 0, :, 0]).mean(1) * SIDE / 15
    height = (inner[:, 1, -1] - inner[:, 1, 0]).mean(1) * SIDE / 15
    return torch.stack([width, height, inner[:, 0].mean((1, 2)), inner[:, 1].mean((1, 2))], dim=1)


def test_areas_are_even_between_the_share_and_all_and_lie_anywhere(ramps: Path) -> None:
    found = spans(opened(ramps))
    width, height, across, down = found.unbind(1)
    torch.testing.assert_close(width, height, atol=0.03, rtol=0)
    area = width * height
    assert 0.46 < area.min() < 0.55 and 0.95 < area.max() < 1.05
    assert abs(float(area.mean()) - 0.75) < 0.02
    for middle in (across, down):
        assert middle.min() < 0.4 and middle.max() > 0.6
        assert abs(float(middle.mean()) - 0.5) < 0.01


def test_a_share_of_one_is_all_of_the_middle(ramps: Path) -> None:
    plain = open_data(DataConfig(source=str(ramps), size=SIDE))
    batch, other = next(plain.batches(12)), next(opened(ramps, 1.0).batches(12))
    assert torch.equal(batch.images, other.images)
    assert torch.unique(batch.images, dim=0).shape[0] == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_shown_depends_on_seed_and_step_alone(streaming: bool, ramps: Path) -> None:
    def batches(seed: int = 0, **where: int) -> list[torch.Tensor]:
        return [
            batch.images
            for batch in islice(opened(ramps, seed=seed, streaming=streaming, flip=True).batches(8, **where), 6)
        ]

    whole = batches()
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], batches(start_step=2)[:4], strict=True))
    parts = [batches(rank=rank, world=2) for rank in range(2)]
    assert all(torch.equal(whole[i], torch.cat([part[i] for part in parts])) for i in range(6))
    assert not torch.equal(whole[0], batches(seed=1)[0])


def test_no_part_is_enlarged_and_fine_stripes_become_even_grey() -> None:
    stripes = torch.zeros(1, 1, 46, 46, dtype=torch.uint8)
    stripes[..., ::2] = 255
    chance = torch.tensor([[0.0, 0.3, 0.7], [1 - 1e-9, 0.5, 0.5]])
    smallest, largest = resized(stripes.expand(2, -1, -1, -1), 32, chance)
    assert smallest.unique().tolist() == [0, 255], "the smallest square is shown pixel by pixel"
    assert torch.equal(largest, resized(stripes, 32)[0])
    assert largest[:, 2:-2, 2:-2].float().std() < 60


def test_images_held_out_are_shown_whole(ramps: Path) -> None:
    data = open_divided(DataConfig(source=str(ramps), size=SIDE, zoom=0.5, hold_out=0.25), seed=0)
    plain = open_divided(DataConfig(source=str(ramps), size=SIDE, hold_out=0.25), seed=0)
    assert data.held_out is not None and plain.held_out is not None
    assert data.held_out.images.shape == (3, 3, SIDE, SIDE)
    torch.testing.assert_close(data.held_out.images, plain.held_out.images, atol=0.03, rtol=0)


def test_a_size_is_needed(ramps: Path) -> None:
    with pytest.raises(BadRecipe, match=r"data\.size"):
        open_data(DataConfig(source=str(ramps), zoom=0.5))
