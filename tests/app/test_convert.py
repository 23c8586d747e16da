"""``guidon convert``: from a file to a model on disk, or to one message and nothing on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.golden import GOLDEN, settings
from safetensors.torch import load_file

import guidon as library
from guidon.app.conversion import build
from guidon.checkpoints.dit import DIT, dit_blueprint
from guidon.checkpoints.guided_flags import blueprint
from guidon.checkpoints.presets import FAMILIES
from guidon.classifier_request import load_classifier

FLAGS = {
    "image_size": 16,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "8",
    "learn_sigma": True,
    "class_cond": True,
    "large_size": 16,
    "small_size": 8,
    "classifier_width": 64,
    "classifier_depth": 1,
}
TEXT = " ".join(f"--{name} {value}" for name, value in FLAGS.items())


def write(path: Path, script: Any = "image", classes: int = 2) -> Path:
    """Write a random checkpoint of guided-diffusion."""
    described = blueprint(FLAGS, script, count=classes)
    torch.manual_seed(0)
    state = {}
    for name, value in build(described).state_dict().items():
        there = described.keys.to_theirs(name)
        one_wide = there.endswith(("qkv.weight", "proj_out.weight", "qkv_proj.weight", "c_proj.weight"))
        state[there] = torch.randn(*value.shape, *([1] if one_wide else [])) / 16
    torch.save(state, path)
    return path


@pytest.mark.parametrize("script", ["image", "upsampler"])
def test_a_model_is_converted_and_draws(guidon: Any, tmp_path: Path, script: str) -> None:
    write(tmp_path / "ema.pt", script)
    answer = guidon(f"convert guided-diffusion ema.pt --flags '{TEXT}' -o mine")
    assert answer.code == 0, answer.err
    assert "none is missing, none left over" in answer.out and "guidon sample mine" in answer.out
    assert ("--image" in answer.out) is (script == "upsampler")
    assert sorted(path.name for path in Path("mine").iterdir()) == ["config.json", "model.safetensors"]
    model = library.load("mine")
    assert model.config.training["source"] == "openai/guided-diffusion"
    small = {"image": torch.zeros(1, 3, 8, 8)} if script == "upsampler" else {}
    images = model.sample([0, 1], steps=2, **small).x
    assert images.shape == (2, 3, 16, 16) and images.abs().max() <= 1  # threshold is the last word


def test_a_classifier_is_converted(guidon: Any, tmp_path: Path) -> None:
    write(tmp_path / "judge.pt", "classifier", classes=3)
    answer = guidon(f"convert guided-diffusion judge.pt --flags '{TEXT}'")
    assert answer.code == 0, answer.err
    assert "--classifier models/judge" in answer.out
    assert load_classifier("models/judge").classes == ("0", "1", "2")


def test_classes_get_the_names_of_a_file(guidon: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.pt")
    (tmp_path / "names.txt").write_text("tench\n\ngoldfish\n")
    assert guidon(f"convert guided-diffusion a.pt --flags '{TEXT}' --classes names.txt -o named").code == 0
    assert library.load("named").classes == ("tench", "goldfish")


@pytest.mark.parametrize(
    ("classes", "says"), [("0", "nor a file|neither"), ("nowhere.txt", "neither"), ("twice.txt", "2 names, 1 of them")]
)
def test_names_that_are_none_are_refused(guidon: Any, tmp_path: Path, classes: str, says: str) -> None:
    write(tmp_path / "a.pt")
    (tmp_path / "twice.txt").write_text("cat\ncat\n")
    answer = guidon(f"convert guided-diffusion a.pt --flags '{TEXT}' --classes {classes}")
    assert answer.code == 2
    assert any(part in answer.err for part in says.split("|"))


@pytest.mark.parametrize("words", ["-o mine", "--preset imagenet64", ""])
def test_what_stands_in_the_folder_is_never_replaced(guidon: Any, words: str) -> None:
    folder = {"-o mine": "mine", "": "models/nowhere"}.get(words, "models/imagenet64")
    kept = Path(folder) / "model.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_text("weeks of training")
    answer = guidon(f"convert guided-diffusion nowhere.pt {words}")  # said before the file is read
    assert answer.code == 2 and f"{folder} is not empty; choose another folder" in answer.err
    assert kept.read_text() == "weeks of training" and [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_an_empty_folder_is_filled(guidon: Any, tmp_path: Path) -> None:
    write(tmp_path / "ema.pt")
    Path("mine").mkdir()
    assert guidon(f"convert guided-diffusion ema.pt --flags '{TEXT}' -o mine").code == 0
    assert library.load("mine").classes == ("0", "1")


@pytest.mark.parametrize(("channels", "latent"), [(4, True), (3, False)])
def test_a_dit_of_ones_own_size_is_converted(guidon: Any, channels: int, latent: bool) -> None:
    arguments = {
        "input_size": 8,
        "hidden_size": 32,
        "depth": 2,
        "num_heads": 4,
        "num_classes": 7,
        "in_channels": channels,
    }
    described = dit_blueprint(arguments)
    torch.manual_seed(0)
    state = {DIT.to_theirs(name): torch.randn(value.shape) for name, value in build(described).state_dict().items()}
    torch.save({"ema": state | described.computed}, "0400000.pt")
    answer = guidon("convert dit 0400000.pt --heads 4")
    assert answer.code == 0, answer.err
    assert "now: guidon sample models/0400000" in answer.out and ("latents" in answer.out) is latent
    config = library.load("models/0400000").config
    assert config.shape == (channels, 8, 8) and config.architecture["heads"] == 4 and len(config.classes or ()) == 7


@pytest.mark.skipif(not settings("dit"), reason=f"no DiT in {GOLDEN}; set GUIDON_GOLDEN")
def test_a_dit_of_another_size_is_refused_with_what_differs(guidon: Any) -> None:
    answer = guidon(f"convert dit {GOLDEN / settings('dit')['weights']} --preset s-2-256 -o mine")
    assert answer.code == 2 and "hidden_size 32 where s-2-256 has 384" in answer.err
    assert not Path("mine").exists()


@pytest.mark.skipif(not settings("adm_unet_a"), reason=f"no ADM in {GOLDEN}; set GUIDON_GOLDEN")
def test_the_golden_checkpoint_is_converted_by_the_flags_of_its_scripts(guidon: Any, tmp_path: Path) -> None:
    told = settings("adm_unet_a")["config"]
    side = told["image_size"]
    flags = {
        "image_size": side,
        "num_channels": told["model_channels"],
        "num_res_blocks": told["num_res_blocks"],
        "channel_mult": ",".join(map(str, told["channel_mult"])),
        "attention_resolutions": ",".join(str(side // factor) for factor in told["attention_resolutions"]),
        "num_heads": told["num_heads"],
        "num_head_channels": told["num_head_channels"],
        "learn_sigma": told["out_channels"] == 6,
        "class_cond": told["num_classes"] is not None,
        **{name: told[name] for name in ("use_scale_shift_norm", "resblock_updown", "use_new_attention_order")},
    }
    torch.save(load_file(GOLDEN / settings("adm_unet_a")["weights"]), tmp_path / "a.pt")
    text = " ".join(f"--{name} {value}" for name, value in flags.items())
    assert guidon(f"convert guided-diffusion a.pt --flags '{text}' -o a").code == 0
    assert len(library.load("a").classes or ()) == told["num_classes"]


class Trap:
    def __reduce__(self) -> Any:
        return os.mkdir, ("trap",)


def test_a_pickle_that_asks_for_code_is_refused(guidon: Any) -> None:
    torch.save({"x": Trap()}, "evil.pt")
    answer = guidon("convert guided-diffusion evil.pt --preset imagenet64 -o mine")
    assert answer.code == 2 and "asks to run code" in answer.err and "mkdir" in answer.err
    assert not Path("trap").exists() and not Path("mine").exists()


@pytest.mark.parametrize("keep", [0, 50, 5000, -8])
def test_a_file_cut_short_is_refused(guidon: Any, tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "a.pt")
    path.write_bytes(path.read_bytes()[:keep])
    answer = guidon("convert guided-diffusion a.pt --preset imagenet64 -o mine")
    assert answer.code == 2 and "cut short" in answer.err and not Path("mine").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nowhere.pt --preset imagenet64", "there is no file"),
        ("a.pt --preset imagenet46", "did you mean 'imagenet64'"),
        ("a.pt", "--preset or by --flags"),
        ("a.pt --preset imagenet64 --flags '--image_size 64'", "give one of them, not both"),
        ("a.pt --flags '--image-siez 64'", "image_size"),
        ("a.pt --preset imagenet64", "model_channels 32 where imagenet64 has 192"),
        ("a.pt --preset classifier64", "a UNet"),
        (f"a.pt --flags '{TEXT}' --classes 7", "the file has 2 classes, --classes gives 7"),
        (f"a.pt --flags '{TEXT} --learn_sigma False'", "with --learn_sigma True in --flags it fits"),
        ("nan.pt --preset imagenet64", "imagenet64 has 192"),
        (f"nan.pt --flags '{TEXT}'", "NaN or infinite"),
    ],
)
def test_what_cannot_be_converted_is_said_and_nothing_is_written(
    guidon: Any, tmp_path: Path, words: str, says: str
) -> None:
    state = torch.load(write(tmp_path / "a.pt"))
    torch.save({**state, "out.2.bias": state["out.2.bias"] / 0}, tmp_path / "nan.pt")
    answer = guidon(f"convert guided-diffusion {words} -o mine")
    assert answer.code == 2 and says in answer.err, answer.err
    assert answer.out == "" and not Path("mine").exists() and "Traceback" not in answer.err


def test_presets_are_listed_with_their_files(guidon: Any) -> None:
    answer = guidon("convert presets")
    assert answer.code == 0
    for words in (
        ("imagenet256-uncond", "256x256_diffusion_uncond.pt"),
        ("xl-2-512", "DiT-XL-2-512x512.pt"),
        ("s-8-256",),
    ):
        assert all(word in answer.out for word in words)
    assert all(line == line.rstrip() for line in answer.out.splitlines())
    assert "xl-2" not in guidon("convert presets guided-diffusion").out
    assert "dit" in guidon("convert presets dti").err


def test_the_page_names_every_released_checkpoint() -> None:
    page = (Path(__file__).parents[2] / "docs" / "convert.md").read_text()
    for family in FAMILIES.values():
        for preset in family.presets.values():
            assert not preset.file or f"| `{preset.name}` | `{preset.file}` |" in page


def test_help_says_when_the_file_tells_the_classes(guidon: Any) -> None:
    for command, own in (("guided-diffusion", "--flags"), ("dit", "--heads")):
        assert f"With {own} the file tells how many." in " ".join(guidon(f"convert {command} --help").out.split())


def test_every_command_shows_examples(guidon: Any) -> None:
    for command in ("", " guided-diffusion", " glide", " dit", " presets"):
        text = guidon(f"convert{command} --help").out
        assert f"guidon convert{command}" in text
        assert max(map(len, text.splitlines())) <= 80
