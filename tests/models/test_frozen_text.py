"""Text encoders of others: their numbers and tokens are theirs, and nothing but the way from them is the model's."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.encoders import tiny_clip, tiny_t5

import guidon
from guidon.conditioning import Texts
from guidon.conditioning.tokenizer import Tokenizer, TokenizerConfig
from guidon.errors import BadValue, DamagedCheckpoint, MissingFile, NotSupported, ShapeMismatch
from guidon.model import Model, ModelConfig
from guidon.models import frozen_text
from guidon.models.frozen_text import FrozenText, FrozenTextConfig, described, frozen_tokenizer, opened
from guidon.models.text_encoder import TextConfig
from guidon.training.ema import Average, Decay

TEXTS = ["a red cat", "", "Dogs, and  cats!", "dog"]
CONTEXT = 16
DOORS = {"vector": 5, "tokens": 7}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {
        "clip": tiny_clip(folder / "clip", CONTEXT),
        "whole clip": tiny_clip(folder / "whole", CONTEXT, whole=True),
        "t5": tiny_t5(folder / "t5"),
    }


@pytest.fixture(params=["clip", "whole clip", "t5"])
def source(request: pytest.FixtureRequest, sources: dict[str, Path]) -> str:
    return str(sources[request.param])


def encoder(source: str, doors: dict[str, int] = DOORS) -> FrozenText:
    torch.manual_seed(0)
    return FrozenText(FrozenTextConfig(source=source), CONTEXT, doors)


def theirs(source: str, texts: list[str], padding: bool | str = True) -> tuple[dict, torch.nn.Module]:
    """Return the tokens and the network that transformers itself makes of a folder."""
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

    kind = T5EncoderModel if "t5" in source else CLIPTextModel
    more = {"padding": padding, "max_length": CONTEXT, "truncation": True, "return_tensors": "pt"}
    return AutoTokenizer.from_pretrained(source)(texts, **more), kind.from_pretrained(source).eval()


def test_the_tokens_are_those_of_its_own_tokenizer(source: str) -> None:
    texts = [*TEXTS, "ünï 12  cats\tred", "cat " * 20]
    with pytest.warns(UserWarning, match="of 6 texts are longer"):
        mine = frozen_tokenizer(source, CONTEXT).encode(texts)
    wanted, _ = theirs(source, texts, "max_length")
    assert torch.equal(mine.tokens, wanted["input_ids"])
    assert torch.equal(mine.mask, wanted["attention_mask"].bool())


def test_the_tokenizer_goes_with_the_model(source: str) -> None:
    tokenizer = frozen_tokenizer(source, CONTEXT)
    config = TokenizerConfig(**json.loads(tokenizer.config.model_dump_json()))
    again = Tokenizer.from_json(tokenizer.to_json(), config)
    assert torch.equal(again.encode(TEXTS).tokens, tokenizer.encode(TEXTS).tokens) and again.empty == tokenizer.empty


@torch.no_grad()
def test_what_it_says_is_what_the_original_says_of_the_bare_text(source: str) -> None:
    network = encoder(source)
    context = network(frozen_tokenizer(source, CONTEXT).encode(TEXTS))
    for i, text in enumerate(TEXTS):
        tokens, original = theirs(source, [text])
        said = original(**tokens)
        length = said.last_hidden_state.shape[1]
        pooled = said.last_hidden_state.mean(1) if "t5" in source else said.pooler_output
        close = {"rtol": 0, "atol": 1e-5}
        rows = network.tokens_proj(said.last_hidden_state[0])
        torch.testing.assert_close(context.tokens[i, :length], rows, **close)
        torch.testing.assert_close(context.vector[i], network.vector_proj(pooled)[0], **close)
        assert context.mask[i].tolist() == [True] * length + [False] * (CONTEXT - length)


@torch.no_grad()
def test_padding_is_never_listened_to(source: str) -> None:
    network, texts = encoder(source), frozen_tokenizer(source, CONTEXT).encode(TEXTS)
    plain = network(texts)
    changed = torch.where(texts.mask, texts.tokens, (texts.tokens + 9) % network.vocabulary)
    other = network(Texts(changed, texts.mask, texts.empty))
    torch.testing.assert_close(other.vector, plain.vector, rtol=0, atol=1e-6)
    torch.testing.assert_close(other.tokens[texts.mask], plain.tokens[texts.mask], rtol=0, atol=1e-6)
    real = texts.tokens.clone()
    real[0, 1] = (real[0, 1] + 1) % network.vocabulary
    moved = network(Texts(real, texts.mask, texts.empty))
    assert (moved.vector[0] - plain.vector[0]).abs().max() > 1e-3
    assert torch.equal(moved.tokens[1:], plain.tokens[1:])


def test_only_the_way_from_it_is_learned_and_kept(source: str) -> None:
    network = encoder(source)
    texts = frozen_tokenizer(source, CONTEXT).encode(TEXTS)
    names = {f"{part}_proj.{name}" for part in DOORS for name in ("weight", "bias")}
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()} == names
    before = {name: value.clone() for name, value in opened(source, "cpu").state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network.train()
    context = network(texts)
    (context.vector.square().sum() + context.tokens.square().sum()).backward()
    optimizer.step()
    frozen = opened(source, "cpu")
    assert not frozen.training and not any(p.requires_grad or p.grad is not None for p in frozen.parameters())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_one_frozen_network_serves_all_copies(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.nn.Module] = []

    def watched(*where: str) -> torch.nn.Module:
        asked.append(opened(*where))
        return asked[-1]

    network = encoder(source)
    texts = frozen_tokenizer(source, CONTEXT).encode(TEXTS)
    monkeypatch.setattr(frozen_text, "opened", watched)
    average = Average(network, Decay(0.5))
    for each in (network, copy.deepcopy(network), average.model):
        each(texts)
    assert len(asked) == 3 and len({id(each) for each in asked}) == 1
    assert set(average.model.state_dict()) == set(network.state_dict())


def test_opening_it_draws_nothing(source: str) -> None:
    opened.cache_clear()
    torch.manual_seed(5)
    opened(source, "cpu")
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def tiny_model(source: str) -> Model:
    torch.manual_seed(0)
    tokenizer = frozen_tokenizer(source, CONTEXT)
    architecture = {"in_channels": 1, "out_channels": 1, "model_channels": 8, "channel_mult": (1, 2), "attention": (2,)}
    architecture |= {"num_res_blocks": 1, "heads": 2, "tokens": "cross", "token_width": 8}
    text = TextConfig(tokenizer=tokenizer.config, vocabulary=tokenizer.size, encoder=FrozenTextConfig(source=source))
    model = Model(ModelConfig(shape=(1, 8, 8), architecture=architecture, text=text), tokenizer)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def test_a_model_survives_the_disk_without_the_frozen_weights(source: str, tmp_path: Path) -> None:
    model = tiny_model(source)
    model.save_pretrained(tmp_path / "m")
    assert not [
        name for name in load_file(tmp_path / "m" / "model.safetensors") if "proj" not in name and "encoder." in name
    ]
    again = guidon.load(tmp_path / "m")
    asked = {"told": ["a red cat", "dog"], "negative": "cats", "rule": "negative(3)", "steps": 2, "seed": 3}
    assert torch.equal(again.sample(**asked).x, model.sample(**asked).x)
    assert again.config == model.config


def test_a_source_that_has_gone_is_named_with_what_to_do(sources: dict[str, Path], tmp_path: Path) -> None:
    there = tmp_path / "moved" / "clip"
    shutil.copytree(sources["clip"], there)
    tiny_model(str(there)).save_pretrained(tmp_path / "m")
    described.cache_clear()
    (there / "model.safetensors").unlink()
    model = guidon.load(tmp_path / "m")
    with pytest.raises(MissingFile, match=r"put its folder back.*encoder\.source"):
        model.sample("cat", steps=1)
    shutil.rmtree(there)
    described.cache_clear()
    with pytest.raises(MissingFile, match=r"put its folder back.*encoder\.source"):
        guidon.load(tmp_path / "m")


def test_what_does_not_fit_is_refused(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = str(sources["clip"])
    with pytest.raises(BadValue, match=r"17 tokens.*16 at most"):
        FrozenText(FrozenTextConfig(source=clip), 17, DOORS)
    texts = frozen_tokenizer(clip, CONTEXT - 1).encode(["cat"])
    with pytest.raises(ShapeMismatch, match="15 tokens for an encoder of 16"):
        encoder(clip)(texts)
    t5 = frozen_tokenizer(str(sources["t5"]), CONTEXT).encode(["cat"])
    t5.tokens[0, 0] = 40
    with pytest.raises(BadValue, match="0 to 39, and there is 40"):
        encoder(str(sources["t5"]))(t5)
    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(NotSupported, match=r"is a bert; .*CLIP's and T5's"):
        frozen_tokenizer(str(other), CONTEXT)
    bare = tmp_path / "bare"
    shutil.copytree(sources["clip"], bare)
    (bare / "tokenizer.json").write_text((sources["t5"] / "tokenizer.json").read_text())
    with pytest.raises(DamagedCheckpoint, match=r"no token <\|startoftext\|>"):
        frozen_tokenizer(str(bare), CONTEXT)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(MissingFile, match="save_pretrained"):
        frozen_tokenizer(str(bare), CONTEXT)
    tensors = load_file(bare / "model.safetensors")
    lost = next(name for name in tensors if "mlp.fc1.weight" in name)
    save_file({name: value for name, value in tensors.items() if name != lost}, bare / "model.safetensors")
    with pytest.raises(DamagedCheckpoint, match=r"lack 1 tensors.*mlp.fc1"):
        opened(str(bare), "cpu")


def test_without_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    described.cache_clear()
    with pytest.raises(NotSupported, match=r"guidon\[text\]"):
        frozen_tokenizer("openai/clip-vit-base-patch32", CONTEXT)
