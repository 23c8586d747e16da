"""DiT's checkpoints: the same numbers out of what was converted, positions that must be the computed ones, every preset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.golden import GOLDEN, settings, tensors, tolerance
from safetensors.torch import load_file
from torch import Tensor

from guidon.app.conversion import Plan, build, convert, plan_of
from guidon.checkpoints.dit import DIT, POSITIONS, dit_blueprint, dit_config, sizes
from guidon.checkpoints.foreign import Blueprint
from guidon.checkpoints.presets import FAMILIES
from guidon.checkpoints.reading import State, read_state
from guidon.conditioning import Labels
from guidon.errors import BadValue, NotSupported, UnknownName
from guidon.model import Model, load

PRESETS = FAMILIES["dit"].presets
CASES = [path.stem for path in sorted(GOLDEN.glob("dit*.json")) if settings(path.stem).get("class") == "DiT"]
golden_needed = pytest.mark.skipif(not CASES, reason=f"no DiT fixtures in {GOLDEN}; set GUIDON_GOLDEN")
TINY = {"input_size": 8, "hidden_size": 32, "depth": 2, "num_heads": 4, "num_classes": 7}


def plan(described: Blueprint) -> Plan:
    return Plan("dit", "it", described)


def theirs(described: Blueprint) -> dict[str, Tensor]:
    """Return random tensors for a network under DiT's names, with its positions."""
    state = {DIT.to_theirs(name): torch.randn(value.shape) for name, value in build(described).state_dict().items()}
    return state | described.computed


def on_meta(name: str) -> State:
    """Return the shapes of a preset's checkpoint, without numbers but for its positions."""
    described = PRESETS[name].blueprint()
    shapes = {n: tuple(value.shape) for n, value in build(described).state_dict().items()}
    empty = {n: torch.empty(shape, device="meta") for n, shape in described.shapes_there(shapes).items()}
    return State(empty | described.computed)


@golden_needed
@pytest.mark.parametrize("case", CASES)
def test_a_converted_model_gives_the_numbers_of_the_original(case: str, tmp_path: Path) -> None:
    told, golden = settings(case), tensors(case)
    described = dit_blueprint(told["config"])
    convert(State(load_file(GOLDEN / told["weights"])), plan(described)).save_pretrained(tmp_path / "model")
    model = load(tmp_path / "model")
    assert len(model.classes or ()) == told["config"]["num_classes"] and model.has_null
    with torch.no_grad():
        context = model.encode(Labels(golden["y"], told["config"]["num_classes"]))
        out = model.network(golden["x"], golden["t_int"], context)
    assert (out - golden["out"]).abs().max() <= tolerance(case, "out")


@golden_needed
@pytest.mark.parametrize("case", CASES)
def test_positions_that_are_not_sines_and_cosines_are_refused(case: str) -> None:
    told = settings(case)
    state = load_file(GOLDEN / told["weights"])
    described = dit_blueprint(told["config"])
    convert(State({**state, POSITIONS: state[POSITIONS] + 1e-3}), plan(described))  # averaging over a training rounds
    with pytest.raises(BadValue, match=r"pos_embed is up to 0\.1 from"):
        convert(State({**state, POSITIONS: state[POSITIONS] + 0.1}), plan(described))
    with pytest.raises(BadValue, match="positions 4 where it has 16"):
        convert(State({**state, POSITIONS: state[POSITIONS][:, :4]}), plan(described))
    del state[POSITIONS]
    convert(State(state), plan(described))  # they are the same whether told or not


@pytest.mark.parametrize(("dropped", "rows"), [(0.1, 8), (0.0, 7)])
def test_the_null_is_the_last_row_where_there_is_one(dropped: float, rows: int) -> None:
    described = dit_blueprint({**TINY, "class_dropout_prob": dropped})
    state = theirs(described)
    table = state["y_embedder.embedding_table.weight"]
    assert len(table) == rows
    model = convert(State(state), plan(described))
    assert isinstance(model, Model) and model.has_null is (rows == 8)
    if rows == 8:
        assert torch.equal(model.encode(model.condition([None])).vector[0], table[7])
    assert torch.equal(model.encode(model.condition(["6"])).vector[0], table[6])


def test_of_a_training_checkpoint_the_averaged_weights_are_taken(tmp_path: Path) -> None:
    described = dit_blueprint(TINY)
    state, other = theirs(described), theirs(described)
    held = {
        "model": other,
        "ema": state,
        "opt": {"state": {}, "param_groups": []},
        "args": argparse.Namespace(vae="ema"),
    }
    torch.save(held, tmp_path / "0400000.pt")
    read = read_state(tmp_path / "0400000.pt")
    found = convert(read, plan(described)).state_dict()
    assert read.part == "ema"
    assert all(torch.equal(value, state[DIT.to_theirs(name)]) for name, value in found.items())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("xl-2-256", 675_129_632), ("l-2-256", 458e6), ("b-2-256", 130e6), ("s-2-256", 33e6)],  # arXiv 2212.09748, table 1
)
def test_a_preset_has_as_many_parameters_as_are_known(name: str, parameters: float) -> None:
    described = PRESETS[name].blueprint()
    count = sum(value.numel() for value in (*build(described).state_dict().values(), *described.computed.values()))
    assert count == parameters if name == "xl-2-256" else abs(count - parameters) < 1e6


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_told_from_the_others(name: str) -> None:
    state = on_meta(name)
    with pytest.raises(BadValue, match=rf"it fits --preset {name}$"):
        plan_of(state, "dit")


