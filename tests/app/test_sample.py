"""Sampling from the command line: the files, the records inside them, and the same image again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import guidon as package
from guidon.app.png import read_record


def pixels(path):
    return np.asarray(Image.open(path))


def folder_names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_writes_one_png_an_image_named_by_seed_and_class_and_a_sheet(guidon):
    answer = guidon("sample MODEL --label cat dog --n 2 --seed 7 --steps 2 -o out")
    assert answer.code == 0, answer.err
    assert folder_names("out") == ["0007-cat.png", "0008-cat.png", "0009-dog.png", "0010-dog.png", "sheet.png"]
    assert pixels("out/0007-cat.png").shape == (12, 12, 3)
    assert "4 network evaluations" in answer.out and "0007-cat.png" in answer.out


def test_the_images_are_those_of_the_python_call(guidon, model_folder):
    guidon("sample MODEL --label dog --weight 3 --seed 5 --steps 3 --solver ddim(eta=1) --grid trailing -o out")
    samples = package.load(model_folder).sample("dog", rule=3.0, seed=5, steps=3, solver="ddim(eta=1)", grid="trailing")
    assert np.array_equal(pixels("out/0005-dog.png"), samples.uint8()[0])


def test_settings_left_out_are_those_of_the_model(guidon):
    guidon("sample MODEL -o out")
    assert folder_names("out") == ["0000-cat.png", "0001-dog.png", "0002-sea_lion.png", "sheet.png"]
    record = read_record("out/sheet.png")
    assert (record["steps"], record["solver"], record["image"]) == (20, "dpmpp-2m", None)


def test_nothing_is_overwritten(guidon):
    command = "sample MODEL --label cat --steps 1 -o out"
    guidon(command)
    before = {name: (Path("out") / name).read_bytes() for name in folder_names("out")}
    again = guidon(command + " --weight 5")
    assert again.code == 0 and "0000-cat-2.png" in again.out
    assert folder_names("out") == ["0000-cat-2.png", "0000-cat.png", "sheet-2.png", "sheet.png"]
    assert all((Path("out") / name).read_bytes() == content for name, content in before.items())


def test_every_png_carries_both_records(guidon, model_folder):
    guidon("sample MODEL --label dog 'sea lion' --seed 3 --steps 2 --rule 'cfg(4, when=interval(0.3, 3))' -o out")
    info = Image.open("out/0004-sea_lion.png").info
    record = json.loads(info["guidon"])
    assert record["image"] == {"index": 1, "seed": 4, "label": "sea lion"}
    assert (record["labels"], record["seeds"]) == (["dog", "sea lion"], [3, 4])
    weights = hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    assert record["weights"] == weights
    prompt, settings = info["parameters"].split("\n")
    assert prompt == "sea lion"
    assert settings.startswith("Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras, Seed: 4, Size: 12x12, ")
    assert f"Model hash: {weights[:10]}" in settings and f"Rule: {json.dumps(record['rule'])}" in settings
    plain = guidon("sample MODEL --label dog --steps 2 --weight 2.5 -o plain")
    assert plain.code == 0 and "CFG scale: 2.5" in Image.open("plain/0000-dog.png").info["parameters"]


def test_like_makes_the_image_again_bit_for_bit(guidon):
    settings = "--label cat dog --n 3 --seed 11 --steps 3 --weight 2.5 --solver ddpm --batching sequential --max-batch 4 -o out"
    guidon(f"sample MODEL {settings}")
    threads = torch.get_num_threads()
    answer = guidon("sample --like out/0014-dog.png -o again")
    assert answer.code == 0 and "pixel for pixel" in answer.out, answer
    assert folder_names("again") == ["0014-dog.png"]
    assert np.array_equal(pixels("again/0014-dog.png"), pixels("out/0014-dog.png"))
    assert read_record("again/0014-dog.png") == read_record("out/0014-dog.png")
    assert torch.get_num_threads() == threads


def test_like_notices_a_difference(guidon):
    guidon("sample MODEL --label cat --steps 2 -o out")
    path = Path("out/0000-cat.png")
    with Image.open(path) as image:
        from guidon.app.png import write_png

        write_png(path, Image.fromarray(255 - np.asarray(image)), read_record(path))
    answer = guidon("sample --like out/0000-cat.png -o again")
    assert answer.code == 0 and "not quite" in answer.out


def test_like_a_contact_sheet_makes_all_of_it_again(guidon):
    guidon("sample MODEL --label cat dog --steps 2 -o out")
    answer = guidon("sample --like out/sheet.png -o again")
    assert answer.code == 0 and "pixel for pixel" in answer.out
    assert folder_names("again") == folder_names("out")


def test_like_finds_a_model_named_from_an_outer_folder_and_says_so_when_it_moved(
    guidon, model_folder, monkeypatch, tmp_path
):
    shutil.copytree(model_folder, "runs/a/tiny")
    guidon("sample runs/a/tiny --label cat --steps 1 -o out")
    monkeypatch.chdir(tmp_path / "out")
    assert guidon("sample --like 0000-cat.png -o again").code == 0
    monkeypatch.chdir(tmp_path)
    shutil.move("runs/a/tiny", "moved")
    lost = guidon("sample --like out/0000-cat.png -o again")
    assert lost.code == 2 and "runs/a/tiny" in lost.err and "guidon sample MODEL --like" in lost.err
    found = guidon("sample moved --like out/0000-cat.png -o again")
    assert found.code == 0 and "pixel for pixel" in found.out


def test_like_says_when_the_weights_are_others(guidon, model_folder):
    guidon("sample MODEL --label cat --steps 1 -o out")
    other = package.load(model_folder)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained("other")
    answer = guidon("sample other --like out/0000-cat.png -o again")
    assert answer.code == 0 and "other weights" in answer.err


def test_unconditional_models_need_no_label(guidon):
    architecture = {
        "model_channels": 8,
        "channel_mult": (1,),
        "num_res_blocks": 1,
        "attention": (),
        "heads": 1,
        "vector": None,
    }
    package.Model(
        package.ModelConfig(shape=(1, 8, 8), architecture=architecture | {"in_channels": 1, "out_channels": 1})
    ).save_pretrained("m")
    assert guidon("sample m --n 2 --steps 1 -o out").code == 0
    assert folder_names("out") == ["0000.png", "0001.png", "sheet.png"]
    assert "pixel for pixel" in guidon("sample --like out/0001.png -o again").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--label cta", "did you mean 'cat'"),
        ("--label 3", "0 to 2"),
        ("--weight abc", "--weight is a number"),
        ("--weight nan", "--weight is a number"),
        ("--weight 3 --rule cfg(3)", "same thing"),
        ("--rule cfgg(3)", "did you mean 'cfg'"),
        ("--solver dppm", "did you mean 'ddpm'"),
        ("--solver ddim(etta=1)", "did you mean 'eta'"),
        ("--grid karas", "did you mean 'karras'"),
        ("--device gpu", "cuda"),
        ("--rule cfg(1e300)", "beyond what"),
        ("--rule cfg(1e30)", "guidance was too strong before"),
        ("--rule cfg(nan)", "finite number"),
        ("--rule cfg", "needs weight"),
        ("--rule apg", "stands right of a rule"),
        ("--rule 'cfg(3) | apg(space=x0)'", "in quotes: 'x0'"),
        ("--rule 'cfg(3) | apg(axes=[7])'", "axes"),
        ("--rule 'cfg(3) | rescale | apg'", "here rescale"),
        ("--rule 'cfg(3, when=5)'", "takes when as interval"),
        ("--rule 'cfg([1, 2])' --n 3", "2 weights for 3 images"),
        ("--rule negative(3)", "--negative"),
        ("--rule 'perp-neg(3, [1, 1])' --negative dog", "give 2 with negative=..."),
        ("--rule autoguidance(2)", "--weak"),
        ("--rule autoguidance(2) --weak self:0", "a number > 0"),
        ("--rule autoguidance(2) --weak nowhere", "nowhere"),
        ("--rule classifier(2)", "--classifier"),
        ("--rule internal(2)", "inner_head"),
        ("--rule cfgpp(0.5) --solver heun", "one that it works with"),
        ("--rule cfg(3) --solver rectified", "made for it"),
        ("--rule cfg(3) --negative dog", "no use for 'negative'"),
        ("--rule cfg(3) --weak self:0.1", "no use for 'weak'"),
        ("--like x.png", "there is no image x.png"),
        ("--like x.png --steps 3 --label cat", "leave out --label, --steps"),
    ],
)
def test_bad_values_end_with_one_message_and_exit_code_2(guidon, words, message):
    answer = guidon(f"sample MODEL {words}")
    assert answer.code == 2 and message in answer.err
    assert answer.err.startswith("guidon: ") and answer.err.count("\n") == 1
    assert not Path("samples").exists()


@pytest.mark.parametrize(
    "words",
    [
        "--rule 'negative(3) | apg' --negative dog",
        "--rule 'perp-neg(3, [1, 2])' --negative cat 'sea lion'",
        "--rule 'conjunction([2, 1])' --also 'sea lion'",
        "--rule 'two-scale(3)' --partial 'sea lion'",
        "--rule autoguidance(2) --weak self:0.3:5",
        "--rule autoguidance(2) --weak MODEL",
        "--rule 'cfg(3) | cads' --max-batch 1",
        "--rule icg(3) --solver ddim(1)",
    ],
)
def test_like_makes_it_again_whatever_the_rule_was_told(guidon, words):
    first = guidon(f"sample MODEL --label cat dog --steps 3 -o out {words}")
    assert first.code == 0, first.err
    again = guidon("sample --like out/0001-dog.png -o again")
    assert again.code == 0 and "pixel for pixel" in again.out, again.out + again.err


def test_a_trace_is_written_and_plotted(guidon):
    answer = guidon("sample MODEL --label cat --n 2 --steps 4 --rule 'cfg(3) | adaptive(0.9)' --trace -o out")
    assert answer.code == 0 and "traced out/trace.png" in answer.out
    trace = json.loads(Path("out/trace.json").read_text())
    assert len(trace["evaluations"]) == 4 and trace["record"]["rule"] == "cfg(3) | adaptive(0.9)"
    assert trace["evaluations"][0]["asked"] == [2, 2] and len(trace["evaluations"][0]["cosine"]["null"]) == 2
    assert Image.open("out/trace.png").size[0] > 600
    again = guidon("sample MODEL --label cat --steps 2 --trace -o out")
    assert "out/trace-2.png" in again.out and Path("out/trace-2.json").exists()


def test_broken_models_end_with_one_message_and_exit_code_2(guidon, model_folder):
    shutil.copytree(model_folder, "cut")
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cut short" in (answer := guidon("sample cut")).err and answer.code == 2
    assert "cut short" in guidon("info cut").err
    weights.unlink()
    assert "has no model.safetensors" in (answer := guidon("sample cut")).err and answer.code == 2
    assert "has no model.safetensors" in guidon("info cut").err
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("data: {}\n")
    assert "--resume" in (answer := guidon("sample run")).err and answer.code == 2


def test_images_without_our_record_are_refused(guidon):
    Image.new("RGB", (4, 4)).save("bare.png")
    Path("text.png").write_text("not an image")
    for command in ("sample --like", "info"):
        assert "no guidon record" in (answer := guidon(f"{command} bare.png")).err and answer.code == 2
        assert "cannot be read" in (answer := guidon(f"{command} text.png")).err and answer.code == 2
