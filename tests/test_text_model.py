"""Models of texts: what is told once is worked out once, and an image depends on its own text and seed alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.text_models import UNET, text_model, vocabulary
from torch import Tensor

import guidon
from guidon.conditioning import Texts
from guidon.conditioning.tokenizer import Tokenizer, train_tokenizer
from guidon.errors import BadValue, GuidonWarning, MissingFile, UnknownLabel
from guidon.model import Model, ModelConfig
from guidon.model_request import conditions
from guidon.models.layers import Listener
from guidon.models.text_encoder import TextConfig
from guidon.sampling import trajectory

KINDS = ["cross", "tokens alone", "append", "dit"]
DEAF = UNET | {"in_channels": 1, "out_channels": 1, "vector": None}
PROMPTS = ["a red circle", "two green triangles", "a big blue square"]


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    glide = text_model("append", padding="learned")
    return {kind: text_model(kind) for kind in KINDS} | {"glide": glide}


@contextmanager
def counted(model: Model) -> Iterator[Counter[tuple[str, int]]]:
    """Count the calls of the encoder and of every map from tokens to keys and values, each with its rows."""
    calls: Counter[tuple[str, int]] = Counter()
    maps = {"encoder": model.encoder}
    for layer in model.network.modules():
        if isinstance(layer, Listener):
            said = getattr(layer, "key_value", None) or getattr(layer, "encoder_kv", None)
            maps |= {layer.name: said} if said is not None else {}
    assert len(maps) > 2

    def count(name: str) -> Any:
        return lambda module, arguments, result: calls.update([(name, len(arguments[0]))])

    handles = [module.register_forward_hook(count(name)) for name, module in maps.items()]  # type: ignore[union-attr]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", [*KINDS, "glide"])
@pytest.mark.parametrize(
    ("rule", "more", "rows"),
    [
        ("cfg(3)", {}, 4),
        ("negative(3)", {"negative": "no red"}, 5),
        ("perp-neg(3, [1, 2])", {"negative": ["no red", "green"]}, 6),
    ],
)
def test_every_text_is_encoded_once_and_every_key_made_once(
    models: dict[str, Model], kind: str, rule: str, more: dict[str, Any], rows: int
) -> None:
    """64 images of 3 prompts over 10 steps: a row for each prompt, the null and what is steered away from."""
    model = models[kind]
    with counted(model) as calls:
        samples = model.sample([PROMPTS[i % 3] for i in range(64)], rule=rule, steps=10, max_batch=256, **more)
    assert samples.forwards >= 10 and len(samples) == 64
    assert {count for _, count in calls} == {rows} and set(calls.values()) == {1}, calls


def test_the_null_is_told_to_any_number_of_prompts_once(models: dict[str, Model]) -> None:
    model = models["cross"]
    with counted(model) as calls, pytest.warns(GuidonWarning, match="2 of 4 texts are empty"):
        model.sample(["a red circle", "", None, " "], rule="cfg(3)", steps=2)
    assert {count for _, count in calls} == {2}


@pytest.mark.parametrize("kind", [*KINDS, "glide"])
@pytest.mark.parametrize("rule", ["cfg(3)", "negative(3)"])
def test_an_image_depends_on_its_text_and_seed_alone(models: dict[str, Model], kind: str, rule: str) -> None:
    model = models[kind]
    asked: dict[str, Any] = {"rule": rule, "steps": 3} | ({"negative": "no red"} if "neg" in rule else {})
    together = model.sample(PROMPTS, seed=[5, 9, 2], **asked).x
    close = {"rtol": 0, "atol": 2e-5 * together.abs().max().item()}
    torch.testing.assert_close(model.sample(PROMPTS[1], seed=9, **asked).x, together[1:2], **close)
    turned = model.sample([PROMPTS[2], PROMPTS[0], "two", PROMPTS[1]], seed=[2, 5, 9, 9], **asked).x
    torch.testing.assert_close(turned[[1, 3, 0]], together, **close)
    for more in ({"batching": "sequential"}, {"max_batch": 2}):
        torch.testing.assert_close(model.sample(PROMPTS, seed=[5, 9, 2], **more, **asked).x, together, **close)
    assert (turned[2] - together[1]).abs().max() > 1e-3 * together.abs().max(), "another text, another image"


@pytest.mark.parametrize("kind", [*KINDS, "glide"])
def test_keys_made_beforehand_change_nothing(
    models: dict[str, Model], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models[kind]
    made = model.sample(PROMPTS, rule="cfg(3)", steps=3).x
    monkeypatch.setattr("guidon.model_request.prepared", lambda network, context: context)
    bare = model.sample(PROMPTS, rule="cfg(3)", steps=3).x
    torch.testing.assert_close(made, bare, rtol=0, atol=2e-5 * made.abs().max().item())


@pytest.mark.filterwarnings("ignore:.*empty")
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_the_null_however_it_is_written(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    plain = model.sample(None, n=2, steps=3, rule="cfg(1)").x
    for told in ([""], [None], ["  "]):
        assert torch.equal(model.sample(told, n=2, steps=3, rule="cfg(1)").x, plain)
    torch.testing.assert_close(model.sample("a red circle", n=2, steps=3, rule=0.0).x, plain, rtol=0, atol=1e-5)
    assert (model.sample("a red circle", n=2, steps=3, rule=1.0).x - plain).abs().max() > 1e-3
    assert torch.equal(model.condition([None]).tokens, vocabulary().encode([""]).tokens)


def test_tokens_say_the_same_as_their_text(models: dict[str, Model]) -> None:
    model = models["cross"]
    asked = {"n": 2, "steps": 2, "rule": "cfg(3)"}
    tokens = vocabulary().encode(PROMPTS)
    by_tokens = model.sample(tokens, **asked)
    by_text = model.sample(PROMPTS, **asked)
    assert torch.equal(by_tokens.x, by_text.x) and by_text.labels == (None,) * 6
    assert by_text.record["labels"] == [prompt for prompt in PROMPTS for _ in range(2)]
    assert by_tokens.record["labels"][0] == [1, *vocabulary().tokens(PROMPTS[0])]
    bare = Texts(tokens.tokens, tokens.mask, tokens.empty)
    assert torch.equal(
        model.sample(bare, **asked | {"rule": "icg(3)"}).x, model.sample(PROMPTS, **asked | {"rule": "icg(3)"}).x
    )


def test_blurred_conditions_are_heard_anew_at_every_step(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["cross"]
    seen: list[tuple[Tensor, Tensor | None]] = []
    blur = trajectory.corrupted

    def watched(*arguments: Any) -> Any:
        said = blur(*arguments)
        assert said.projected is None, "keys of what was clear do not fit what is blurred"
        seen.append((said.tokens, said.mask))
        return said

    monkeypatch.setattr(trajectory, "corrupted", watched)
    blurred = model.sample(PROMPTS, rule="cfg(3) | cads(0.3, 0.9)", steps=4)
    assert seen and (blurred.x - model.sample(PROMPTS, rule="cfg(3)", steps=4).x).abs().max() > 1e-3
    alone = model.sample(PROMPTS[1], seed=1, rule="cfg(3) | cads(0.3, 0.9)", steps=4)
    torch.testing.assert_close(alone.x[0], blurred.x[1], rtol=0, atol=1e-4 * blurred.x.abs().max().item())


def test_a_worse_model_is_told_the_same_texts(models: dict[str, Model]) -> None:
    model = models["cross"]
    weak = text_model("cross", seed=1)
    for other in (weak, model.degraded(0.2)):
        with counted(other) as calls:
            samples = model.sample(PROMPTS, rule="autoguidance(2)", weak=other, steps=3)
        assert {count for _, count in calls} == {4} and set(calls.values()) == {1}
        assert (samples.x - model.sample(PROMPTS, rule="cfg(1)", steps=3).x).abs().max() > 1e-3
    wanted = model.sample(PROMPTS, rule="cfg(1)", steps=3).x
    same = model.sample(PROMPTS, rule="autoguidance(3)", weak=model, steps=3).x
    torch.testing.assert_close(same, wanted, rtol=0, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.filterwarnings("ignore:.*longer")
def test_a_worse_model_may_read_less(models: dict[str, Model]) -> None:
    """Both are told the texts, each through an encoder and a tokenizer of its own; tokens mean the same to one tokenizer only."""
    model = models["cross"]
    encoder = {"width": 8, "layers": 1, "heads": 1, "padding": "learned"}

    def less(tokenizer: Tokenizer) -> Model:
        read = {"tokenizer": tokenizer.config, "vocabulary": tokenizer.size, "encoder": encoder}
        torch.manual_seed(3)
        made = Model(text_model("cross").config.model_copy(update={"text": TextConfig(**read)}), tokenizer)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        return made.eval()

    asked: dict[str, Any] = {"steps": 3, "solver": "ddim"}
    for tokenizer in (vocabulary(), vocabulary(7)):
        weak = less(tokenizer)
        wanted = weak.sample(PROMPTS, rule="cfg(1)", **asked).x
        got = model.sample(PROMPTS, rule="autoguidance(0)", weak=weak, **asked).x
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5 * wanted.abs().max().item())
    tokens = vocabulary().encode(PROMPTS)
    told: dict[str, Any] = {"rule": "autoguidance(2)", **asked}
    assert torch.equal(
        model.sample(tokens, weak=less(vocabulary()), **told).x,
        model.sample(PROMPTS, weak=less(vocabulary()), **told).x,
    )
    other = train_tokenizer(["no blue", *PROMPTS], size=300, context=10)
    assert other.config == vocabulary().config
    for weak in (less(vocabulary(7)), less(other)):
        with pytest.raises(BadValue, match="differs from the model itself in its tokenizer"):
            model.sample(tokens, weak=weak, **told)
    silent = ModelConfig(**model.config.model_dump() | {"text": None, "architecture": DEAF})
    with pytest.raises(BadValue, match="differs from the model itself in its text"):
        model.sample(PROMPTS, weak=Model(silent), **told)


def test_texts_that_are_cut_are_counted_once(models: dict[str, Model]) -> None:
    """However many images, conditions and networks are told them."""
    model, long = models["cross"], ["a red circle " * 5, "a big blue square " * 5]
    asked: dict[str, Any] = {"rule": "negative(2)", "negative": long[1], "steps": 1}
    with pytest.warns(GuidonWarning) as found:
        model.sample([long[0], "two", long[0]], n=2, **asked)
    assert [str(one.message).split(" and ")[0] for one in found] == ["2 of 3 texts are longer than 9 tokens"]
    assert found[0].filename == __file__
    with pytest.warns(GuidonWarning) as found:
        model.sample([long[0], "two"], weak=model.degraded(), rule="autoguidance(2)", steps=1)
    assert [str(one.message).split(" and ")[0] for one in found] == ["1 of 2 texts are longer than 9 tokens"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_text_depends_on_the_seed_and_on_no_neighbour(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    together = model.sample(PROMPTS, seed=[3, 4, 5], rule="icg(3)", steps=3).x
    close = {"rtol": 0, "atol": 2e-5 * together.abs().max().item()}
    for i, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(model.sample(prompt, seed=3 + i, rule="icg(3)", steps=3).x[0], together[i], **close)
    told = conditions(model, PROMPTS, (3, 4, 5), {})
    first, second = (told["random"](index).tokens for index in (0, 1))  # type: ignore[operator]
    assert (first - second).abs().max() > 1e-3, "another at every step"
    other = conditions(model, ["no red", *PROMPTS[:2]], (3, 3, 4), {})["random"](0)  # type: ignore[operator]
    assert not torch.equal(other.tokens[0], other.tokens[1]), "as long as its own text"


@pytest.mark.parametrize("kind", [*KINDS, "glide"])
def test_a_model_survives_the_disk_with_its_vocabulary(models: dict[str, Model], kind: str, tmp_path: Path) -> None:
    model = models[kind]
    model.save_pretrained(tmp_path / "m")
    again = guidon.load(tmp_path / "m")
    assert again.config == model.config and again.tokenizer is not None
    asked = {"rule": "negative(3)", "negative": "no red", "steps": 2}
    assert torch.equal(again.sample(PROMPTS, **asked).x, model.sample(PROMPTS, **asked).x)
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(MissingFile, match=r"tokenizer\.json.*told texts"):
        guidon.load(tmp_path / "m")


def test_a_record_makes_the_same_images(models: dict[str, Model]) -> None:
    model = models["cross"]
    first = model.sample(
        ["a red circle", None], n=2, seed=7, rule="negative(2)", negative="blue", steps=2, temperature=0.9
    )
    record = json.loads(json.dumps(first.record))
    assert record["labels"] == ["a red circle"] * 2 + [None] * 2 and record["negative"] == ["blue"]
    names = ("rule", "solver", "grid", "steps", "negative", "temperature")
    again = model.sample(record["labels"], seed=record["seeds"], **{name: record[name] for name in names})
    assert torch.equal(again.x, first.x)


def test_what_a_model_of_texts_cannot_be_told_is_refused(models: dict[str, Model], tmp_path: Path) -> None:
    model, tokens = models["cross"], vocabulary().encode(["a red circle"])
    for wrong in (3, [1, 2], [1.5]):
        with pytest.raises(BadValue, match="told texts, not"):
            model.sample(wrong, steps=1)
    with pytest.raises(BadValue, match="no text is given"):
        model.sample([], steps=1)
    short = vocabulary(9).encode(["a red circle"])
    closed = replace(tokens, empty=((1, 5, *[0] * 8), (True, True, *[False] * 8)))
    unmarked = replace(tokens, empty=(tokens.empty[0], (False,) * 10))
    for other in (short, closed, unmarked):
        with pytest.raises(BadValue, match=r"empty text of these tokens.*own tokenizer"):
            model.sample(other, steps=1)
    with pytest.raises(BadValue, match="own tokenizer"):
        model.sample(replace(tokens, tokens=tokens.tokens + 300), steps=1)
    bare = Model(model.config)
    with pytest.raises(BadValue, match="saved with its tokenizer"):
        bare.save_pretrained(tmp_path / "bare")
    assert not (tmp_path / "bare").exists()
    with pytest.raises(BadValue, match="no tokenizer"):
        bare.sample("a red circle", steps=1)
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        model.sample("a red circle " * 9, steps=1)


def test_texts_are_not_for_a_model_of_classes() -> None:
    architecture = {
        "in_channels": 1,
        "out_channels": 1,
        "model_channels": 16,
        "channel_mult": (1,),
        "num_res_blocks": 1,
    }
    model = Model(ModelConfig(shape=(1, 8, 8), architecture=architecture | {"attention": ()}, classes=("cat", "dog")))
    with pytest.raises(BadValue, match="told no texts"):
        model.sample(vocabulary().encode(["cat"]), steps=1)
    with pytest.raises(UnknownLabel, match="no class 'a red circle'"):
        model.sample("a red circle", steps=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": ("cat",)}, "classes or texts"),
        ({"architecture": {"tokens": None, "vector": None}}, "doors vector and tokens.*this one has none"),
        ({"architecture": {"tokens": None, "vector": None, "spatial_channels": 3}}, r"this one has \['spatial'\]"),
    ],
)
def test_configs_that_cannot_work_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        text_model("cross", **changes)
