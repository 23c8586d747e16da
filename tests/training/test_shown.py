"""What models that enlarge or complete are shown while they learn is what they are shown when they are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import pictures
from training.tiny_finetune import ARCHITECTURE, tiny_finetune

from guidon.conditioning import Context
from guidon.conditioning.images import beside_noise, enlarged
from guidon.model import Model
from guidon.model_config import ModelConfig
from guidon.training.batches import random_for
from guidon.training.loop import train
from guidon.training.shown import ALL, NONE, ShownDraw, random_masks, small_of
from guidon.training.validate import read_validation

BARE = ARCHITECTURE | {"vector": None, "tokens": None, "in_channels": 1, "out_channels": 1}
KINDS: dict[str, dict[str, Any]] = {
    "enlarges": {"low_res": (4, 4), "spatial_channels": 1},
    "completes": {"inpaint": True, "spatial_channels": 2},
    "both": {"low_res": (4, 4), "inpaint": True, "spatial_channels": 3},
}


def base(kind: str, root: Path) -> Path:
    fields = dict(KINDS[kind])
    architecture = BARE | {"spatial_channels": fields.pop("spatial_channels")}
    torch.manual_seed(0)
    Model(ModelConfig(shape=(1, 8, 8), architecture=architecture, classes=None, **fields)).save_pretrained(root / kind)
    return root / kind


@pytest.mark.parametrize("kind", KINDS)
def test_training_tells_the_network_what_sampling_does(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_finetune(base(kind, tmp_path), pictures.parquet(tmp_path / "data", 20), blur=0)
    model = recipe.build((1, 8, 8), None)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    heard: list[Context] = []
    raw = type(model.denoiser).raw
    monkeypatch.setattr(
        type(model.denoiser),
        "raw",
        lambda self, x, level, context, *rest: heard.append(context) or raw(self, x, level, context, *rest),
    )
    draw = recipe.draw(model, images.shape, step=3, device=torch.device("cpu"))
    assert isinstance(draw, ShownDraw)
    recipe.loss(model)(images, None, draw)
    sampled = beside_noise(
        (1, 8, 8),
        6,
        low_res=model.low_res,
        completes=model.config.inpaint,
        image=None if model.low_res is None else small_of(images, model.low_res),
        inpaint=images if draw.known is not None else None,
        repaint=1 - draw.known if draw.known is not None else None,
    )
    torch.testing.assert_close(heard[0].spatial, sampled, atol=1e-6, rtol=0)
    halves = [draw.take(slice(0, 2)), draw.take(slice(2, 6))]
    recipe.loss(model)(images[:2], None, halves[0]), recipe.loss(model)(images[2:], None, halves[1])
    parts = torch.cat([context.spatial for context in heard[1:] if context.spatial is not None])
    torch.testing.assert_close(parts, heard[0].spatial, atol=1e-6, rtol=0)


def test_a_random_half_of_the_small_copies_is_blurred(tmp_path: Path) -> None:
    recipe = tiny_finetune(base("enlarges", tmp_path), pictures.parquet(tmp_path / "data", 20), blur=0.7)
    model, images = recipe.build((1, 8, 8), None), torch.randn(400, 1, 8, 8).clamp(-1, 1)
    draw = recipe.draw(model, images.shape, step=3, device=torch.device("cpu"))
    assert isinstance(draw, ShownDraw) and draw.blurred is not None
    assert 160 < int(draw.blurred.sum()) < 240
    told = recipe.loss(model).context(images, None, draw).spatial
    assert told is not None
    for blurred in (True, False):
        rows = draw.blurred == blurred
        small = small_of(images[rows], (4, 4), torch.full((int(rows.sum()),), blurred), 0.7)
        torch.testing.assert_close(told[rows], enlarged(small, (8, 8), len(small)), atol=1e-6, rtol=0)
        sharp = enlarged(small_of(images[rows], (4, 4)), (8, 8), len(small))
        assert torch.equal(told[rows], sharp) is not blurred


@pytest.mark.parametrize("kind", KINDS)
def test_they_learn_are_measured_and_are_sampled_on_their_way(kind: str, tmp_path: Path) -> None:
    recipe = tiny_finetune(
        base(kind, tmp_path),
        pictures.parquet(tmp_path / "data", 40),
        steps=60,
        lr=5e-3,
        validate_every=None,
        sample_every=60,
    )
    train(recipe, tmp_path / "run", progress=False)
    before, after = (entry.loss for entry in read_validation(tmp_path / "run"))
    assert after < 0.9 * before
    assert (tmp_path / "run/samples/step-0000060.png").is_file()


def test_masks_are_rectangles_all_or_none() -> None:
    masks = random_masks(4000, (16, 24), random_for("test", 0))
    assert masks.shape == (4000, 1, 16, 24)
    assert set(masks.unique().tolist()) == {0, 1}
    shares = masks.flatten(1).mean(1)
    assert abs(float((shares == 0).float().mean()) - ALL) < 0.03
    assert abs(float((shares == 1).float().mean()) - NONE) < 0.03
    part = (shares > 0) & (shares < 1)
    assert 0.4 < shares[part].mean() < 0.8
    often = masks[part].mean(0)[0]
    assert often.min() > 0.1 and often.max() < 0.9, "every place is erased now and then, and shown"
    one = next(mask[0] for mask, share in zip(masks, shares, strict=True) if 0.9 < share < 0.98)
    rows, columns = (1 - one).nonzero().T
    assert (1 - one)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].numel() >= (1 - one).sum()
    assert torch.equal(masks, random_masks(4000, (16, 24), random_for("test", 0)))


def test_small_copies_are_means_of_areas_in_eight_bits() -> None:
    images = torch.rand(3, 2, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    means = images.unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    small = small_of(images, (2, 3))
    torch.testing.assert_close(small, means, atol=1 / 255 + 1e-6, rtol=0)
    levels = (small + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_blur_is_gaussian_and_only_for_those_chosen() -> None:
    point = torch.full((2, 1, 15, 15), -1.0)
    point[..., 7, 7] = 1.0
    blurred = small_of(point, (15, 15), torch.tensor([True, False]), 0.8)
    assert torch.equal(blurred[1], point[1])
    seen = (blurred[0, 0] + 1) / 2
    places = np.arange(15) - 7
    line = np.exp(-(places**2) / (2 * 0.8**2)) * (abs(places) <= 2)
    line /= line.sum()
    np.testing.assert_allclose(seen, np.outer(line, line), atol=1 / 255 + 1e-6)
    even = torch.full((1, 1, 6, 6), 1 / 255)
    torch.testing.assert_close(small_of(even, (6, 6), torch.tensor([True]), 0.8), even, atol=1e-6, rtol=0)
