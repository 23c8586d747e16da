"""GLIDE's checkpoints: every preset, the two files of its CLIP, its vocabularies, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.vocabularies import clip_file, gpt2_files
from torch import Tensor

from guidon.app.conversion import Plan, build, convert, plan_of, tokenizer_of
from guidon.checkpoints.foreign import Blueprint
from guidon.checkpoints.glide import clip_blueprint, network_blueprint, sizes, together
from guidon.checkpoints.presets import FAMILIES
from guidon.checkpoints.reading import State
from guidon.clip import Clip, told_to_clip
from guidon.conditioning.tokenizer import clip_tokenizer
from guidon.errors import BadValue, NotSupported
from guidon.model import Model, load
from guidon.models.clip import ClipConfig

PRESETS = FAMILIES["glide"].presets
TINY: dict[str, Any] = {
    "text_ctx": 8,
    "xf_width": 16,
    "xf_layers": 2,
    "xf_heads": 2,
    "xf_final_ln": True,
    "xf_padding": True,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 1,
    "attention_resolutions": (2,),
    "channel_mult": (1, 2),
    "num_head_channels": 16,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
KINDS = {
    "Text2ImUNet": (3, None),
    "SuperResText2ImUNet": (6, 4),
    "InpaintText2ImUNet": (7, None),
    "SuperResInpaintText2ImUnet": (10, 4),
}
TINY_CLIP = ClipConfig(
    size=8, times=20, vocabulary=520, context=77, features=4, image_layers=1, image_heads=1, text_layers=2, text_heads=1
)


def theirs(described: Blueprint, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors for a network, under the names and in the shapes that its checkpoint has."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, value in build(described).state_dict().items():
        drawn = torch.randn(value.shape, generator=generator) / 8
        row = next(row for row in described.keys.rows if row.to_theirs(name) is not None)
        state[described.keys.to_theirs(name)] = drawn[..., None] if row.linear and drawn.ndim == 2 else drawn
    return state


def tiny(kind: str = "Text2ImUNet", **changes: Any) -> Blueprint:
    return network_blueprint(TINY | changes, kind=kind, side=16, vocabulary=262, small=KINDS[kind][1])


def plan(described: Blueprint) -> Plan:
    return Plan("glide", "it", described)


def on_meta(name: str) -> State:
    """Return the shapes of a preset's checkpoint, without numbers."""
    described = PRESETS[name].blueprint()
    shapes = {n: tuple(value.shape) for n, value in build(described).state_dict().items()}
    return State({n: torch.empty(shape, device="meta") for n, shape in described.shapes_there(shapes).items()})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_converted_saved_and_loaded_value_by_value(kind: str, tmp_path: Path) -> None:
    described = tiny(kind)
    state = theirs(described)
    assert state["input_blocks.0.0.weight"].shape[1] == KINDS[kind][0]
    assert state["middle_block.1.encoder_kv.weight"].shape == (128, 16, 1)
    assert {"padding_embedding", "final_ln.bias", "transformer.resblocks.1.attn.c_qkv.weight"} <= state.keys()
    tokenizer = tokenizer_of(plan(described), str(gpt2_files(tmp_path / "vocabulary")))
    model = convert(State(state), plan(described))
    model.tokenizer = tokenizer  # type: ignore[assignment]
    model.save_pretrained(tmp_path / "model")
    model = load(tmp_path / "model")
    found = model.state_dict()
    assert len(found) == len(state)
    assert all(torch.equal(found[name].flatten(), state[described.keys.to_theirs(name)].flatten()) for name in found)
    assert model.config.inpaint is ("Inpaint" in kind) and model.low_res == (None if KINDS[kind][1] is None else (4, 4))
    assert model.condition(["Red cat"]).tokens[0, :3].tolist() == [257, 260, 261]
    small = {} if model.low_res is None else {"image": torch.zeros(1, 3, 4, 4)}
    images = model.sample(["red cat", ""], steps=2, grid="leading", **small).x
    assert images.shape == (2, 3, 16, 16) and images.abs().max() <= 1  # threshold is the last word


