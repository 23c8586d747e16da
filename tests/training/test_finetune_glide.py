"""Networks built as GLIDE's are, told texts and shown images, go on learning from files with captions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import pictures
from training.tiny_finetune import tiny_finetune

from guidon.checkpoints.glide import network_blueprint
from guidon.conditioning.tokenizer import Tokenizer, train_tokenizer
from guidon.model import Model, load
from guidon.model_config import ModelConfig
from guidon.training.finetune_recipe import FinetuneRecipe, read_report
from guidon.training.loop import train
from guidon.training.validate import read_validation

ARGUMENTS = {
    "text_ctx": 12,
    "xf_width": 16,
    "xf_layers": 1,
    "xf_heads": 2,
    "xf_final_ln": True,
    "xf_padding": True,
    "in_channels": 1,
    "model_channels": 32,
    "out_channels": 2,
    "num_res_blocks": 1,
    "attention_resolutions": (2,),
    "dropout": 0.1,
    "channel_mult": (1, 2),
    "use_fp16": False,
    "num_heads": 1,
    "num_head_channels": 16,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
KINDS = {"Text2ImUNet": None, "InpaintText2ImUNet": None, "SuperResText2ImUNet": 4, "SuperResInpaintText2ImUnet": 4}


def glide(kind: str, folder: Path) -> Path:
    trained = train_tokenizer([f"a photo of a {i}" for i in range(10)], size=290, context=12)
    blueprint = network_blueprint(ARGUMENTS, side=8, kind=kind, vocabulary=trained.size, small=KINDS[kind])
    config = ModelConfig(**blueprint.config)
    assert config.text is not None
    torch.manual_seed(0)
    model = Model(config, Tokenizer(trained.backend, config.text.tokenizer))
    for parameter in model.parameters():  # as of a trained one: nothing is zero
        torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)
    return folder


def photos(folder: Path, count: int) -> Path:
    pictures.folder(folder, count)
    for image in folder.rglob("*.png"):
        image.with_suffix(".txt").write_text(f"a photo of a {image.parent.name[-1]}")
    return folder


def sampled_quickly(recipe: FinetuneRecipe, base: Path) -> FinetuneRecipe:
    few = load(base).config.sample.model_copy(update={"grid": "respaced('4')", "steps": 4})
    return recipe.model_copy(update={"sample": few})


@pytest.mark.parametrize("adapt", [{}, {"freeze": "text", "lora": {"rank": 2}}], ids=["all", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_of_glide_goes_on_learning(kind: str, adapt: dict[str, object], tmp_path: Path) -> None:
    base = glide(kind, tmp_path / "base")
    recipe = tiny_finetune(
        base,
        photos(tmp_path / "photos", 40),
        adapt=adapt,
        steps=15,
        lr=5e-3 if not adapt else 3e-2,
        validate_every=None,
        sample_every=15,
        sample_weights=[1.0],
        sample_prompts=["a photo of a 3"],
        checkpointing=True,
    )
    recipe = sampled_quickly(recipe, base)
    train(recipe, tmp_path / "run", progress=False)
    before, after = (entry.loss for entry in read_validation(tmp_path / "run"))
    assert after < before
    before_state, after_state = load(base).state_dict(), load(tmp_path / "run").state_dict()
    changed = {name for name in before_state if not torch.equal(before_state[name], after_state[name])}
    if adapt:
        assert read_report(tmp_path / "run")["trained_share"] < 0.05
        assert all(name.endswith(("qkv.weight", "encoder_kv.weight", "proj_out.weight")) for name in changed)
        assert any("encoder_kv" in name for name in changed)
    else:
        assert any(name.endswith("padding_embedding") for name in changed), "GLIDE's rows of padding learn too"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Text2ImUNet"])
def test_without_images_held_out_sheets_show_the_first_ones(kind: str, tmp_path: Path) -> None:
    base = glide(kind, tmp_path / "base")
    sheets = {"steps": 1, "sample_every": 1, "sample_weights": [1.0], "sample_prompts": ["a photo of a 3"]}
    recipe = tiny_finetune(base, photos(tmp_path / "photos", 20), data={"hold_out": None}, **sheets)
    data = recipe.open()
    assert torch.equal(data.shown.images, next(data.batches(10)).images)
    train(sampled_quickly(recipe, base), tmp_path / "run", progress=False)
    names = [path.name for path in sorted((tmp_path / "run/samples").iterdir())]
    assert names == ["step-0000000.png", "step-0000001.png"]
