"""Two models in a row: the second is shown what a file would hold, told the same, and both are in the record."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support.text_models import text_model, vocabulary

from guidon.cascade import OTHER_STREAM, as_shown, cascade
from guidon.errors import BadValue, GuidonWarning, ShapeMismatch
from guidon.model import Model, ModelConfig

PROMPTS = ["a red circle", "two green triangles"]
LARGE = {"shape": (1, 16, 16), "low_res": (8, 8), "architecture": {"spatial_channels": 1}}


@pytest.fixture(scope="module")
def base() -> Model:
    model = text_model("cross")
    model.name = "base"
    return model


@pytest.fixture(scope="module")
def upsampler() -> Model:
    model = text_model("append", seed=1, sample={"rule": "cfg(1.5)", "steps": 3, "temperature": 0.9}, **LARGE)
    model.name = "large"
    return model


def plain(classes: tuple[str, ...] | None, **changes: Any) -> Model:
    """Return a model of classes, or of nothing."""
    torch.manual_seed(2)
    architecture = {"in_channels": 1, "out_channels": 1, "model_channels": 16, "channel_mult": (1, 2), "attention": ()}
    architecture |= {"num_res_blocks": 1, "vector": "embedding" if classes else None} | changes.pop("architecture", {})
    model = Model(ModelConfig(**{"shape": (1, 8, 8), "architecture": architecture, "classes": classes} | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15)
    return model.eval()


def test_it_is_the_two_of_them_by_hand_with_files_in_between(base: Model, upsampler: Model) -> None:
    asked: dict[str, Any] = {"rule": "negative(3)", "negative": "no red", "steps": 2, "solver": "ddim(eta=1)"}
    both = cascade(base, upsampler, PROMPTS, n=2, seed=7, **asked)
    small = base.sample(PROMPTS, n=2, seed=7, **asked)
    told = [prompt for prompt in PROMPTS for _ in range(2)]
    seeds = [seed ^ OTHER_STREAM for seed in (7, 8, 9, 10)]
    large = upsampler.sample(told, seed=seeds, image=small.pil())
    assert torch.equal(both.x, large.x) and both.seeds == small.seeds == tuple(both.record["seeds"])
    assert (upsampler.sample(told, seed=seeds, image=small.x).x - large.x).abs().max() > 1e-6
    assert both.nfe == small.nfe + large.nfe == 4 + 6
    assert both.forwards == small.forwards + large.forwards


def test_the_second_does_not_start_from_the_noise_of_the_first() -> None:
    starts: dict[str, torch.Tensor] = {}
    config: dict[str, Any] = {"steps": 1, "solver": "ddim", "rule": 1.0}

    def watched(name: str, model: Model) -> Model:
        model.network.register_forward_pre_hook(lambda _, given: starts.update({name: given[0]}))
        return model

    same = {"shape": (1, 8, 8), "low_res": (8, 8), "architecture": {"spatial_channels": 1}}
    cascade(
        watched("first", plain(None)), watched("second", plain(None, **same)), n=3, upsampler_settings=config, **config
    )
    first, second = (starts[name][:, 0].flatten() for name in ("first", "second"))
    assert torch.corrcoef(torch.stack([first, second]))[0, 1].abs() < 0.25  # of 192 values: three deviations and more


def test_images_in_between_are_what_files_hold() -> None:
    x = torch.tensor([-1.2, -1.0, -0.9999, 0.0, 0.5, 1.0, 1.7])
    assert as_shown(x).tolist() == (torch.tensor([0.0, 0, 0, 128, 191, 255, 255]) / 127.5 - 1).tolist()


def test_the_record_says_both_and_makes_the_same_images(base: Model, upsampler: Model) -> None:
    more = {"rule": "cfg(1)", "steps": 2}
    first = cascade(base, upsampler, PROMPTS, rule="cfg(2)", steps=2, seed=3, upsampler_settings=more)
    record = json.loads(json.dumps(first.record))
    assert (record["model"], record["size"], record["labels"], record["nfe"]) == ("base", [16, 16], PROMPTS, 4 + 2)
    second = record["upsampler"]
    assert second == {
        "model": "large",
        "rule": "cfg(1)",
        "solver": "dpmpp-2m",
        "grid": "karras",
        "steps": 2,
        "temperature": 0.9,
        "nfe": 2,
        "low_res": [8, 8],
    }
    names = ("rule", "solver", "grid", "steps", "temperature")
    again = cascade(
        base,
        upsampler,
        record["labels"],
        seed=record["seeds"],
        upsampler_settings={name: second[name] for name in names},
        **{name: record[name] for name in names},
    )
    assert torch.equal(again.x, first.x)


def test_tokens_are_told_to_both(base: Model, upsampler: Model) -> None:
    asked: dict[str, Any] = {"n": 2, "rule": "cfg(2)", "steps": 2}
    by_tokens = cascade(base, upsampler, vocabulary().encode(PROMPTS), **asked)
    assert torch.equal(by_tokens.x, cascade(base, upsampler, PROMPTS, **asked).x)


def test_a_text_that_both_cut_is_told_once(base: Model, upsampler: Model) -> None:
    with pytest.warns(GuidonWarning) as found:
        cascade(base, upsampler, ["a red circle " * 5, "two"], rule="cfg(2)", steps=1)
    assert [str(one.message).split(" and ")[0] for one in found] == ["1 of 2 texts are longer than 9 tokens"]


def test_how_to_compute_is_said_once_for_both(base: Model, upsampler: Model) -> None:
    told: list[tuple[int, int]] = []
    asked: dict[str, Any] = {"rule": "cfg(2)", "steps": 2}
    together = cascade(base, upsampler, PROMPTS, on_step=lambda done, steps, x: told.append((done, steps)), **asked)
    assert told == [(1, 2), (2, 2), (1, 3), (2, 3), (3, 3)]
    apart = cascade(base, upsampler, PROMPTS, batching="sequential", max_batch=1, **asked)
    assert together.forwards == 2 + 3 and apart.forwards == 2 * (4 + 6)
    torch.testing.assert_close(apart.x, together.x, rtol=0, atol=1e-4 * together.x.abs().max().item())


@pytest.mark.parametrize("classes", [("cat", "dog"), None])
def test_models_of_classes_and_of_nothing_go_together_too(classes: tuple[str, ...] | None) -> None:
    base, upsampler = plain(classes), plain(classes, **LARGE)
    both = cascade(base, upsampler, n=2, seed=5, steps=2)
    count = 2
    small = base.sample(n=2, seed=5, steps=2)
    told = [0, 1] if classes else None
    seeds = [5 ^ OTHER_STREAM, 6 ^ OTHER_STREAM]
    large = upsampler.sample(told, n=None if classes else count, seed=seeds, image=small.pil())
    assert torch.equal(both.x, large.x) and both.labels == small.labels
    blind = plain(None, **LARGE)
    assert torch.equal(cascade(base, blind, n=2, seed=5, steps=2).x, blind.sample(n=2, seed=seeds, image=small.pil()).x)


def test_two_that_do_not_go_together_are_refused_before_the_first_step(base: Model, upsampler: Model) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a step was made")

    with pytest.raises(BadValue, match="base enlarges no images"):
        cascade(upsampler, base, PROMPTS, on_step=never)
    wide = text_model("cross", shape=(1, 16, 16))
    with pytest.raises(ShapeMismatch, match=r"enlarges images of 8x8 with 1 channels, and unnamed makes 16x16"):
        cascade(wide, upsampler, PROMPTS, on_step=never)
    grey = text_model("cross", channels=3)
    with pytest.raises(ShapeMismatch, match=r"with 1 channels, .* with 3;"):
        cascade(grey, upsampler, PROMPTS, on_step=never)