def test_networks_without_learned_padding_or_final_norm() -> None:
    state = theirs(tiny(xf_padding=False, xf_final_ln=False))
    assert not any(name.startswith(("padding_embedding", "final_ln")) for name in state)


def test_the_presets_have_the_parameters_of_the_released_networks() -> None:
    counts = {name: sum(value.numel() for value in on_meta(name).tensors.values()) for name in PRESETS}
    # of the models, as openai/glide-text2im's notebooks print them; an inpainting model has 4 channels more to look at
    first = 4 * 192 * 9
    assert counts["base"] == 385_030_726 and counts["base-inpaint"] == 385_030_726 + first
    assert counts["upsample"] == 398_361_286 and counts["upsample-inpaint"] == 398_361_286 + first


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_told_from_the_others(name: str) -> None:
    with pytest.raises(BadValue, match=rf"by --preset; it fits --preset {name}$"):
        plan_of(on_meta(name), "glide")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base", ("vp-table('cosine')", "cfg(3) | threshold", "ddpm(variance='learned')", "respaced('100')", 1.0)),
        ("upsample", ("vp-table", "cfg(1) | threshold", "ddim", "respaced('fast27')", 0.997)),
        (
            "base-inpaint",
            ("vp-table('cosine')", "cfg(5) | threshold", "ddpm(variance='learned')", "respaced('100')", 1.0),
        ),
        (
            "upsample-inpaint",
            ("vp-table", "cfg(1) | threshold", "ddpm(variance='learned')", "respaced('fast27')", 0.997),
        ),
    ],
)
def test_presets_are_sampled_as_in_the_notebooks_of_the_authors(name: str, said: tuple[Any, ...]) -> None:
    model = build(PRESETS[name].blueprint())
    assert isinstance(model, Model)
    sample = model.config.sample
    assert (model.config.process, sample.rule, sample.solver, sample.grid, sample.temperature) == said
    assert model.config.shape == ((3, 256, 256) if "upsample" in name else (3, 64, 64))
    assert model.low_res == ((64, 64) if "upsample" in name else None)
    assert model.config.training["preset"] == name


def test_what_a_wrong_preset_differs_in_is_said_and_which_fits() -> None:
    state = on_meta("upsample")
    with pytest.raises(BadValue) as refused:
        convert(state, plan_of(state, "glide", "base"))
    first, _, rest = str(refused.value).partition("\n")
    assert "in_channels 6 where base has 3" in first and "xf_width" not in first
    assert "it fits --preset upsample" in rest


def test_a_network_of_ones_own_size_fits_no_preset() -> None:
    with pytest.raises(BadValue, match=r"fits no preset \(guidon convert presets lists them\)$"):
        plan_of(State(theirs(tiny())), "glide")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"xf_width": 0}, "never released"),
        ({"xf_ar": 0.1}, "never released"),
        ({"num_classes": 3}, "never released"),
        ({"widht": 3}, "'widht'"),
        ({"kind": "Text3ImUNet"}, "no class 'Text3ImUNet'"),
        ({"schedule": "cosine"}, "squaredcos_cap_v2"),
        ({"small": 4}, "leave small out"),
        ({"kind": "SuperResText2ImUNet"}, "say their side"),
    ],
)
def test_arguments_that_make_no_network(changes: dict[str, Any], says: str) -> None:
    options = {name: changes[name] for name in ("kind", "schedule", "small") if name in changes}
    arguments = TINY | {name: value for name, value in changes.items() if name not in options}
    with pytest.raises(BadValue, match=says):
        network_blueprint(arguments, side=16, **options)
    with pytest.raises(BadValue, match="xf_heads is not given"):
        network_blueprint({name: value for name, value in TINY.items() if name != "xf_heads"}, side=16)


