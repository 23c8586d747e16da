"""`guidon info`, `guidon list`, recipes by name, and the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_erosion

from guidon import registry
from guidon.app.info_command import _shown
from guidon.app.list_command import _keys
from guidon.app.pictures import contact_sheet, file_stems, free_paths
from guidon.app.png import constant_weight, model_name, parameters_text, read_record, write_png
from guidon.app.recipes import bundled_recipes, find_recipe
from guidon.checkpoints.native import write_tensors
from guidon.errors import MissingFile, UnknownName
from guidon.models.encoder_unet import EncoderUNetConfig
from guidon.training.recipe import load_recipe

RECORD = {
    "guidon": "0.1.0",
    "model": "runs/digits/model",
    "rule": "cfg(3)",
    "solver": "ddim(eta=0.5)",
    "grid": "trailing",
    "steps": 20,
    "labels": ["cat: big, fat", None],
    "seeds": [1, 2],
    "size": [32, 16],
    "image": {"index": 0, "seed": 1, "label": "cat: big, fat"},
}


def test_info_shows_the_record_of_an_image_and_gives_it_as_json(guidon):
    guidon("sample MODEL --label cat --n 9 --seed 7 --steps 2 -o out")
    shown = guidon("info out/0008-cat.png").out
    assert "cat (9 times)" in shown and "7 to 15" in shown and "dpmpp-2m" in shown
    assert json.loads(guidon("info out/0008-cat.png --json").out) == read_record("out/0008-cat.png")


def test_info_shows_the_record_of_latents_and_like_says_how_to_make_them_again(guidon):
    write_tensors(Path("latents.safetensors"), {"x": torch.zeros(2, 4, 8, 8)}, {"guidon": json.dumps(RECORD)})
    shown = guidon("info latents.safetensors").out
    assert "2, 4, 8, 8" in shown and "ddim(eta=0.5)" in shown
    assert json.loads(guidon("info latents.safetensors --json").out) == {"latents": [2, 4, 8, 8], **RECORD}
    again = guidon("sample --like latents.safetensors")
    assert again.code == 2 and "holds latents, not an image" in again.err and "guidon info latents" in again.err
    write_tensors(Path("bare.safetensors"), {"x": torch.zeros(2)})
    assert "no guidon record" in (bare := guidon("info bare.safetensors")).err and bare.code == 2
    Path("cut.safetensors").write_bytes(b"short")
    assert "cut short" in guidon("info cut.safetensors").err


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1.0, 2.0], "1, 2"),
        (0.6917263481723467, "0.692"),
        (0.9999, "0.9999"),
        (12345.678901, "12,346"),
        ([str(i) for i in range(1000)], "0 to 999"),
        ([7, 8, 9], "7 to 9"),
        (["1", "2"], "1, 2"),
        (["0", "1", "3"], "0, 1, 3"),
        (["00", "01", "02"], "00, 01, 02"),
        ([True, 2, 3], "True, 2, 3"),
        (["cat"] * 3, "cat (3 times)"),
    ],
)
def test_numbers_are_short_for_people(value, text):
    assert _shown(value) == text


def test_info_shows_models_and_runs(guidon):
    shown = guidon("info MODEL").out
    assert "cat, dog, sea lion" in shown and "3, 12, 12" in shown
    facts = json.loads(guidon("info MODEL --json").out)
    assert facts["parameters"] > 1000 and facts["sample"]["steps"] == 20
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("data: {}\n")
    assert "unfinished" in guidon("info run").out
    assert guidon("info nowhere").code == 2
    Path("empty").mkdir()
    assert "neither a model" in guidon("info empty").err


def test_list_walks_the_registry(guidon):
    everything = guidon("list").out
    for kind in registry.kinds():
        assert kind in everything
        for name, member in registry.members(kind):
            assert name in everything
            assert member.__doc__, f"{kind} {name} says nothing about itself"
    assert guidon("list solvers").out == guidon("list solver").out != everything
    settings, classifier = guidon("list settings").out, guidon("list classifier-settings").out
    assert "train.objective.dropout = 0.1" in settings
    assert "model.architecture.mlp_ratio = 4.0\n      (dit) hidden units of a block's" in settings
    assert "model.architecture.vector_width = None\n      (unet) its width for FiLM" in settings
    assert "model.architecture.pool = 'attention'\n      (EncoderUNet) how feature maps" in classifier
    assert "mlp_ratio" not in classifier and "architecture.size" not in classifier
    assert "    heads = 6\n" in guidon("list networks").out
    for config in (*(network.Config for _, network in registry.members("network")), EncoderUNetConfig):
        assert all(about for _, about in _keys(config)), f"{config.__name__} has keys that its docstring leaves out"
    assert "processes" in guidon("list --help").out and guidon("list processes").code == 0
    answer = guidon("list sovlers")
    assert answer.code == 2 and "solver" in answer.err


def test_recipes_are_found_by_path_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("# Mine.\ndata: {}\n")
    assert find_recipe("mine.yaml") == Path("mine.yaml")
    for name, path in bundled_recipes().items():
        assert find_recipe(name) == path and path.is_file()
    assert {"digits"} <= bundled_recipes().keys()
    with pytest.raises(MissingFile, match=r"other\.yaml"):
        find_recipe("other.yaml")
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        find_recipe("digit")


def test_parameters_text_is_the_form_that_other_tools_read():
    prompt, settings = parameters_text(RECORD | {"negative": ["cat", "blurry"]}).split(
        "\nNegative prompt: cat, blurry\n"
    )
    assert prompt == "cat: big, fat"
    assert settings == (
        "Steps: 20, Sampler: DDIM, Schedule type: trailing, CFG scale: 3, Seed: 1, Size: 32x16, Model: digits, Version: guidon 0.1.0"
    )
    quoted = parameters_text(RECORD | {"model": "a, b: c", "rule": "cfg(linear(1, 4))"})
    assert 'Model: "a, b: c", Rule: "cfg(linear(1, 4))"' in quoted and "CFG scale" not in quoted


@pytest.mark.parametrize(
    ("rule", "weight"), [("cfg(3.5)", 3.5), ("cfg(-1)", -1.0), ("cfg((1, 2))", None), ("cfg(3) | x", None)]
)
def test_only_a_plain_weight_is_a_cfg_scale(rule, weight):
    assert constant_weight(rule) == weight


def test_model_name_is_what_people_call_it():
    assert [model_name(source) for source in ("runs/digits/model", "owner/name", "model")] == [
        "digits",
        "name",
        "model",
    ]


def test_records_of_any_size_and_script_come_back(tmp_path):
    record = RECORD | {"labels": ["猫"] * 5000, "seeds": list(range(5000))}
    write_png(tmp_path / "a.png", Image.new("L", (2, 2)), record)
    assert read_record(tmp_path / "a.png") == record


def test_file_names_are_tidy_and_unique(tmp_path):
    assert file_stems([7, 12345, 7, 7], ["sea lion", "a/b", None, None]) == [
        "0007-sea_lion",
        "12345-a_b",
        "0007",
        "0007.2",
    ]
    assert len(set(file_stems([1, 1, 1], ["../x", "..", "x"]))) == 3
    (tmp_path / "b.png").touch()
    assert [path.name for path in free_paths(tmp_path, ["a", "b"])] == ["a-2.png", "b-2.png"]


def test_a_sheet_shows_every_image_unsmoothed_in_the_row_of_its_class():
    images = [Image.new("L", (8, 8), 10 * i) for i in range(6)]
    sheet = np.asarray(contact_sheet(images, ["a", "a", "a", "b", "b", "b"], "title").convert("L"))
    tops = {i: np.argwhere(binary_erosion(sheet == 10 * i, np.ones((64, 64)))).min(0) for i in range(1, 6)}
    assert all((sheet == 10 * i).sum() >= 64 * 64 for i in range(6))
    assert tops[1][0] == tops[2][0] < tops[3][0] == tops[4][0] and tops[1][1] == tops[4][1]
    many = contact_sheet([Image.new("RGB", (64, 64))] * 30, [None] * 30, "")
    assert many.height > 3 * 64


@pytest.mark.filterwarnings("ignore:.*were cut")  # in the letters of two captions, some prompts are long
@pytest.mark.parametrize("name", sorted(bundled_recipes("model")))
def test_every_recipe_that_comes_along_makes_a_model_that_samples(name):
    recipe = load_recipe(find_recipe(name))
    shape = (1, 8, 8) if recipe.data.source == "digits" else (3, recipe.data.size, recipe.data.size)
    model = recipe.build(shape, [str(i) for i in range(10)], lambda: ["a red heart", "a blue circle"])
    told = 3 if recipe.model.text is None else "a blue heart"
    assert model.sample(told, steps=2).x.shape == (1, *shape)
