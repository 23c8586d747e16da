"""``guidon convert glide``: network and vocabulary become one folder, or one message and nothing on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.test_glide_checkpoint import KINDS, TINY, theirs, tiny, tiny_clip
from support.vocabularies import gpt2_files

import guidon as library
from guidon.checkpoints.glide import base_sampling
from guidon.checkpoints.presets import FAMILIES, Preset
from guidon.clip import Clip


@pytest.fixture
def presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a tiny preset of each kind, named by the number of channels that it looks at."""
    for kind, (channels, small) in KINDS.items():
        settings = {"arguments": TINY, "kind": kind, "side": 16, "small": small, "vocabulary": 262}
        preset = Preset(f"tiny-{channels}", "glide", "", "", {**settings, "sample": base_sampling(3)})
        monkeypatch.setitem(FAMILIES["glide"].presets, preset.name, preset)  # type: ignore[misc]


def write(kind: str = "Text2ImUNet") -> dict[str, Any]:
    """Write a network and a vocabulary where the command is run, and return the network's tensors."""
    state = theirs(tiny(kind))
    torch.save({name: value.half() for name, value in state.items()}, "it.pt")  # as they are released
    gpt2_files(Path("words"))
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_converted_with_its_vocabulary_and_draws(guidon: Any, presets: None, kind: str) -> None:
    state = write(kind)
    answer = guidon(f"convert glide it.pt --preset tiny-{KINDS[kind][0]} --vocab words -o mine")
    assert answer.code == 0, answer.err
    assert f"took {len(state)} tensors" in answer.out and "now: guidon sample mine --prompt" in answer.out
    assert ("--image" in answer.out) is ("SuperRes" in kind)
    assert sorted(path.name for path in Path("mine").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    model = library.load("mine")
    assert model.config.training["source"] == "openai/glide-text2im"
    assert model.tokenizer is not None and model.tokenizer.tokens("Red") == [257]
    small = {} if model.low_res is None else {"image": torch.zeros(1, 3, 4, 4)}
    images = model.sample("red", steps=2, grid="leading", **small).x
    assert images.shape == (1, 3, 16, 16) and images.abs().max() <= 1


def test_both_files_of_clip_are_converted(guidon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described, state = tiny_clip(tmp_path)
    monkeypatch.setattr(Preset, "blueprint", lambda self, classes=None: described)
    for which in ("image", "text"):
        held = {name.removeprefix(f"{which}."): value for name, value in state.items() if name.startswith(which)}
        torch.save(held, f"clip_{which}_enc.pt")
    answer = guidon("convert glide clip_image_enc.pt --preset clip --vocab vocabulary")
    assert answer.code == 2 and "comes in two files" in answer.err and not Path("models").exists()
    answer = guidon("convert glide clip_image_enc.pt clip_text_enc.pt --preset clip --vocab vocabulary")
    assert answer.code == 0, answer.err
    assert "the clip is in models/clip; now: guidon sample MODEL --classifier models/clip" in answer.out
    assert Clip.from_pretrained("models/clip").tokenizer is not None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nowhere.pt --preset tiny-3", "there is no file"),
        ("it.pt --vocab words", "by --preset; it fits --preset tiny-3"),
        ("it.pt --preset bsae --vocab words", "did you mean 'base'"),
        ("it.pt --preset base --vocab words", "xf_width 16 where base has 512"),
        ("it.pt --preset tiny-7 --vocab words", "in_channels 3 where tiny-7 has 7"),
        ("it.pt --preset tiny-3 --vocab nowhere/at/all", "there is no folder"),
        ("it.pt --preset tiny-3 --vocab .", "holds no encoder.json"),
        ("it.pt --preset tiny-3 --vocab other", "has 259 tokens"),
        ("it.pt it.pt --preset tiny-3 --vocab words", "another network and another network"),
    ],
)
def test_what_cannot_be_converted_is_said_and_nothing_is_written(
    guidon: Any, presets: None, words: str, says: str
) -> None:
    write()
    gpt2_files(Path("other"), ["r e", "re d"])
    answer = guidon(f"convert glide {words} -o mine")
    assert answer.code == 2 and says in answer.err, answer.err
    assert answer.out == "" and not Path("mine").exists() and "Traceback" not in answer.err