def test_a_preset_is_of_latents_of_an_eighth_of_the_side() -> None:
    config = PRESETS["xl-2-512"].blueprint().config
    assert config["shape"] == (4, 64, 64) and config["learned_variance"] and config["null"]
    assert config["sample"]["rule"] == "cfg(4)" and len(config["classes"]) == 1000
    assert PRESETS["xl-2-512"].file == "DiT-XL-2-512x512.pt" and PRESETS["s-8-256"].file == ""


def test_what_a_wrong_preset_differs_in_is_said_and_which_fits() -> None:
    state = on_meta("s-2-256")
    with pytest.raises(BadValue) as refused:
        convert(state, plan_of(state, "dit", "s-4-512"))
    assert "patch_size 2 where s-4-512 has 4" in str(refused.value)
    assert "hidden_size" not in str(refused.value).partition("\n")[0]
    assert "it fits --preset s-2-256" in str(refused.value)


def test_other_classes_are_counted_without_the_null() -> None:
    described = PRESETS["s-2-256"].blueprint(classes=tuple("abc"))
    state = State(theirs(described))
    with pytest.raises(BadValue, match=r"rows of y_embedder 4 where s-2-256 has 1001[^$]*s-2-256 with --classes 3"):
        convert(state, plan_of(state, "dit", "s-2-256"))
    assert convert(state, plan_of(state, "dit", "s-2-256", classes=("x", "y", "z"))).classes == ("x", "y", "z")


def test_another_architecture_is_named() -> None:
    with pytest.raises(NotSupported, match=r"looks like a UNet of diffusers; guidon convert dit takes"):
        plan_of(
            State({name: torch.ones(1) for name in ("conv_in.weight", "down_blocks.0.a", "up_blocks.0.a")}),
            "dit",
            "xl-2-256",
        )


def test_constructor_arguments_are_the_originals() -> None:
    config: Any = dit_config(
        {"hidden_size": 64, "num_heads": 2, "learn_sigma": False, "mlp_ratio": 2.0, "patch_size": 4}
    )
    assert (config.width, config.heads, config.mlp_ratio, config.patch, config.depth) == (64, 2, 2.0, 4, 28)
    assert config.in_channels == config.out_channels == 4
    assert dit_blueprint({}).config["shape"] == (4, 32, 32)
    with pytest.raises(BadValue, match="width"):
        dit_config({"width": 64})


OWN = {
    "input_size": 12,
    "patch_size": 3,
    "in_channels": 5,
    "hidden_size": 24,
    "depth": 3,
    "num_heads": 6,
    "mlp_ratio": 2.3,
    "num_classes": 4,
    "learn_sigma": False,
}


@pytest.mark.parametrize(
    "changed", [{}, {"learn_sigma": True, "hidden_size": 76, "num_heads": 4, "mlp_ratio": 4.3289475}]
)
def test_a_size_of_ones_own_is_read_off_the_shapes(changed: dict[str, Any]) -> None:
    arguments = OWN | changed
    described = dit_blueprint(arguments)
    state = State(theirs(described))
    made = plan_of(state, "dit", heads=arguments["num_heads"])
    assert {**made.blueprint.config, "architecture": {}, "training": {}} == {
        **described.config,
        "architecture": {},
        "training": {},
    }
    assert build(made.blueprint).config.architecture | {"mlp_ratio": 0} == described.config["architecture"] | {
        "mlp_ratio": 0
    }
    found = convert(state, made).state_dict()
    assert all(torch.equal(value, state.tensors[DIT.to_theirs(name)]) for name, value in found.items())


def test_the_side_of_the_latents_is_asked_for_only_where_no_positions_tell_it() -> None:
    state = theirs(dit_blueprint(OWN))
    with pytest.raises(BadValue, match="positions 16 where a DiT of 6 heads on latents of side 9 has 9"):
        convert(State(state), plan_of(State(state), "dit", heads=6, size=9))
    del state[POSITIONS]
    with pytest.raises(BadValue, match=r"pos_embed.*--size"):
        plan_of(State(state), "dit", heads=6)
    model = convert(State(state), plan_of(State(state), "dit", heads=6, size=9))
    assert isinstance(model, Model) and model.config.shape == (5, 9, 9)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"heads": 5}, "24 of the file does not divide into 5 heads"),
        ({"heads": 0}, "0 heads"),
        ({"heads": 6, "size": 10}, "multiple of the file's patch 3, not 10"),
        ({"heads": 6, "size": 0}, "patch 3, not 0"),
        ({"heads": 6, "preset": "s-2-256"}, "one of them, not both"),
        ({"size": 12, "preset": "s-2-256"}, "one of them, not both"),
        ({"size": 12}, "by --preset or by --heads.*give its number of attention heads"),
        ({"heads": 6, "classes": ("a", "b")}, "the file has 4 classes, --classes gives 2"),
    ],
)
def test_sizes_of_ones_own_that_cannot_be_are_refused(told: dict[str, Any], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        plan_of(State(theirs(dit_blueprint(OWN))), "dit", **told)


def test_the_beginning_of_a_presets_name_is_answered_with_one_that_begins_so() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 's-2-256'\?"):
        plan_of(on_meta("s-2-256"), "dit", "s-2")


@golden_needed
def test_sizes_are_read_off_shapes() -> None:
    told = settings(CASES[0])["config"]
    found = sizes(State(load_file(GOLDEN / settings(CASES[0])["weights"])).shapes)
    assert found["hidden_size"] == told["hidden_size"] and found["depth"] == told["depth"]
    assert found["patch_size"] == told["patch_size"] and found["out_channels"] == 2 * told["in_channels"]
    assert found["positions"] == (told["input_size"] // told["patch_size"]) ** 2
