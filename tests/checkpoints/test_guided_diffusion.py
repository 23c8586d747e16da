"""guided-diffusion's checkpoints: every preset, every flag, and the same numbers out of what was converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity.golden import GOLDEN, settings, tensors, tolerance
from safetensors.torch import load_file
from torch import Tensor

from guidon.app.conversion import Plan, build, convert, plan_of
from guidon.checkpoints.foreign import Blueprint
from guidon.checkpoints.guided_diffusion import (
    ENCODER,
    UNET,
    classifier_blueprint,
    encoder_config,
    model_blueprint,
    sizes,
    unet_config,
)
from guidon.checkpoints.guided_flags import DEFAULTS, RUNNING, blueprint, read_flags
from guidon.checkpoints.presets import FAMILIES
from guidon.checkpoints.reading import State
from guidon.classifier_request import load_classifier
from guidon.conditioning import Context, Labels
from guidon.errors import BadValue, DamagedCheckpoint, NotSupported, UnknownName
from guidon.model import load
from guidon.models.unet import UNet
from guidon.noise.tables import VPTable
from guidon.registry import parse

PRESETS = FAMILIES["guided-diffusion"].presets
NETWORKS = [path.stem for path in sorted(GOLDEN.glob("adm_*.json"))]
UNETS = [case for case in NETWORKS if settings(case).get("class") == "UNetModel"]
CLASSIFIERS = [case for case in NETWORKS if settings(case).get("class") == "EncoderUNetModel"]
TINY = {
    "image_size": 16,
    "large_size": 16,
    "small_size": 4,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "8",
    "num_head_channels": 16,
    "learn_sigma": True,
    "class_cond": True,
    "classifier_width": 64,
    "classifier_depth": 1,
    "classifier_attention_resolutions": "8",
}


def theirs(plan: Blueprint, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors for a network, under the names and in the shapes that its checkpoint has."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, value in build(plan).state_dict().items():
        drawn = torch.randn(value.shape, generator=generator) / 8
        there = plan.keys.to_theirs(name)
        row = next(row for row in plan.keys.rows if row.to_theirs(name) is not None)
        state[there] = drawn[..., None] if row.linear and drawn.ndim == 2 else drawn
    return state


def plan(blueprint: Blueprint) -> Plan:
    return Plan("guided-diffusion", "it", blueprint)


# --- the same numbers


@pytest.mark.skipif(not UNETS, reason=f"no ADM fixtures in {GOLDEN}; set GUIDON_GOLDEN")
@pytest.mark.parametrize("case", UNETS)
def test_a_converted_model_gives_the_numbers_of_the_original(case: str, tmp_path: Path) -> None:
    told, golden = settings(case), tensors(case)
    described = model_blueprint(told["config"])
    convert(State(load_file(GOLDEN / told["weights"])), plan(described)).save_pretrained(tmp_path / "model")
    model = load(tmp_path / "model")
    assert model.config.learned_variance is told["learn_sigma"]
    context = Context() if model.classes is None else model.encode(Labels(golden["y"], len(model.classes)))
    for kind in ("int", "float"):
        with torch.no_grad():
            out = model.network(golden["x"], golden[f"t_{kind}"], context)
        assert (out - golden[f"out_{kind}"]).abs().max() <= tolerance(case, f"out_{kind}")


@pytest.mark.skipif(not CLASSIFIERS, reason=f"no classifier in {GOLDEN}; set GUIDON_GOLDEN")
@pytest.mark.parametrize("case", CLASSIFIERS)
def test_a_converted_classifier_gives_the_numbers_of_the_original(case: str, tmp_path: Path) -> None:
    told, golden = settings(case), tensors(case)
    described = classifier_blueprint(told["config"])
    convert(State(load_file(GOLDEN / told["weights"])), plan(described)).save_pretrained(tmp_path / "judge")
    judge = load_classifier(tmp_path / "judge")
    for kind in ("int", "float"):
        error = (judge.network(golden["x"], golden[f"t_{kind}"]) - golden[f"logits_{kind}"]).abs().max()
        assert error <= tolerance(case, f"logits_{kind}")
    level = judge.process.level(float(golden["t_int"][0]))  # through the process, the classifier is shown x itself
    found = judge.logits(golden["x"][:1], level)
    assert (found - golden["logits_int"][:1]).abs().max() <= tolerance(case, "logits_int")


def test_an_upsampler_sees_the_small_image_after_the_noisy_one(tmp_path: Path) -> None:
    described = blueprint(TINY, "upsampler", count=3)
    state = theirs(described)
    assert state["input_blocks.0.0.weight"].shape == (32, 6, 3, 3)
    model = convert(State(state), plan(described))
    assert model.config.low_res == (4, 4) and model.config.shape == (3, 16, 16)
    # as SuperResModel: one image of six channels through a plain network
    plain = UNet(unet_config({**constructor(), "in_channels": 6, "num_classes": None}))
    plain.load_state_dict({name: value for name, value in flat(state).items() if name != "label_emb.weight"})
    x, small, time = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        ours = model.network(x, time, Context(vector=torch.zeros(2, 128), spatial=small))
        assert torch.allclose(ours, plain.eval()(torch.cat([x, small], 1), time), atol=1e-6)


def constructor() -> dict[str, Any]:
    return {
        "image_size": 16,
        "in_channels": 3,
        "model_channels": 32,
        "out_channels": 6,
        "num_res_blocks": 1,
        "attention_resolutions": (2,),
        "channel_mult": (1, 2),
        "num_head_channels": 16,
        "use_scale_shift_norm": True,
    }


def flat(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.squeeze(-1) if value.ndim == 3 else value for name, value in state.items()}


@pytest.mark.parametrize("script", ["image", "upsampler", "classifier"])
def test_every_kind_is_converted_saved_and_loaded_value_by_value(script: Any, tmp_path: Path) -> None:
    described = blueprint(TINY, script, count=3)
    state = theirs(described)
    convert(State(state), plan(described)).save_pretrained(tmp_path / "it")
    loaded = (load_classifier if script == "classifier" else load)(tmp_path / "it")
    found = loaded.state_dict()
    assert len(found) == len(state)
    assert all(torch.equal(found[name].flatten(), state[described.keys.to_theirs(name)].flatten()) for name in found)
    assert loaded.classes == ("0", "1", "2")
    assert loaded.process == VPTable("linear")


@pytest.mark.parametrize("pool", ["adaptive", "attention", "spatial", "spatial_v2"])
def test_every_pool_of_a_classifier_is_converted(pool: str) -> None:
    flags = {**TINY, "classifier_pool": pool}
    described = blueprint(flags, "classifier", count=3)
    state = theirs(described)
    assert (
        state["out.3.weight"].ndim == (4 if pool == "adaptive" else 2)
        if "out.3.weight" in state
        else pool != "adaptive"
    )
    found = convert(State(state), plan_of(State(state), "guided-diffusion", flags=line(flags)))
    assert found.classes == ("0", "1", "2")
    assert all(
        torch.equal(value.flatten(), state[ENCODER.to_theirs(name)].flatten())
        for name, value in found.state_dict().items()
    )


# --- nothing twice, nothing shared, nothing by halves


def test_values_stay_where_they_were_read() -> None:
    described = blueprint(TINY, "image", count=3)
    state = theirs(described)
    held = convert(State(state), plan(described)).state_dict()
    assert all(held[name].data_ptr() == state[described.keys.to_theirs(name)].data_ptr() for name in held)


def test_halves_become_floats_and_shared_memory_is_parted(tmp_path: Path) -> None:
    described = blueprint(TINY, "image", count=3)
    state = theirs(described)
    state["out.2.bias"] = state["out.2.bias"].half()
    state["time_embed.2.bias"] = state["time_embed.0.bias"]
    convert(State(state), plan(described)).save_pretrained(tmp_path / "it")
    found = load(tmp_path / "it").state_dict()
    assert torch.equal(found["denoiser.network.out.2.bias"], state["out.2.bias"].float())
    assert torch.equal(found["denoiser.network.time_embed.2.bias"], state["time_embed.0.bias"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("middle_block.1.qkv.bias"), "1 missing: middle_block.1.qkv.bias"),
        (lambda state: state.update({"output_blocks.9.0.x": torch.ones(1)}), "1 extra: output_blocks.9.0.x"),
        (
            lambda state: state.update({"out.2.bias": torch.ones(5)}),
            r"1 of another shape: out.2.bias \(5,\) where \(6,\)",
        ),
        (lambda state: state.update({"out.2.bias": torch.ones(6).int()}), "out.2.bias of torch.int32"),
    ],
)
def test_one_tensor_that_does_not_fit_is_enough_to_refuse(change: Any, says: str) -> None:
    described = blueprint(TINY, "image", count=3)
    state = theirs(described)
    change(state)
    with pytest.raises(BadValue, match=says):
        convert(State(state), plan(described))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    described = blueprint(TINY, "image", count=3)
    state = theirs(described)
    for name in ("label_emb.weight", "out.2.bias"):
        state[name] = state[name].double()
        state[name].view(-1)[-1] = value  # the last, far too great for a float32
    with pytest.raises(
        DamagedCheckpoint, match=rf"2 of the file's {len(state)} tensors, first in (label_emb.w|out.2.b)"
    ):
        convert(State(state), plan(described))


# --- presets


@pytest.mark.parametrize(
    ("name", "millions"),  # arXiv 2105.05233, the tables of hyperparameters
    [
        ("imagenet64", 296),
        ("imagenet128", 422),
        ("imagenet256", 554),
        ("imagenet512", 559),
        ("upsample64-256", 312),
        ("upsample128-512", 309),
        ("lsun-bedroom", 553),
        ("classifier64", 65),
        ("classifier128", 43),
        ("classifier256", 54),
        ("classifier512", 54),
    ],
)
def test_a_preset_has_as_many_parameters_as_the_paper_says(name: str, millions: int) -> None:
    network = build(PRESETS[name].blueprint())
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


def test_every_released_checkpoint_has_a_preset() -> None:
    stems = {preset.file.removesuffix(".pt") for preset in PRESETS.values()}
    assert stems == {
        *(f"{side}x{side}_{kind}" for side in (64, 128, 256, 512) for kind in ("diffusion", "classifier")),
        *("256x256_diffusion_uncond", "64_256_upsampler", "128_512_upsampler"),
        *("lsun_bedroom", "lsun_cat", "lsun_horse", "lsun_horse_nodropout"),
    }


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_the_sampling_of_its_authors_does(name: str) -> None:
    config = PRESETS[name].blueprint().config
    cosine = name in ("imagenet64", "classifier64")
    assert parse("process", config["process"]) == VPTable("cosine" if cosine else "linear")
    if name.startswith("classifier"):
        assert len(config["classes"]) == 1000 and config["architecture"]["pool"] == "attention"
        return
    assert config["output"] == "eps" and config["learned_variance"]
    if name.startswith(("imagenet", "upsample")) and "uncond" not in name:
        assert config["classes"][:2] == ("0", "1") and len(config["classes"]) == 1000 and not config["null"]
    else:
        assert config["classes"] is None
    small = {"upsample64-256": (64, 64), "upsample128-512": (128, 128)}
    assert config["low_res"] == small.get(name)
    assert parse("rule", config["sample"]["rule"]) is not None


def test_attention_stands_at_the_sides_that_the_flags_name() -> None:
    factors = {name: unet.blueprint().config["architecture"]["attention"] for name, unet in PRESETS.items()}
    assert factors["imagenet64"] == (2, 4, 8) and factors["imagenet128"] == (4, 8, 16)
    assert factors["imagenet256"] == (8, 16, 32) == factors["upsample64-256"]
    assert factors["imagenet512"] == (16, 32, 64) and factors["upsample128-512"] == (16, 32)
    assert factors["classifier64"] == (2, 4, 8) and factors["classifier512"] == (16, 32, 64)


def test_heads_and_orders_that_no_shape_tells_are_those_of_the_flags() -> None:
    told = {name: preset.blueprint().config["architecture"] for name, preset in PRESETS.items()}
    assert {name for name, shape in told.items() if shape["head_channels"] is None} == {"imagenet128", "upsample64-256"}
    assert {shape["head_channels"] for shape in told.values()} == {None, 64}
    assert told["imagenet128"]["heads"] == told["upsample64-256"]["heads"] == 4
    assert {name for name, shape in told.items() if shape["attention_order"] == "qkv-first"} == {"imagenet64"}
    dropped = {name for name, shape in told.items() if shape["dropout"]}
    assert dropped == {"imagenet64", "lsun-bedroom", "lsun-cat", "lsun-horse"}


def test_what_a_wrong_preset_differs_in_is_said_and_which_fits() -> None:
    right = PRESETS["imagenet64"].blueprint()
    state = State({name: torch.empty(shape, device="meta") for name, shape in on_paper(right).items()})
    with pytest.raises(BadValue) as refused:
        convert(state, plan_of(state, "guided-diffusion", "imagenet256"))
    assert "model_channels 192 where imagenet256 has 256" in str(refused.value)
    assert "fits --preset imagenet64" in str(refused.value)
    assert "nothing was written" in str(refused.value)


def test_presets_of_one_size_are_all_named() -> None:
    state = State(
        {name: torch.empty(shape, device="meta") for name, shape in on_paper(PRESETS["lsun-cat"].blueprint()).items()}
    )
    with pytest.raises(
        BadValue, match=r"imagenet256-uncond or lsun-bedroom or lsun-cat or lsun-horse or lsun-horse-no"
    ):
        plan_of(state, "guided-diffusion")
    convert(state, plan_of(state, "guided-diffusion", "lsun-horse"))  # no shape tells them apart


def on_paper(described: Blueprint) -> dict[str, tuple[int, ...]]:
    wanted = {name: tuple(value.shape) for name, value in build(described).state_dict().items()}
    return described.shapes_there(wanted)


def test_of_other_classes_the_count_is_said() -> None:
    state = State(
        {n: torch.empty(s, device="meta") for n, s in on_paper(PRESETS["imagenet64"].blueprint("abc")).items()}
    )
    with pytest.raises(
        BadValue, match=r"num_classes 3 where imagenet64 has 1000.*\n(.*\n)*.*imagenet64 with --classes 3"
    ):
        convert(state, plan_of(state, "guided-diffusion", "imagenet64"))
    assert convert(state, plan_of(state, "guided-diffusion", "imagenet64", classes=("x", "y", "z"))).classes == (
        "x",
        "y",
        "z",
    )
    with pytest.raises(BadValue, match="no classes to name"):
        plan_of(state, "guided-diffusion", "lsun-cat", classes=("x", "y"))


@pytest.mark.parametrize(("case", "what"), [("glide_base", "GLIDE"), ("dit", "use guidon convert dit")])
def test_another_architecture_is_named(case: str, what: str) -> None:
    if not settings(case):
        pytest.skip(f"no {case} in {GOLDEN}")
    with pytest.raises(NotSupported, match=what):
        plan_of(State(load_file(GOLDEN / settings(case)["weights"])), "guided-diffusion", "imagenet64")


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="imagenet256"):
        plan_of(State(theirs(blueprint(TINY, "image"))), "guided-diffusion", "imagenet_256")


# --- flags


def line(flags: dict[str, Any]) -> str:
    return " ".join(f"--{name} {value}" for name, value in flags.items())


@pytest.mark.parametrize("script", ["image", "upsampler", "classifier"])
def test_by_flags_a_checkpoint_says_itself_what_it_is_and_how_many_classes(script: Any) -> None:
    state = State(theirs(blueprint(TINY, script, count=5)))
    made = plan_of(state, "guided-diffusion", flags=line(TINY) + " --batch_size 4 --timestep_respacing ddim25")
    assert made.blueprint.kind == ("classifier" if script == "classifier" else "model")
    assert convert(state, made).classes == tuple("01234")


ANOTHER = {  # by every flag that a shape tells; the side 16 is given
    "image": {
        "num_channels": 64,
        "num_res_blocks": 2,
        "channel_mult": "1,1,2",
        "attention_resolutions": "16,4",
        "use_scale_shift_norm": False,
        "resblock_updown": True,
        "learn_sigma": False,
        "class_cond": False,
    },
    "classifier": {
        "image_size": 32,
        "classifier_width": 128,
        "classifier_depth": 2,
        "channel_mult": "1,1,2",
        "classifier_attention_resolutions": "32,8",
        "classifier_use_scale_shift_norm": False,
        "classifier_resblock_updown": False,
    },
}
ANOTHER["upsampler"] = ANOTHER["image"]


@pytest.mark.parametrize(
    ("script", "name", "value"),
    [(script, name, value) for script in ANOTHER for name, value in ANOTHER[script].items() if name != "image_size"],
)
def test_the_flag_that_would_mend_a_difference_is_named_and_no_other(script: Any, name: str, value: Any) -> None:
    if name.endswith("attention_resolutions"):
        value = "16"  # of two levels
    state = State(theirs(blueprint({**TINY, name: value}, script, count=3)))
    never = {"attention_resolutions": "8,2", "classifier_attention_resolutions": "8,2"}  # no level is of side 2
    plan = plan_of(state, "guided-diffusion", flags=line({**TINY, **never}))
    with pytest.raises(BadValue, match=rf"nothing was written; with --{name} {value} in --flags it fits$"):
        convert(state, plan)


@pytest.mark.parametrize("pool", ["adaptive", "spatial", "spatial_v2"])
def test_the_pool_of_a_classifier_is_named(pool: str) -> None:
    state = State(theirs(blueprint({**TINY, "classifier_pool": pool}, "classifier", count=3)))
    with pytest.raises(BadValue, match=rf"with --classifier_pool {pool} in --flags it fits$"):
        convert(state, plan_of(state, "guided-diffusion", flags=line(TINY)))


@pytest.mark.parametrize("script", ["image", "upsampler", "classifier"])
def test_flags_that_a_message_names_mend_all_differences_at_once(script: Any) -> None:
    state = State(theirs(blueprint({**TINY, **ANOTHER[script]}, script, count=3)))
    with pytest.raises(BadValue, match="in --flags it fits") as refused:
        convert(state, plan_of(state, "guided-diffusion", flags=line(TINY)))
    named = str(refused.value).rpartition("; with ")[2].removesuffix(" in --flags it fits")
    assert read_flags(named) == ANOTHER[script]
    plan = plan_of(state, "guided-diffusion", flags=f"{line(TINY)} {named}")
    assert convert(state, plan).classes == (("0", "1", "2") if script == "classifier" else None)


def test_what_no_flag_mends_is_said() -> None:
    state = theirs(blueprint(TINY, "image", count=3))
    del state["out.2.bias"]
    with pytest.raises(BadValue, match="no flag mends that"):
        convert(State(state), plan_of(State(state), "guided-diffusion", flags=line(TINY)))
    text = line({**TINY, "learn_sigma": False})
    with pytest.raises(BadValue, match="ask for --learn_sigma True in --flags, but that alone does not"):
        convert(State(state), plan_of(State(state), "guided-diffusion", flags=text))


def test_names_of_classes_are_of_the_classes_that_the_file_has() -> None:
    state = State(theirs(blueprint(TINY, "image", count=3)))
    for told in ({"flags": line(TINY)}, {"preset": "imagenet64"}):
        with pytest.raises(BadValue, match=r"the file has 3 classes, --classes gives 2; give --classes 3"):
            plan_of(state, "guided-diffusion", classes=("x", "y"), **told)
    with pytest.raises(BadValue, match="no classes to name; add --class_cond True"):
        plan_of(state, "guided-diffusion", flags=line({**TINY, "class_cond": False}), classes=("x", "y", "z"))


def test_flags_are_read_as_the_scripts_read_them() -> None:
    read = read_flags(
        "--image_size 64 --class_cond=True --use_fp16 True --dropout 0.1 --num_head_channels -1 --lr 3e-4"
    )
    assert read == {"image_size": 64, "class_cond": True, "dropout": 0.1, "num_head_channels": -1}
    assert read_flags("--learn_sigma no --resblock_updown FALSE") == {"learn_sigma": False, "resblock_updown": False}
    assert read_flags("--num_heads_upsample -1 --num_heads 2") == {"num_heads_upsample": -1, "num_heads": 2}
    assert not set(DEFAULTS) & set(RUNNING.split())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("--num_chanels 64", "num_channels"),
        ("--image_size 16 --num_channels", "pairs, and --num_channels has no value; write --num_channels VALUE"),
        ("--class_cond --image_size 64", "--class_cond has no value"),
        ("image_size 64", "pairs, --name value, and 'image_size' stands"),
        ("--class_cond maybe", "True or False"),
        ("--image_size 64.5", "whole number"),
        ("--dropout many", "a number"),
        ("--dropout 1", "at least 0 and less than 1"),
        ("--num_res_blocks 0", "whole number > 0, not '0'"),
        ("--num_channels -1", "whole number > 0"),
        ("--noise_schedule 'cosine", "cannot be read"),
    ],
)
def test_flags_that_cannot_be_read_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        read_flags(text)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"image_size": 48}, "channel_mult"),
        ({"channel_mult": "1,two"}, "channel_mult"),
        ({"attention_resolutions": "0"}, "attention_resolutions"),
        ({"noise_schedule": "square"}, "table"),
    ],
)
def test_flags_that_describe_no_network_are_refused(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        blueprint({**TINY, "channel_mult": "", "image_size": 64, **flags}, "image")


def test_flags_of_the_process_are_taken() -> None:
    told = {
        **TINY,
        "noise_schedule": "cosine",
        "diffusion_steps": 20,
        "rescale_timesteps": True,
        "predict_xstart": True,
    }
    config = blueprint(told, "image").config
    assert parse("process", config["process"]) == VPTable("cosine", 20, rescale_clock=True)
    assert config["output"] == "x0" and config["sample"]["steps"] == 20
    assert not blueprint({**TINY, "learn_sigma": False}, "image").config["learned_variance"]


# --- constructors


def test_arguments_left_out_are_the_constructors_defaults() -> None:
    given = {
        name: value for name, value in constructor().items() if not name.startswith(("channel", "num_head", "use"))
    }
    config = unet_config(given)
    assert config.channel_mult == (1, 2, 4, 8) and config.heads == 1 and config.head_channels is None
    assert not config.scale_shift and not config.resblock_updown and config.vector is None
    assert config.decoder_heads is None and unet_config({**given, "num_heads_upsample": 2}).decoder_heads == 2
    assert encoder_config({**given, "out_channels": 4}).pool == "average"


def test_attention_where_no_level_is_never_comes_about() -> None:
    assert unet_config({**constructor(), "attention_resolutions": (0, 2, 3, 16)}).attention == (2,)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"dims": 3}, "2 dimensions"), ({"colour": 1}, "colour"), ({"image_size": None}, "image_size")],
)
def test_arguments_that_no_network_here_has_are_refused(change: dict[str, Any], says: str) -> None:
    given = {name: value for name, value in {**constructor(), **change}.items() if value is not None}
    with pytest.raises(BadValue, match=says):
        unet_config(given)


def test_sizes_are_read_off_shapes() -> None:
    found = sizes(on_paper(PRESETS["upsample128-512"].blueprint()))
    assert found["model_channels"] == 192 and found["in_channels"] == 6 and found["num_classes"] == 1000
    assert found["input_blocks"] == 18 and found["attention after input_blocks"] == [13, 14, 16, 17]
    assert found["resblock_updown"] and found["use_scale_shift_norm"]
    plain = sizes(on_paper(blueprint({**TINY, "use_scale_shift_norm": False}, "image")))
    assert not plain["resblock_updown"] and not plain["use_scale_shift_norm"]


@pytest.mark.parametrize("keys", [UNET, ENCODER])
def test_every_name_of_the_golden_checkpoints_survives_the_way_there_and_back(keys: Any) -> None:
    for case in UNETS if keys is UNET else CLASSIFIERS:
        names = load_file(GOLDEN / settings(case)["weights"])
        assert {keys.to_theirs(name) for name in keys.translate(names)} == set(names)