# --- vocabularies


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = str(gpt2_files(tmp_path, ["r e", "re d"]))
    with pytest.raises(BadValue, match="has 259 tokens, and it was trained with another"):
        tokenizer_of(plan(tiny()), folder)
    with pytest.raises(BadValue, match="leave --vocab out"):
        tokenizer_of(Plan("dit", "a DiT", FAMILIES["dit"]["s-2-256"].blueprint()), folder)
    assert tokenizer_of(Plan("dit", "a DiT", FAMILIES["dit"]["s-2-256"].blueprint())) is None
    with pytest.raises(BadValue, match="has 518 tokens, and clip"):
        tokenizer_of(Plan("glide", "clip", PRESETS["clip"].blueprint()), str(clip_file(tmp_path)))


# --- CLIP


def tiny_clip(tmp_path: Path) -> tuple[Blueprint, dict[str, Tensor]]:
    described = clip_blueprint(TINY_CLIP.model_dump())
    tokenizer = clip_tokenizer(clip_file(tmp_path / "vocabulary"))
    described.config["tokenizer"].update(tokenizer.config.model_dump())  # that of the small vocabulary
    return described, theirs(described)


def parts(state: dict[str, Tensor]) -> list[State]:
    """Return the two files that a checkpoint of CLIP comes in."""
    return [
        State({name.removeprefix(f"{which}."): value for name, value in state.items() if name.startswith(f"{which}.")})
        for which in ("image", "text")
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_the_two_files_of_clip_become_one(turned: bool, tmp_path: Path) -> None:
    described, state = tiny_clip(tmp_path)
    image, text = parts(state)
    assert {"blocks.input.w_t", "blocks.block_0.f_attn.f_q.w", "blocks.block_0.f_mlp.ln.g"} <= image.tensors.keys()
    assert {"blocks.input.w_voc", "blocks.block_1.f_mlp.f_2.b", "blocks.output.f.w"} <= text.tensors.keys()
    found = together([text, image] if turned else [image, text])
    assert all(torch.equal(found.tensors[name], value) for name, value in state.items())
    tokenizer = tokenizer_of(plan(described), str(tmp_path / "vocabulary"))
    made = convert(found, plan(described))
    made.tokenizer = tokenizer  # type: ignore[assignment]
    made.save_pretrained(tmp_path / "clip")
    clip = Clip.from_pretrained(tmp_path / "clip")
    there = clip.state_dict()
    assert len(there) == len(state)
    assert all(torch.equal(there[name], state[described.keys.to_theirs(name)]) for name in there)
    x, level = torch.zeros(1, 3, 8, 8), clip.process.level(5.0)
    assert clip.log_prob(x, level, told_to_clip(clip, ["red cat"])).isfinite().all()


def test_one_file_of_clip_or_two_of_a_kind_are_not_enough(tmp_path: Path) -> None:
    image, text = parts(tiny_clip(tmp_path)[1])
    network = State(theirs(tiny()))
    for states, says in [
        ([image], "the image encoder$"),
        ([text, text], "the text encoder and the text encoder"),
        ([image, network], "the image encoder and another network"),
        ([network, network], "another network and another network"),
    ]:
        with pytest.raises(BadValue, match=says):
            together(states)
    assert together([network]) is network


def test_the_encoders_of_another_clip_are_said_to_differ(tmp_path: Path) -> None:
    found = together(parts(tiny_clip(tmp_path)[1]))
    assert sizes(found.shapes)["n_xf_blocks_text"] == 2
    with pytest.raises(BadValue, match=r"n_timesteps 20 where clip has 1000.*n_xf_blocks_image 1 where clip has 12"):
        convert(found, plan_of(found, "glide", "clip"))


def test_another_architecture_is_named() -> None:
    with pytest.raises(NotSupported, match="guidon convert guided-diffusion"):
        plan_of(State({name: torch.ones(1, 3, 1) for name in ADM}), "glide", "base")


ADM = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight", "output_blocks.0.0.x")
