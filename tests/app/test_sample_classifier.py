"""Sampling led by a classifier, and enlarging, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import guidon as package
from guidon.app.png import read_record
from guidon.classifier import Calibration, Classifier, ClassifierConfig
from guidon.errors import NotSupported
from guidon.model import Model, ModelConfig

NETWORK = {"model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "attention": (), "heads": 1}


def filled(model):
    torch.manual_seed(2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="session", autouse=True)
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("led")
    plain = {"shape": (3, 12, 12), "architecture": NETWORK | {"vector": None}}
    filled(Model(ModelConfig(**plain))).save_pretrained(root / "plain")
    small = {"shape": (3, 12, 12), "architecture": NETWORK | {"spatial_channels": 3}, "classes": ("cat", "dog")}
    filled(Model(ModelConfig(**small, null=False, low_res=(6, 6)))).save_pretrained(root / "enlarging")
    judge = {
        "shape": (3, 12, 12),
        "architecture": NETWORK | {"size": 12, "out_channels": 3, "head_channels": 8, "group_channels": 4},
        "classes": ("cat", "dog", "sea lion"),
        "calibration": Calibration(noise_levels=(1.0,), temperatures=(0.2,)),
    }
    filled(Classifier(ClassifierConfig(**judge))).save_pretrained(root / "judge")
    return root


def shown(path):
    return np.asarray(Image.open(path))


def test_an_unconditional_model_takes_the_classes_of_its_classifier(guidon, folders):
    call = f"sample {folders}/plain --classifier {folders}/judge --weight 30 --class 1 'sea lion' --solver ddim --steps 4 -o out"
    answer = guidon(call)
    assert answer.code == 0, answer.err
    assert sorted(p.name for p in Path("out").iterdir()) == ["0000-dog.png", "0001-sea_lion.png", "sheet.png"]
    model, judge = package.load(folders / "plain"), package.load_classifier(folders / "judge")
    rule = "cfg(1) | threshold | classifier(30)"
    samples = model.sample(["dog", "sea lion"], rule=rule, classifier=judge, solver="ddim", steps=4)
    assert np.array_equal(shown("out/0000-dog.png"), samples.uint8()[0])
    record = read_record("out/0000-dog.png")
    assert (
        record["rule"] == rule
        and record["classifier"].items() >= {"name": f"{folders}/judge", "calibrated": False}.items()
    )
    assert len(record["classifier"]["weights"]) == 64


def test_like_opens_the_classifier_again_and_temperatures_are_used_if_asked(guidon, folders):
    call = f"sample {folders}/plain --classifier {folders}/judge --weight 30 --class cat --steps 3"
    guidon(f"{call} --calibrated -o tempered")
    guidon(f"{call} -o plain")
    assert not np.array_equal(shown("tempered/0000-cat.png"), shown("plain/0000-cat.png"))
    for which in ("tempered", "plain"):
        answer = guidon(f"sample --like {which}/0000-cat.png -o again")
        assert answer.code == 0 and "pixel for pixel" in answer.out, answer.err


def test_without_a_weight_the_gradient_counts_once(guidon, folders):
    guidon(f"sample MODEL --classifier {folders}/judge --class dog --steps 2 -o out")
    assert read_record("out/0000-dog.png")["rule"] == "cfg(1) | threshold | classifier(1)"


def test_a_small_image_is_enlarged_and_again_from_its_record(guidon, folders):
    Image.fromarray(np.arange(108, dtype=np.uint8).reshape(6, 6, 3)).save("small.png")
    answer = guidon(f"sample {folders}/enlarging --image small.png --class dog --n 2 --weight 1 --steps 2 -o out")
    assert answer.code == 0, answer.err
    low = torch.from_numpy(shown("small.png").copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    samples = package.load(folders / "enlarging").sample("dog", n=2, image=low, rule=1.0, steps=2)
    assert np.array_equal(shown("out/0001-dog.png"), samples.uint8()[1])
    again = guidon("sample --like out/0001-dog.png -o again")
    assert again.code == 0 and "pixel for pixel" in again.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{0}/plain --class cat --steps 1", "give a classifier that knows some"),
        ("{0}/plain --classifier {0}/judge --class fox --steps 1", "there is no class 'fox'"),
        ("{0}/plain --classifier {0}/plain --class cat --steps 1", "no classifier but a model"),
        ("{0}/judge --class cat --steps 1", "--classifier"),
        ("{0}/plain --classifier {0}/nowhere --steps 1", "there is no model folder"),
        ("{0}/plain --calibrated --steps 1", "name one with --classifier"),
        ("{0}/plain --classifier {0}/judge --weight 3 --rule cfg(3)", "classifier(3)"),
        ("{0}/enlarging --class cat --weight 1 --steps 1", "--image"),
        ("{0}/enlarging --class cat --weight 3 --steps 1 --image {0}/judge/config.json", "cannot read the picture"),
        ("{0}/enlarging --class cat --weight 3 --steps 1 --image nowhere.png", "no picture nowhere.png"),
    ],
)
def test_bad_requests_end_with_one_message(guidon, folders, words, message):
    answer = guidon(f"sample {words.format(folders)}")
    assert answer.code == 2 and message in answer.err
    assert answer.err.startswith("guidon: ") and answer.err.count("\n") == 1


def test_latents_are_written_as_they_are(guidon, tmp_path):
    network = {"in_channels": 4, "out_channels": 4, "width": 16, "depth": 1, "heads": 2}
    filled(
        Model(ModelConfig(shape=(4, 8, 8), network="dit", architecture=network, classes=("a", "b")))
    ).save_pretrained("dit")
    answer = guidon("sample dit --class b --n 2 --seed 4 --steps 2 --rule 'cfg(2) | channels(3)' -o out")
    assert answer.code == 0 and "latents for the model's autoencoder" in answer.out, answer.err
    with safe_open("out/latents.safetensors", "pt") as file:
        x, record = file.get_tensor("x"), json.loads(file.metadata()["guidon"])
    samples = package.load("dit").sample("b", n=2, seed=4, steps=2, rule="cfg(2) | channels(3)")
    assert torch.equal(x, samples.x) and record["seeds"] == [4, 5] and record["labels"] == ["b", "b"]
    with pytest.raises(NotSupported, match="latents of 4 channels"):
        samples.pil()
    assert "latents-2" in guidon("sample dit --class b --steps 1 -o out").out
