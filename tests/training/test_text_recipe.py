"""Recipes of models that are told texts: what is learned, what stays, and a run that was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from support.encoders import tiny_clip, tiny_t5

import guidon
from guidon.app.recipes import bundled_recipes
from guidon.errors import BadRecipe, BadValue, GuidonWarning, MissingFile
from guidon.models.frozen_text import FrozenText, opened
from guidon.models.text import TextTransformer
from guidon.training.loop import train
from guidon.training.recipe import Recipe, load_recipe, read_recipe

COLOURS = ["red", "green", "blue", "white"]
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "cross": ("unet", {"tokens": "cross", "vector": "embedding"}),
    "append": ("unet", {"tokens": "append", "vector": None}),
    "dit": ("dit", {"width": 16, "depth": 2, "heads": 2, "tokens": "cross"}),
}
UNET = {"model_channels": 8, "channel_mult": [1, 2], "num_res_blocks": 1, "attention": [2], "heads": 1, "dropout": 0.1}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pictures of one colour each, with it in words beside, and text encoders."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "data").mkdir()
    for i, colour in enumerate(COLOURS * 2):
        Image.new("RGB", (8, 8), colour).save(folder / "data" / f"{i}.png")
        (folder / "data" / f"{i}.txt").write_text(f"a {colour} square\n{colour}")
    found = {"data": folder / "data", "clip": tiny_clip(folder / "clip", 16), "t5": tiny_t5(folder / "t5")}
    return {name: str(path) for name, path in found.items()}


def recipe(places: dict[str, str], network: str = "cross", encoder: str = "transformer", **train_: Any) -> Recipe:
    kind, architecture = NETWORKS[network]
    architecture = (UNET if kind == "unet" else {}) | architecture | {"token_width": 12}
    frozen = {"kind": "frozen", "source": places.get(encoder, "")}
    told = {"width": 16, "layers": 1, "heads": 2} if encoder == "transformer" else frozen
    settings = {
        "steps": 4,
        "batch_size": 8,
        "warmup": 1,
        "threads": 1,
        "trackers": [],
        "sample_every": None,
        "lr": 3e-3,
    }
    text = {"vocabulary": 270, "context": 16, "encoder": told}
    model = {"network": kind, "architecture": architecture, "text": text}
    data = {"source": places["data"], "size": 8}
    return read_recipe({"data": data, "model": model, "train": settings | train_, "sample": {"steps": 3}})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("encoder", ["transformer", "clip", "t5"])
def test_a_stopped_run_goes_on_as_if_it_had_not(
    places: dict[str, str], network: str, encoder: str, tmp_path: Path
) -> None:
    def stop(step: Any) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    made = recipe(places, network, encoder, checkpoint_every=1)
    train(made, tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "stopped", progress=False, on_step=stop)
    opened.cache_clear()  # as in a new process
    train(made, tmp_path / "stopped", progress=False, resume=True)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    state = load_file(tmp_path / "whole" / "checkpoint" / "state.safetensors")
    assert not [name for name in state if "text_model" in name or "shared" in name], "nothing of the frozen encoder"
    model = guidon.load(tmp_path / "whole" / "model")
    assert isinstance(model.encoder, TextTransformer if encoder == "transformer" else FrozenText)
    assert model.config.training["parameters"] == sum(value.numel() for value in one.values())


@pytest.mark.parametrize("encoder", ["transformer", "clip"])
def test_what_is_said_is_learned(places: dict[str, str], encoder: str, tmp_path: Path) -> None:
    """After two hundred steps four colours are told apart by their names."""
    made = recipe(places, "dit", encoder, steps=200, lr=5e-3, average="half-life(200)")
    model = train(made, tmp_path / "run", progress=False)
    samples = model.sample(COLOURS, rule="cfg(1.5)", steps=8, grid="trailing", solver="ddim").x.mean((2, 3))
    wanted = torch.tensor([[1.0, -1, -1], [-1, 0.0, -1], [-1, -1, 1], [1, 1, 1]])
    assert torch.cdist(samples, wanted).argmin(1).tolist() == [0, 1, 2, 3]


def test_sheets_of_the_same_prompts_are_drawn(places: dict[str, str], tmp_path: Path) -> None:
    made = recipe(places, steps=2, sample_every=1, sample_weights=[1, 2], sample_prompts=["a red square", "blue"])
    train(made, tmp_path / "run", progress=False)
    pictures = sorted((tmp_path / "run" / "samples").iterdir())
    assert [path.name for path in pictures] == ["step-0000001.png", "step-0000002.png"]
    assert Image.open(pictures[0]).size[0] == 56 + 2 * 98
    train(recipe(places, steps=1, sample_every=1), tmp_path / "all", progress=False)
    assert Image.open(tmp_path / "all" / "samples" / "step-0000001.png").size[0] == 56 + 8 * 98, (
        "every caption of the data"
    )


def test_prompts_and_what_is_held_out_are_counted_where_texts_are_too_long_but_teach_no_words(
    places: dict[str, str],
) -> None:
    made = recipe(places, sample_prompts=["a zebra " * 20])
    with pytest.warns(GuidonWarning, match="2 of 3 texts are longer than 15 tokens"):
        model = made.build((3, 8, 8), None, lambda: ["a red square"], ["an okapi " * 20])
    plain = recipe(places).build((3, 8, 8), None, lambda: ["a red square"])
    assert model.tokenizer is not None and plain.tokenizer is not None
    assert model.tokenizer.to_json() == plain.tokenizer.to_json()


def test_a_recipe_says_its_encoder_or_takes_the_usual_one(places: dict[str, str]) -> None:
    for encoder in ("transformer", "clip"):
        made = recipe(places, encoder=encoder)
        again = read_recipe(yaml.safe_load(yaml.safe_dump(json.loads(made.model_dump_json()))))
        assert again == made
    plain = recipe(places).model_dump()
    plain["model"]["text"] = {}
    assert read_recipe(plain).model.text.encoder.kind == "transformer"


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ({"kind": "frozn"}, "model.text.encoder"),
        ({"widht": 8}, "did you mean 'width'"),
        ({"kind": "frozen"}, "source"),
        ({"kind": "frozen", "source": "a", "width": 8}, "no such key"),
    ],
)
def test_an_encoder_that_is_none_is_refused(places: dict[str, str], encoder: dict[str, Any], says: str) -> None:
    wrong = recipe(places).model_dump()
    wrong["model"]["text"]["encoder"] = encoder
    with pytest.raises(BadRecipe, match=says):
        read_recipe(wrong)


def test_a_frozen_encoder_that_does_not_fit_is_refused(places: dict[str, str]) -> None:
    wrong = recipe(places, encoder="clip").model_dump()
    wrong["model"]["text"]["context"] = 17
    with pytest.raises(BadValue, match="16 at most"):
        read_recipe(wrong).build((3, 8, 8), None, lambda: ["a red square"])
    wrong["model"]["text"]["encoder"]["source"] = "/nowhere"
    with pytest.raises(MissingFile, match="/nowhere"):
        read_recipe(wrong).build((3, 8, 8), None, lambda: ["a red square"])


def test_the_recipe_of_the_emoji_builds_what_it_says() -> None:
    made = load_recipe(bundled_recipes("model")["emoji"])
    model = made.build((3, 32, 32), None, lambda: ["red heart", "cat face, noto"])
    assert model.config.text is not None and model.network.config.doors == {"vector": 64, "tokens": 128}
    assert not made.data.flip, "captions tell left from right"
    assert len(made.train.sample_prompts) == 10


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("model.text.encoder.kind=foo", "model.text.encoder: kind is 'transformer' or 'frozen', not 'foo'"),
        (
            "model.text.encoder.hidden=3",
            "model.text.encoder.hidden: there is no such key; the keys there are: "
            "final_norm, heads, kind, layers, padding, pool, width",
        ),
        ("model.text.contxt=3", "model.text.contxt: there is no such key (did you mean 'context'?)"),
    ],
)
def test_what_is_wrong_with_a_text_section_is_said_by_its_own_name(tmp_path: Path, change: str, says: str) -> None:
    (tmp_path / "r.yaml").write_text("model: {text: {}}\ntrain: {steps: 1}\n")
    with pytest.raises(BadRecipe) as told:
        load_recipe(tmp_path / "r.yaml", [change])
    assert says in str(told.value)
