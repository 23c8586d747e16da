"""The bundle of a noise-aware CLIP, and the push that it gives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_model import TINY as NETWORK
from test_model import tiny
from torch import Tensor

from guidon.clip import Clip, ClipBundleConfig, told_to_clip
from guidon.conditioning import Context
from guidon.conditioning.tokenizer import train_tokenizer
from guidon.errors import BadValue, DamagedCheckpoint, GuidonWarning, MissingFile, ShapeMismatch
from guidon.model import Model
from guidon.models.clip import ClipConfig
from guidon.sampling import PerImageNoise

TINY = ClipConfig(
    size=8,
    patch=4,
    times=1000,
    vocabulary=300,
    context=8,
    features=5,
    image_layers=1,
    image_heads=2,
    text_layers=1,
    text_heads=2,
    head_channels=4,
)


def small(**changes: Any) -> Clip:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(["a red cat", "a blue dog"], size=280, context=8)
    clip = Clip(ClipBundleConfig(architecture=TINY, tokenizer=tokenizer.config, **changes), tokenizer)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.normal_(std=0.5)
    return clip.eval().requires_grad_(False)


def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def test_log_prob_is_the_scaled_cosine_of_the_features() -> None:
    clip, x = small(logit_scale=7.0), images()
    level = clip.process.level(torch.tensor([3.0, 500.0, 999.0]))
    texts = ["a red cat", "a blue dog", "a red cat"]
    seen = clip.image(x, torch.tensor([3.0, 500.0, 999.0]))
    said = clip.text(clip.tokenizer.encode(texts))
    want = 7 * torch.stack([a @ b / (a.norm() * b.norm()) for a, b in zip(seen, said, strict=True)])
    got = clip.log_prob(x, level, told_to_clip(clip, texts))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(clip.image_features(x, level).norm(dim=1), torch.ones(3))
    assert got.std() > 0.1


def test_its_gradient_is_that_of_finite_differences() -> None:
    clip = small(logit_scale=100.0).double()
    context, level = told_to_clip(clip, ["a red cat"] * 3), clip.process.level(250.5)
    x = images().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: clip.log_prob(y, level, context), x, atol=1e-3)


def test_a_process_of_another_scale_shows_the_same_state_and_its_own_clock() -> None:
    """The image encoder of a variance-exploding process is shown x / sqrt(1 + sigma^2)."""
    ve = small(process="edm")
    x, level = images(), ve.process.level_at(3.0)
    shown: list[tuple[Tensor, Tensor]] = []
    ve.image.forward = lambda x, time: shown.append((x, time)) or torch.zeros(3, 5)  # type: ignore[assignment, func-returns-value]
    ve.image_features(x, level)
    torch.testing.assert_close(shown[0][0], x / math.sqrt(10))
    assert shown[0][1].tolist() == [pytest.approx(250 * math.log(3))] * 3


def test_the_time_matters_and_a_batch_of_levels_is_each_its_own() -> None:
    clip, x = small(), images()[:1].expand(2, -1, -1, -1)
    context = told_to_clip(clip, ["a red cat", "a red cat"])
    levels = clip.process.level(torch.tensor([10.0, 900.0]))
    both = clip.log_prob(x, levels, context)
    assert (both[0] - both[1]).abs() > 0.1
    for i in range(2):
        alone = clip.log_prob(x[:1], clip.process.level([10.0, 900.0][i]), context.take([0]))
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-4)


def test_texts_are_encoded_once_and_an_image_without_one_is_refused() -> None:
    clip = small()
    rows: list[int] = []
    whole = clip.text.forward
    clip.text.forward = lambda texts: rows.append(len(texts)) or whole(texts)  # type: ignore[assignment, func-returns-value]
    told = told_to_clip(clip, ["a cat", "a dog", "a cat", "a cat"])
    assert rows == [2] and told.vector is not None and told.vector.shape == (4, 5)
    assert torch.equal(told.vector[0], told.vector[2]) and not torch.allclose(told.vector[0], told.vector[1])
    for nothing in (None, "", "  "):
        with pytest.raises(BadValue, match="towards no text"):
            told_to_clip(clip, ["a cat", nothing])


def test_it_leads_a_model_up_its_gradient() -> None:
    """One Euler step of a pushed score is w sigma^2 / alpha times the gradient, as for any classifier."""
    clip = small(process="cosine", logit_scale=10.0)
    model = tiny(shape=(3, 8, 8), architecture=_unconditional(), classes=None)
    context = told_to_clip(clip, ["a red cat", "a blue dog"])

    def mine(x: Tensor, level: Any, ids: Tensor) -> Tensor:
        return clip.log_prob(x, level, Context(vector=context.vector[ids]))  # type: ignore[index]

    settings: dict[str, Any] = {"classifier": mine, "solver": "euler", "steps": 1, "seed": 5}
    plain, pushed = (model.sample([0, 1], rule=f"classifier({w})", **settings) for w in (0, 2))
    level = model.process.level(model.process.t_max)
    x = PerImageNoise([5, 6], (3, 8, 8))().requires_grad_()
    clip.log_prob(x, level, context).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 1e-4
    torch.testing.assert_close(pushed.x - plain.x, 2 * level.sigma**2 / level.alpha * x.grad, rtol=1e-3, atol=1e-4)


def _unconditional() -> dict[str, Any]:
    return NETWORK | {"vector": None, "in_channels": 3, "out_channels": 3}


def test_it_survives_the_disk(tmp_path: Path) -> None:
    clip = small(logit_scale=3.0)
    clip.save_pretrained(tmp_path / "c")
    again = Clip.from_pretrained(tmp_path / "c")
    level, texts = clip.process.level(100.0), ["a red cat", "x", "a blue dog"]
    assert again.config == clip.config
    for judge in (clip, again):
        judge.found = judge.log_prob(images(), level, told_to_clip(judge, texts))  # type: ignore[assignment]
    assert torch.equal(clip.found, again.found)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    (tmp_path / "c" / "tokenizer.json").unlink()
    with pytest.raises(MissingFile, match=r"tokenizer\.json"):
        Clip.from_pretrained(tmp_path / "c")


def test_what_is_no_clip(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "m")
    with pytest.raises(BadValue, match="no CLIP of noisy images"):
        Clip.from_pretrained(tmp_path / "m")
    small().save_pretrained(tmp_path / "c")
    config = tmp_path / "c" / "config.json"
    config.write_text(config.read_text().replace('"logit_scale": 100.0', '"logit_scale": -1'))
    with pytest.raises(DamagedCheckpoint, match="logit_scale"):
        Clip.from_pretrained(tmp_path / "c")


def test_a_tokenizer_of_more_tokens_or_longer_rows_is_refused() -> None:
    for size, context in ((301, 8), (280, 9)):
        tokenizer = train_tokenizer([f"{i:b} {i}" for i in range(200)], size=size, context=context)
        with pytest.raises(BadValue, match="the one that it was trained with"):
            Clip(ClipBundleConfig(architecture=TINY, tokenizer=tokenizer.config), tokenizer)


def test_a_clip_without_a_tokenizer_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="saved with its tokenizer"):
        Clip(small().config).save_pretrained(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def told_nothing(clip: Clip, **changes: Any) -> Model:
    architecture = NETWORK | {"vector": None, "in_channels": 3, "out_channels": 3}
    same = {"shape": (3, 8, 8), "process": clip.config.process, "output": "eps", "classes": None}
    return tiny(**same | {"architecture": architecture} | changes)


def test_it_leads_a_model_that_is_told_nothing_towards_a_text() -> None:
    """With the push the images agree more with the text than without; the pull to another text gives other images."""
    clip = small(logit_scale=3.0)
    free = told_nothing(clip)
    ask = {"n": 2, "steps": 8, "solver": "ddim", "grid": "leading", "seed": 0, "classifier": clip}
    end = clip.process.level(0.0)

    def agreement(x: Tensor, text: str) -> Tensor:
        return clip.log_prob(x, end, told_to_clip(clip, [text] * len(x)))

    plain = free.sample("a red cat", rule="classifier(0)", **ask)
    led = free.sample("a red cat", rule="classifier(10)", **ask)
    other = free.sample("a blue dog", rule="classifier(10)", **ask)
    assert (agreement(led.x, "a red cat") > agreement(plain.x, "a red cat") + 1e-3).all()
    assert (led.x - other.x).abs().max() > 0.01
    with pytest.warns(GuidonWarning) as found:  # by the CLIP, which alone reads it
        free.sample("a red cat " * 5, rule="classifier(10)", **ask | {"steps": 1})
    assert [str(one.message).split(" and ")[0] for one in found] == ["1 of 1 texts are longer than 7 tokens"]
    assert led.labels == (None, None) and led.record["labels"] == ["a red cat"] * 2
    assert led.record["classifier"] == {"name": "unnamed", "calibrated": False}


def test_a_clip_of_other_images_or_of_no_text_is_refused() -> None:
    clip = small()
    free = told_nothing(clip)
    with pytest.raises(BadValue, match="guide towards nothing"):
        free.sample(None, rule="classifier(1)", classifier=clip)
    wide = told_nothing(clip, shape=(3, 16, 16))
    with pytest.raises(ShapeMismatch, match="the same size"):
        wide.sample("a red cat", rule="classifier(1)", classifier=clip)
