"""Fine-tuning changes what it may and nothing else, stops and goes on to the last bit, and makes the loss on unseen images fall."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import pictures
from support.text_models import text_model
from training.tiny import tiny_recipe
from training.tiny_finetune import ARCHITECTURE, base_of_texts, tiny_finetune

from guidon.conditioning import Labels
from guidon.errors import BadRecipe, DamagedCheckpoint, DataError, MissingFile
from guidon.model import Model, load
from guidon.model_config import ModelConfig
from guidon.training.adapt import LoRA, add_adapter, attention_maps, changed_share, merge, trained_share
from guidon.training.finetune_recipe import FinetuneRecipe, read_report
from guidon.training.loop import _finish as finish
from guidon.training.loop import train
from guidon.training.optimizer import build_optimizers
from guidon.training.trainer import Step, Trainer
from guidon.training.validate import Validation, note, read_validation, validation_loss

DIT = {"patch": 2, "width": 16, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finetune")
    base_of_texts(root, dropout=0.1)
    pictures.parquet(root / "data", 60)
    return root


@pytest.fixture
def tuned(root: Path, tmp_path: Path) -> Callable[..., tuple[Model, dict[str, torch.Tensor]]]:
    """Fine-tune the base and return the model that is in the run's folder, and the base's weights."""

    def run(**settings: Any) -> tuple[Model, dict[str, torch.Tensor]]:
        train(tiny_finetune(root / "base", root / "data", **settings), tmp_path / "run", progress=False)
        return load(tmp_path / "run"), dict(load(root / "base").state_dict())

    return run


def differing(before: dict[str, torch.Tensor], after: Model) -> set[str]:
    state = after.state_dict()
    assert state.keys() == before.keys()
    return {name for name, value in before.items() if not torch.equal(value, state[name])}


def nothing_but(error: type[Exception], match: str, recipe: FinetuneRecipe, out: Path) -> None:
    with pytest.raises(error, match=match):
        train(recipe, out, progress=False)


# --- what changes ----------------------------------------------------------------------------------------------------------


def test_without_freezing_every_weight_is_trained(tuned: Callable[..., Any], tmp_path: Path) -> None:
    model, before = tuned(steps=3)
    untouched = before.keys() - differing(before, model)
    assert all(name.endswith("token_embedding.weight") for name in untouched), "but of tokens that no caption holds"
    report = read_report(tmp_path / "run")
    assert report["trained_share"] == 1
    assert report["changed_share"] == pytest.approx(changed_share(before, model.state_dict()))


@pytest.mark.parametrize("half", ["text", "network"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_frozen_stays_to_the_last_bit(
    half: str, optimizer: str, tuned: Callable[..., Any], tmp_path: Path
) -> None:
    model, before = tuned(adapt={"freeze": half}, optimizer=optimizer, weight_decay=0.1, steps=4)
    prefix = {"text": "encoder.", "network": "denoiser.network."}[half]
    changed = differing(before, model)
    assert changed
    assert not [name for name in changed if name.startswith(prefix)]
    others = [name for name in before if not name.startswith(prefix)]
    assert len(changed) == len(others)
    size = sum(before[name].numel() for name in others) / sum(value.numel() for value in before.values())
    assert read_report(tmp_path / "run")["trained_share"] == pytest.approx(size)


def test_lora_trains_a_few_weights_and_what_it_learns_is_merged_and_kept(
    root: Path, tuned: Callable[..., Any], tmp_path: Path
) -> None:
    model, before = tuned(adapt={"lora": {"rank": 2, "alpha": 6}}, steps=6, lr=0.02)
    maps = attention_maps(load(root / "base"))
    assert differing(before, model) == {f"{name}.weight" for name in maps}
    report = read_report(tmp_path / "run")
    assert model.config.training["finetuned"] == report
    ranks = sum(2 * sum(before[f"{name}.weight"].shape) for name in maps)
    assert report["trained_share"] == pytest.approx(ranks / sum(value.numel() for value in before.values()))
    assert report["trained_share"] < 0.05
    assert type(model.network.middle_block[1].qkv) is torch.nn.Linear, "an ordinary model"

    settings = json.loads((tmp_path / "run/lora.json").read_text())
    assert (settings["rank"], settings["alpha"], settings["maps"]) == (2, 6.0, sorted(maps))
    adapter = load_file(tmp_path / "run/lora.safetensors")
    name = settings["maps"][0]
    added = 3 * adapter[f"{name}.lora_B.weight"] @ adapter[f"{name}.lora_A.weight"]
    torch.testing.assert_close(
        model.state_dict()[f"{name}.weight"], before[f"{name}.weight"] + added, atol=1e-6, rtol=0
    )
    again = load(root / "base")
    add_adapter(again, tmp_path / "run")
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, atol=1e-6, rtol=0)


def test_a_merged_model_says_what_the_one_with_additions_said(root: Path) -> None:
    recipe = tiny_finetune(root / "base", root / "data", adapt={"lora": {"rank": 3}})
    model = recipe.build((1, 8, 8), None).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)

    def said() -> torch.Tensor:
        told = model.encode(model.condition(["a photo of a 3", "", "a 7"]))
        x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return model.denoiser.raw(x, model.process.level(0.5), told)

    with_additions, plain = said(), load(root / "base")
    merge(model)
    torch.testing.assert_close(said(), with_additions, atol=1e-5, rtol=0)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert (with_additions - _plain(plain)).abs().max() > 1e-2, "the additions say something"


def _plain(model: Model) -> torch.Tensor:
    told = model.encode(model.condition(["a photo of a 3", "", "a 7"]))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.denoiser.raw(x, model.process.level(0.5), told)


def test_lora_before_the_first_step_changes_nothing(root: Path) -> None:
    model = tiny_finetune(root / "base", root / "data", adapt={"lora": {}}).build((1, 8, 8), None).eval()
    assert torch.equal(
        model.encode(model.condition(["a 3"])).tokens,
        load(root / "base").encode(load(root / "base").condition(["a 3"])).tokens,
    )
    assert trained_share(model) > 0


def test_every_process_returns_the_merged_model_and_the_first_alone_writes(root: Path, tmp_path: Path) -> None:
    recipe = tiny_finetune(root / "base", root / "data", adapt={"lora": {"rank": 2}}, steps=2, sample_every=5, lr=0.02)
    trainer = Trainer(recipe, threads=1)
    for _ in trainer.steps():
        pass
    second = copy.copy(trainer)
    second.average = copy.deepcopy(trainer.average)
    models = []
    for each, main in ((second, False), (trainer, True)):
        each.accelerator = SimpleNamespace(is_main_process=main, wait_for_everyone=lambda: None)  # type: ignore[assignment]
        models.append(finish(each, tmp_path / "run", 0.5))
        assert (tmp_path / "run").exists() == main
    found, wanted = (model.state_dict() for model in models)
    assert wanted.keys() == found.keys() == load(root / "base").state_dict().keys()
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []
    assert models[0].config == models[1].config
    assert read_report(tmp_path / "run") == models[0].config.training["finetuned"]


def test_lora_of_one_half_alone(tuned: Callable[..., Any]) -> None:
    model, before = tuned(adapt={"freeze": "network", "lora": {"rank": 1}}, steps=3, lr=0.02)
    assert differing(before, model) == {
        f"encoder.transformer.resblocks.0.attn.{own}.weight" for own in ("c_qkv", "c_proj")
    }


def test_attention_of_every_kind_is_found() -> None:
    dit, unet = attention_maps(text_model("dit")), attention_maps(text_model("cross"))
    block = "denoiser.network.blocks.0."
    own = [f"{block}attn.{part}" for part in ("qkv", "proj")]
    cross = [f"{block}cross_attn.{part}" for part in ("query", "key_value", "proj_out")]
    assert [name for name in dit if name.startswith(block)] == own + cross
    assert [name for name in unet if name.startswith("denoiser.network.middle_block")] == [
        f"denoiser.network.middle_block.{place}.{part}"
        for place, parts in ((1, ("qkv", "proj_out")), (2, ("query", "key_value", "proj_out")))
        for part in parts
    ]
    for names in (dit, unet):
        assert [name for name in names if name.startswith("encoder.")] == [
            f"encoder.transformer.resblocks.0.attn.{part}" for part in ("c_qkv", "c_proj")
        ]


# --- stopping and going on -------------------------------------------------------------------------------------------------


class Stop(Exception):
    """Ends a run from outside."""


def stop_at(step: int) -> Callable[[Step], None]:
    def on_step(reached: Step) -> None:
        if reached.step == step:
            raise Stop

    return on_step


def files(run: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(run.rglob("*")):
        if file.suffix in (".safetensors", ".png") or file.name in ("validation.json", "finetune.json", "lora.json"):
            yield str(file.relative_to(run)), file.read_bytes()


@pytest.mark.parametrize("adapt", [{}, {"freeze": "text"}, {"lora": {"rank": 2}}], ids=["all", "network", "lora"])
def test_a_run_that_was_stopped_ends_in_the_same_bits(adapt: dict[str, Any], root: Path, tmp_path: Path) -> None:
    recipe = tiny_finetune(
        root / "base",
        root / "data",
        adapt=adapt,
        steps=9,
        checkpoint_every=2,
        validate_every=2,
        sample_every=4,
        sample_weights=[1.0],
        sample_prompts=["a 3"],
        schedule="linear",
    )
    train(recipe, tmp_path / "whole", progress=False)
    with pytest.raises(Stop):
        train(recipe, tmp_path / "stopped", progress=False, on_step=stop_at(5))
    train(recipe, tmp_path / "stopped", resume=True, progress=False)
    whole, stopped = dict(files(tmp_path / "whole")), dict(files(tmp_path / "stopped"))
    assert whole.keys() == stopped.keys()
    assert [name for name in whole if whole[name] != stopped[name]] == []
    assert [entry.step for entry in read_validation(tmp_path / "stopped")] == [0, 2, 4, 6, 8, 9]


def test_other_settings_are_not_mixed_into_a_run(root: Path, tmp_path: Path) -> None:
    recipe = tiny_finetune(root / "base", root / "data", steps=2)
    train(recipe, tmp_path / "run", progress=False)
    other = tiny_finetune(root / "base", root / "data", steps=4, adapt={"lora": {"rank": 4}})
    with pytest.raises(BadRecipe, match=r"adapt\.lora"):
        train(other, tmp_path / "run", resume=True, progress=False)


# --- what is measured ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapt", [{}, {"lora": {"rank": 4}}], ids=["all", "lora"])
def test_the_loss_on_unseen_images_falls(adapt: dict[str, Any], root: Path, tmp_path: Path) -> None:
    """The base knows twelve digits; there are sixty more to learn from, mirrored so that they are new to it."""
    mirrored = root / "mirrored"
    if not mirrored.exists():
        pictures.folder(mirrored, 240)
        for image in mirrored.rglob("*.png"):
            from PIL import Image, ImageOps

            ImageOps.invert(Image.open(image)).save(image)
            image.with_suffix(".txt").write_text(f"a photo of a {image.parent.name[-1]}")
    recipe = tiny_finetune(root / "base", mirrored, adapt=adapt, steps=90, lr=5e-3, batch_size=32, validate_every=30)
    train(recipe, tmp_path / "run", progress=False)
    losses = [entry.loss for entry in read_validation(tmp_path / "run")]
    assert len(losses) == 4
    assert losses[-1] < (0.8 if not adapt else 0.97) * losses[0]
    assert losses[1] > losses[-1]


def test_the_loss_is_of_the_same_times_and_noise_each_time_and_of_all_conditions(root: Path) -> None:
    def measured(**settings: Any) -> float:
        recipe = tiny_finetune(root / "base", root / "data", **settings)
        held = recipe.open().held_out
        assert held is not None
        torch.manual_seed(torch.seed() % 2**31)
        return validation_loss(recipe.undropped(), load(root / "base"), held)

    first = measured()
    assert measured() == first
    assert measured(objective={"dropout": 1.0}) == first, "no condition is dropped"
    recipe = tiny_finetune(root / "base", root / "data", objective={"dropout": 1.0})
    held = recipe.open().held_out
    assert held is not None
    assert validation_loss(recipe, load(root / "base"), held) != first
    plain = load(root / "base")
    draw = recipe.undropped().draw(plain, held.images.shape, step=0, device=torch.device("cpu"))
    loss = recipe.loss(plain).eval()
    with torch.no_grad():
        assert first == pytest.approx(loss(held.images, loss.told(held), draw).mean().item(), rel=1e-6)


def test_a_plain_run_with_images_held_out_is_measured_too(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=5, validate_every=2)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"hold_out": 0.2})})
    train(recipe, tmp_path / "run", progress=False)
    assert [entry.step for entry in read_validation(tmp_path / "run")] == [0, 2, 4, 5]


def test_what_was_measured_after_a_step_gives_way_to_what_is_measured_there_again(tmp_path: Path) -> None:
    for step, loss in ((0, 0.5), (2, 0.4), (4, 0.3)):
        note(tmp_path, Validation(step, loss))
    assert note(tmp_path, Validation(2, 0.35)) == [Validation(0, 0.5), Validation(2, 0.35)]
    assert read_validation(tmp_path) == [Validation(0, 0.5), Validation(2, 0.35)]
    (tmp_path / "validation.json").write_text("[{")
    with pytest.raises(DamagedCheckpoint, match=r"validation\.json"):
        read_validation(tmp_path)


def test_optimizers_hold_what_is_trained_alone(root: Path) -> None:
    for optimizer in ("adamw", "muon"):
        recipe = tiny_finetune(root / "base", root / "data", adapt={"freeze": "network"}, optimizer=optimizer)
        model = recipe.build((1, 8, 8), None)
        held = [
            p for each in build_optimizers(model, recipe.train).values() for g in each.param_groups for p in g["params"]
        ]
        assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}


def test_without_images_held_out_nothing_is_measured(root: Path, tmp_path: Path) -> None:
    train(
        tiny_finetune(root / "base", root / "data", data={"hold_out": None}, steps=2), tmp_path / "run", progress=False
    )
    with pytest.raises(MissingFile, match=r"data\.hold_out"):
        read_validation(tmp_path / "run")
    assert read_report(tmp_path / "run")["changed_share"] > 0


def test_sheets_show_the_same_prompts_from_before_the_first_step_on(root: Path, tmp_path: Path) -> None:
    recipe = tiny_finetune(
        root / "base",
        root / "data",
        steps=4,
        sample_every=2,
        sample_prompts=["a 1", "a 2", "a 3"],
        sample_weights=[1.0, 2.0],
        lr=0.05,
    )
    train(recipe, tmp_path / "run", progress=False)
    from PIL import Image

    sheets = {path.name: Image.open(path) for path in (tmp_path / "run/samples").iterdir()}
    assert sorted(sheets) == ["step-0000000.png", "step-0000002.png", "step-0000004.png"]
    sizes = {sheet.size for sheet in sheets.values()}
    assert len(sizes) == 1
    assert sheets["step-0000000.png"].tobytes() != sheets["step-0000004.png"].tobytes()


# --- bad input -------------------------------------------------------------------------------------------------------------


def test_size_and_channels_are_those_of_the_base(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    for i in range(8):
        Image.new("RGB", (20 + i, 30), (i * 20, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("a photo")
    assert tiny_finetune(root / "base", tmp_path).open().shape == (1, 8, 8)
    nothing_but(
        BadRecipe,
        "makes images .1, 8, 8., the data have .1, 16, 16.",
        tiny_finetune(root / "base", tmp_path, data={"size": 16}),
        tmp_path / "a",
    )


def test_data_without_captions_are_refused_by_a_model_of_texts(root: Path, tmp_path: Path) -> None:
    pictures.folder(tmp_path / "images", 10)
    recipe = tiny_finetune(root / "base", tmp_path / "images")
    nothing_but(DataError, "told texts, but the data have no captions.*a.png, a.txt", recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("adapt", "said"),
    [({"freeze": "text"}, "told nothing that could be frozen"), ({"freeze": "network"}, "leaves nothing to train")],
)
def test_a_model_that_is_told_nothing_has_one_half(
    adapt: dict[str, Any], said: str, root: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    architecture = ARCHITECTURE | {"vector": None, "tokens": None, "in_channels": 1, "out_channels": 1}
    Model(ModelConfig(shape=(1, 8, 8), architecture=architecture, classes=None)).save_pretrained(tmp_path / "base")
    nothing_but(BadRecipe, said, tiny_finetune(tmp_path / "base", root / "data", adapt=adapt), tmp_path / "run")


def test_lora_without_attention_is_refused(root: Path, tmp_path: Path) -> None:
    config = ModelConfig(
        shape=(1, 8, 8),
        architecture={**ARCHITECTURE, "in_channels": 1, "out_channels": 1, "vector": "embedding", "tokens": None},
        classes=tuple("0123456789"),
    )
    Model(config).save_pretrained(tmp_path / "base")
    recipe = tiny_finetune(
        tmp_path / "base", root / "data", adapt={"freeze": "network", "lora": {}}, data={"classes": list("0123456789")}
    )
    with pytest.raises(BadRecipe, match="no attention to add to"):
        recipe.build((1, 8, 8), tuple("0123456789"))


def test_classes_of_a_base_are_those_of_the_data(root: Path, tmp_path: Path) -> None:
    config = ModelConfig(
        shape=(1, 8, 8),
        architecture={**ARCHITECTURE, "in_channels": 1, "out_channels": 1, "tokens": None},
        classes=("a", "b"),
    )
    Model(config).save_pretrained(tmp_path / "base")
    with pytest.raises(BadRecipe, match=r"has 2 classes, the data 3 or others.*data\.label_column"):
        tiny_finetune(tmp_path / "base", root / "data").build((1, 8, 8), ("a", "b", "c"))


def test_an_adapter_of_another_model_is_refused(root: Path, tuned: Callable[..., Any], tmp_path: Path) -> None:
    tuned(adapt={"lora": {"rank": 2}}, steps=2)
    torch.manual_seed(0)
    other = Model(
        ModelConfig(
            shape=(1, 8, 8), network="dit", architecture=DIT | {"in_channels": 1, "out_channels": 1}, classes=("a", "b")
        )
    )
    with pytest.raises(DamagedCheckpoint, match="does not fit this model"):
        add_adapter(other, tmp_path / "run")
    with pytest.raises(MissingFile, match=r"adapt\.lora"):
        add_adapter(other, root)


def test_a_damaged_adapter_is_refused_and_changes_nothing(
    root: Path, tuned: Callable[..., Any], tmp_path: Path
) -> None:
    tuned(adapt={"lora": {"rank": 2}}, steps=4, lr=0.02)
    file, model = tmp_path / "run/lora.json", load(root / "base")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = json.loads(file.read_text())
    cut = {name: value for name, value in settings.items() if name != "maps"}
    strange = settings | {"maps": [*settings["maps"], "denoiser.network.elsewhere"]}
    for damaged, said in (
        (json.dumps(cut), r"lora\.json is not readable .*maps"),
        (json.dumps([]), r"lora\.json is not readable"),
        (file.read_text()[:-9], r"lora\.json is not readable"),
        (json.dumps(strange), "does not fit this model at denoiser.network.elsewhere"),
    ):
        file.write_text(damaged)
        with pytest.raises(DamagedCheckpoint, match=said):
            add_adapter(model, tmp_path / "run")
        assert differing(before, model) == set()
    file.write_text(json.dumps(settings))
    add_adapter(model, tmp_path / "run")
    assert differing(before, model) == {f"{name}.weight" for name in settings["maps"]}


def test_a_missing_base_is_named(root: Path, tmp_path: Path) -> None:
    nothing_but(MissingFile, "nowhere", tiny_finetune(tmp_path / "nowhere", root / "data"), tmp_path / "run")


def test_a_cut_caption_is_told_once(root: Path, tmp_path: Path) -> None:
    pictures.folder(tmp_path / "images", 6)
    for image in (tmp_path / "images").rglob("*.png"):
        image.with_suffix(".txt").write_text("x y z " * 30)
    recipe = tiny_finetune(root / "base", tmp_path / "images", steps=2, sample_prompts=["x y z " * 30, "x"])
    wanted = "7 of 8 texts are longer than 7 tokens and were cut"  # five to learn from, one held out, one prompt
    with pytest.warns(UserWarning, match=wanted) as warned:
        train(recipe, tmp_path / "run", progress=False)
    assert len(warned) == 1


def test_lora_and_stored_averages_exclude_each_other() -> None:
    adapt: dict[str, Any] = {"lora": {"rank": 2}}
    with pytest.raises(BadRecipe, match=r"train\.power_averages holds whole models, and adapt\.lora"):
        tiny_finetune(Path("base"), Path("data"), adapt=adapt, power_averages=[0.05])
    tiny_finetune(Path("base"), Path("data"), power_averages=[0.05])


def test_settings_of_lora_have_bounds() -> None:
    for fields in ({"rank": 0}, {"alpha": 0}, {"ranks": 4}):
        with pytest.raises(ValueError, match=r"rank|alpha"):
            LoRA(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_streams_are_learned_from_and_measured_by_another_part(kind: str, root: Path, tmp_path: Path) -> None:
    make = {"webdataset": pictures.shards, "parquet": pictures.parquet}[kind]
    make(tmp_path / "data/train", 30)
    make(tmp_path / "data/test", 10)
    data = {"streaming": True, "buffer": 16, "validation": "test"}
    model = train(tiny_finetune(root / "base", tmp_path / "data", data=data, steps=3), tmp_path / "run", progress=False)
    assert model.config.training["uncaptioned"]["count"] == 0
    assert len(read_validation(tmp_path / "run")) == 2


# --- norms behind what is frozen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("frozen", ["", "encoder", "network", "all but attention"])
def test_gradients_behind_frozen_layers_are_those_of_the_whole(
    frozen: str, layout: torch.memory_format, root: Path
) -> None:
    """Freezing changes which gradients are computed, not what they are; channels-last norms on the CPU included."""
    model = load(root / "base").to(memory_format=layout)  # type: ignore[call-overload]

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
        model.denoiser.raw(
            x, model.process.level(0.5), model.encode(model.condition(["a photo of a 3", "a 7"]))
        ).square().mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    whole = gradients()
    attention = {f"{name}.{end}" for name in attention_maps(model) for end in ("weight", "bias")}
    for name, parameter in model.named_parameters():
        if frozen == "all but attention":
            parameter.requires_grad_(name in attention)
        elif frozen:
            parameter.requires_grad_(not name.startswith({"encoder": "encoder.", "network": "denoiser."}[frozen]))
    some = gradients()
    assert some.keys() == {name for name, p in model.named_parameters() if p.requires_grad and name in whole}
    for name, value in some.items():
        torch.testing.assert_close(value, whole[name], atol=1e-7, rtol=1e-4)


def test_a_base_of_classes_goes_on_with_its_classes(root: Path, tmp_path: Path) -> None:
    names = tuple(f"digit-{i}" for i in range(10))
    architecture = {**ARCHITECTURE, "in_channels": 1, "out_channels": 1, "tokens": None}
    torch.manual_seed(0)
    Model(ModelConfig(shape=(1, 8, 8), architecture=architecture, classes=names)).save_pretrained(tmp_path / "base")
    model = train(tiny_finetune(tmp_path / "base", root / "data", steps=2), tmp_path / "run", progress=False)
    assert model.classes == names
    assert model.encode(Labels(torch.tensor([1]), 10)).vector is not None


def test_a_base_that_cannot_do_without_a_class_goes_on_and_is_shown_at_weight_one(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    names = tuple(f"digit-{i}" for i in range(10))
    architecture = {**ARCHITECTURE, "in_channels": 1, "out_channels": 1, "tokens": None}
    config = ModelConfig(shape=(1, 8, 8), architecture=architecture, classes=names, null=False)
    Model(config).save_pretrained(tmp_path / "base")
    nothing_but(
        BadRecipe,
        r"never learned to do without a class, .*set train\.objective\.dropout to 0",
        tiny_finetune(tmp_path / "base", root / "data", steps=1),
        tmp_path / "refused",
    )
    recipe = tiny_finetune(
        tmp_path / "base", root / "data", steps=2, sample_every=2, objective={"dropout": 0.0}, lr=0.02
    )
    model = train(recipe, tmp_path / "run", progress=False)
    assert not model.has_null and read_report(tmp_path / "run")["changed_share"] > 0
    sheet = Image.open(tmp_path / "run/samples/step-0000002.png")
    assert sheet.size == (56 + 10 * 66, 66), "a single row"
