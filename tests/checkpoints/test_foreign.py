"""Files that others wrote: what is read, what is refused, and how names and shapes are told apart."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from guidon.checkpoints.foreign import Blueprint, Key, KeyTable, compare, differences
from guidon.checkpoints.looks import look
from guidon.checkpoints.reading import State, read_state
from guidon.errors import DamagedCheckpoint, MissingFile

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.tensor([1.5, -2.0])}
KEYS = KeyTable(
    Key("label_emb.weight", "encoder.embedding.weight"),
    Key("*.qkv.weight", "network.*.qkv.weight", linear=True),
    Key("*", "network.*"),
)


def same(found: State, wanted: dict[str, torch.Tensor]) -> bool:
    return found.tensors.keys() == wanted.keys() and all(
        torch.equal(found.tensors[name], value) for name, value in wanted.items()
    )


def saved(path: Path, held: Any, **options: Any) -> Path:
    torch.save(held, path, **options)
    return path


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Bare:
    """Of this module: even a class without any code of its own is not asked for."""


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_a_plain_file_come_back(tmp_path: Path, zipped: bool) -> None:
    state = read_state(saved(tmp_path / "a.pt", TENSORS, _use_new_zipfile_serialization=zipped))
    assert same(state, TENSORS) and state.part is None


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert same(read_state(tmp_path / "a.safetensors"), TENSORS)


def test_of_a_training_checkpoint_the_averaged_weights_are_taken(tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in TENSORS.items()}
    held = {"model": other, "ema": TENSORS, "opt": {"state": {}}, "args": argparse.Namespace(model="DiT-XL/2")}
    state = read_state(saved(tmp_path / "a.pt", held))
    assert same(state, TENSORS) and state.part == "ema"
    del held["ema"]
    state = read_state(saved(tmp_path / "a.pt", held))
    assert same(state, other) and state.part == "model"


def test_what_is_beside_the_tensors_is_left(tmp_path: Path) -> None:
    assert same(read_state(saved(tmp_path / "a.pt", {**TENSORS, "epoch": 3})), TENSORS)


def test_the_prefix_of_several_devices_is_taken_off_only_where_all_have_it(tmp_path: Path) -> None:
    prefixed = {f"module.{name}": value for name, value in TENSORS.items()}
    assert same(read_state(saved(tmp_path / "a.pt", {"state_dict": prefixed})), TENSORS)
    mixed = {**prefixed, "c": torch.ones(1)}
    assert same(read_state(saved(tmp_path / "a.pt", mixed)), mixed)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_code_is_refused_and_never_run(tmp_path: Path, zipped: bool) -> None:
    trap = tmp_path / "trap"
    path = saved(tmp_path / "a.pt", {**TENSORS, "x": Touch(trap)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DamagedCheckpoint, match=r"asks to run code.*mkdir"):
        read_state(path)
    assert not trap.exists()


def test_a_plain_pickle_that_asks_for_code_is_refused_quietly(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(Touch(tmp_path / "trap")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DamagedCheckpoint, match="never reads"):
            read_state(path)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("held", [torch.nn.Linear(2, 2), {"net": torch.nn.Linear(2, 2)}, {"x": Bare()}])
def test_objects_are_refused_by_name(tmp_path: Path, held: Any) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"run code.*(Linear|Bare)"):
        read_state(saved(tmp_path / "a.pt", held))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0, 1, 3, 10, 100, 1300, -3, -200])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int, zipped: bool) -> None:
    path = saved(tmp_path / "a.pt", {"a": torch.ones(1000)}, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedCheckpoint, match=r"cut short|no named tensors"):
        read_state(path)


@pytest.mark.parametrize("content", [b"a text file, say", b"PK\x03\x04" + bytes(400), b"\x80\x02."])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match="download or copy it again") as refused:
        read_state(tmp_path / "a.pt")
    assert re.search(r"\(\W?\d+\W?\)", str(refused.value)) is None  # unpickling text fails with a bare number


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"\xef\xbb\xbf\n <!DOCTYPE html><html>" + bytes(range(65, 91)) * 9]
)
def test_a_web_page_is_said_to_be_one(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=r"is a web page.*download the file itself"):
        read_state(tmp_path / name)


def test_a_file_that_begins_as_a_page_by_chance_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, path := tmp_path / "a.safetensors")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    padded = length + (ord("<") - length) % 256  # the file begins with the length of its header
    path.write_bytes(padded.to_bytes(8, "little") + content[8 : 8 + length].ljust(padded) + content[8 + length :])
    assert path.read_bytes().startswith(b"<")
    assert same(read_state(path), TENSORS)


@pytest.mark.parametrize("held", [[torch.ones(2)], torch.ones(2), {}, {"epoch": 3}, {"model": {"lr": 0.1}}])
def test_a_file_without_named_tensors_says_what_it_holds(tmp_path: Path, held: Any) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"named tensors.*state_dict"):
        read_state(saved(tmp_path / "a.pt", held))


def test_an_optimisers_file_is_told_from_the_networks(tmp_path: Path) -> None:
    held = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}},
        "param_groups": [{"lr": 1e-4, "params": [0]}],
    }
    with pytest.raises(DamagedCheckpoint, match=r"optimiser.*ema_"):
        read_state(saved(tmp_path / "opt001000.pt", held))


def test_a_missing_file_and_a_folder_are_no_files(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(MissingFile, match=r"\.safetensors"):
            read_state(path)


NAMES = st.lists(st.sampled_from(["label_emb", "weight", "qkv", "network", "0"]), min_size=1, max_size=4).map(".".join)


@given(NAMES)
@example("qkv.weight")
def test_a_name_there_and_back_is_itself(name: str) -> None:
    (ours,) = KEYS.translate({name: torch.ones(1)})
    assert KEYS.to_theirs(ours) == name


@given(NAMES, NAMES)
def test_two_names_never_become_one(one: str, other: str) -> None:
    assert len(KEYS.translate({one: torch.ones(1), other: torch.ones(1)})) == len({one, other})


def test_a_one_wide_convolution_becomes_a_linear_map_without_a_copy() -> None:
    value = torch.arange(6.0).reshape(2, 3, 1)
    ours = KEYS.translate({"mid.qkv.weight": value, "mid.conv.weight": value})
    assert ours["network.mid.qkv.weight"].shape == (2, 3) and ours["network.mid.conv.weight"].shape == (2, 3, 1)
    assert ours["network.mid.qkv.weight"].data_ptr() == value.data_ptr()
    assert KEYS.translate({"x.qkv.weight": torch.ones(2, 3, 3)})["network.x.qkv.weight"].shape == (2, 3, 3)


def test_an_account_names_what_is_missing_too_much_and_of_another_shape() -> None:
    state = {
        "a": torch.ones(2),
        "b": torch.ones(3),
        "c": torch.ones(2, dtype=torch.int8),
        "label_emb.weight": torch.ones(1),
    }
    wanted = {"network.a": (2,), "network.b": (4,), "network.c": (2,), "network.mid.qkv.weight": (2, 2)}
    fit = compare(state, wanted, Blueprint("model", {}, KEYS))
    assert fit.taken == 1 and not fit.whole
    assert fit.missing == ("mid.qkv.weight",) and fit.extra == ("label_emb.weight",)
    assert fit.differing == ("b (3,) where (4,) is wanted", "c of torch.int8 where floats are wanted")
    assert "1 of its 4 tensors fit" in str(fit) and "1 missing: mid.qkv.weight" in str(fit)
    assert compare({"a": torch.ones(2)}, {"network.a": (2,)}, Blueprint("model", {}, KEYS)).whole


def test_what_is_computed_needs_no_place_but_must_be_what_it_is() -> None:
    blueprint = Blueprint("model", {}, KEYS, {"place": torch.ones(2)})
    wanted, state = {"network.a": (2,)}, {"a": torch.ones(2)}
    assert compare(state, wanted, blueprint).whole
    assert compare({**state, "place": torch.ones(2) + 1e-4}, wanted, blueprint).whole
    for wrong in (torch.zeros(2), torch.ones(3)):
        assert len(compare({**state, "place": wrong}, wanted, blueprint).differing) == 1


def test_differences_are_said_with_both_numbers() -> None:
    found, wanted = {"width": 192, "depth": 3, "at": [1]}, {"width": 256, "depth": 3, "at": [1, 2], "classes": 10}
    assert differences(found, wanted, "imagenet256") == [
        "width 192 where imagenet256 has 256",
        "at (1) where imagenet256 has (1, 2)",
        "classes none where imagenet256 has 10",
    ]


ADM = {"time_embed.0.weight": (4, 1), "input_blocks.0.0.weight": (1, 3, 3, 3), "middle_block.1.qkv.weight": (3, 1, 1)}
UNET = {**ADM, "output_blocks.0.0.in_layers.0.weight": (1,)}


@pytest.mark.parametrize(
    ("shapes", "what", "family"),
    [
        (UNET, "UNet of guided-diffusion", "guided-diffusion"),
        (ADM, "classifier of guided-diffusion", "guided-diffusion"),
        ({**UNET, "input_blocks.0.0.weight": (1, 6, 3, 3)}, "upsampler", "guided-diffusion"),
        ({**UNET, "input_blocks.3.0.op.weight": (1,)}, "improved-diffusion", "guided-diffusion"),
        ({**UNET, "transformer.resblocks.0.ln_1.weight": (1,)}, "GLIDE", "glide"),
        ({**UNET, "middle_block.1.encoder_kv.weight": (1,)}, "GLIDE", "glide"),
        ({"blocks.input.w_t": (1,), "blocks.input.w_pos": (1,)}, "CLIP of GLIDE", "glide"),
        ({"text.blocks.input.w_voc": (1,)}, "CLIP of GLIDE", "glide"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (1,)}, "Stable Diffusion", None),
        ({**UNET, "input_blocks.1.1.transformer_blocks.0.norm1.weight": (1,)}, "Stable Diffusion", None),
        ({"conv_in.weight": (1,), "down_blocks.0.a": (1,), "up_blocks.0.a": (1,)}, "diffusers", None),
        ({"pos_embed.proj.weight": (1,), "transformer_blocks.0.norm1.weight": (1,)}, "diffusers", None),
        ({"model.map_layer0.weight": (1,), "model.enc.64x64_conv.weight": (1,)}, "EDM", None),
        (
            {"x_embedder.proj.weight": (1,), "blocks.0.adaLN_modulation.1.bias": (1,), "final_layer.a": (1,)},
            "DiT",
            "dit",
        ),
        ({"x_embedder.proj.weight": (1,), "joint_blocks.0.a": (1,)}, "Stable Diffusion 3", None),
        ({"denoiser.network.out.0.weight": (1,)}, "guidon", None),
        ({"first_stage_model.encoder.conv_in.weight": (1,)}, "autoencoder", None),
    ],
)
def test_architectures_are_known_by_their_names(shapes: dict[str, Any], what: str, family: str | None) -> None:
    seen = look(shapes)
    assert seen is not None and what in seen.what and seen.family == family


def test_an_unknown_architecture_is_not_guessed() -> None:
    assert look({"weight": (1,), "layers.0.bias": (2,)}) is None
