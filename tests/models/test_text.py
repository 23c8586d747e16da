"""Texts in networks: what is masked is never heard, what is real is, and what was made beforehand is the same to the bit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from support.numbers import normal
from torch import Tensor, nn

from guidon.conditioning import Context, Projected, Texts
from guidon.conditioning.tokenizer import TokenizerConfig
from guidon.errors import BadValue, ShapeMismatch
from guidon.models import DiT, DiTConfig, UNet, UNetConfig
from guidon.models.dit import PatchCrossAttention
from guidon.models.layers import Listener, Signal
from guidon.models.question import prepared
from guidon.models.text import TextTransformer, TextTransformerConfig
from guidon.models.text_encoder import TextConfig, text_encoder
from guidon.perturbation import Perturbation

LENGTH, VOCABULARY = 7, 30
SHAPE = TextTransformerConfig(width=16, layers=2, heads=2)
UNET = UNetConfig(
    in_channels=2,
    out_channels=2,
    model_channels=16,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention=(2,),
    heads=2,
    groups=4,
    token_width=12,
)
DIT = DiTConfig(in_channels=2, out_channels=2, width=16, depth=3, heads=2, tokens="cross", token_width=12)
NETWORKS = {
    "cross": UNET.model_copy(update={"tokens": "cross"}),
    "append": UNET.model_copy(update={"tokens": "append"}),
    "dit": DIT,
    "dit without vector": DIT.model_copy(update={"vector": None}),
}


def texts(rows: int = 4) -> Texts:
    """Return texts of 1, 2, ... real tokens, the start among them."""
    numbers = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, VOCABULARY, (rows, LENGTH), generator=numbers)
    tokens[:, 0] = 1
    mask = torch.arange(LENGTH) <= torch.arange(rows)[:, None]
    empty = (1, *[0] * (LENGTH - 1)), (True, *[False] * (LENGTH - 1))
    return Texts(torch.where(mask, tokens, 0), mask, empty)


def encoder(doors: dict[str, int], **change: object) -> TextTransformer:
    torch.manual_seed(0)
    made = TextTransformer(SHAPE.model_copy(update=change), VOCABULARY, LENGTH, doors).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def network(kind: str) -> UNet | DiT:
    torch.manual_seed(1)
    config = NETWORKS[kind]
    made = (DiT if isinstance(config, DiTConfig) else UNet)(config).double()  # type: ignore[arg-type]
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made.eval()


def question(count: int = 4) -> tuple[Tensor, Tensor]:
    return normal(1, 2, 8, 8).expand(count, -1, -1, -1), torch.full((count,), 400.0)


def other_padding(told: Texts) -> Texts:
    return replace(told, tokens=torch.where(told.mask, told.tokens, 5))


@torch.no_grad()
def test_masked_padding_is_never_heard_and_every_real_token_is() -> None:
    told, made = texts(), encoder({"vector": 8, "tokens": 12})
    plain, other = made(told), made(other_padding(told))
    assert torch.equal(plain.mask, told.mask)
    torch.testing.assert_close(other.vector, plain.vector, rtol=0, atol=1e-12)
    torch.testing.assert_close(other.tokens[told.mask], plain.tokens[told.mask], rtol=0, atol=1e-12)
    for row, place in told.mask.nonzero().tolist():
        changed = told.tokens.clone()
        changed[row, place] = (changed[row, place] + 1) % VOCABULARY
        said = made(replace(told, tokens=changed))
        moved = (said.vector - plain.vector).abs().amax(1) > 1e-9
        assert moved.tolist() == [i == row for i in range(4)], "it and no neighbour"
        assert ((said.tokens - plain.tokens)[row][told.mask[row]].abs().amax(1) > 1e-9).all()


@torch.no_grad()
def test_other_paddings_are_what_they_say() -> None:
    told = texts()
    learned, plain = encoder({"tokens": 16}, padding="learned"), encoder({"tokens": 16}, padding="plain")
    assert learned(told).mask is None and plain(told).mask is None
    assert torch.equal(learned(told).tokens, learned(other_padding(told)).tokens), "rows of their own stand there"
    assert (plain(told).tokens - plain(other_padding(told)).tokens)[0, 0].abs().max() > 1e-6
    before = learned(told).tokens
    learned.padding_embedding[LENGTH - 1] *= -1
    assert ((learned(told).tokens - before).abs().amax((1, 2)) > 1e-6).all(), "and are attended to"


@torch.no_grad()
def test_a_text_is_the_same_in_any_company() -> None:
    told, made = texts(), encoder({"vector": 8, "tokens": 12})
    together, turned = made(told), made(told.take([2, 0, 3, 1]))
    for i, place in ((0, 1), (2, 0)):
        alone = made(told.take([i]))
        for said in (together.take([i]), turned.take([place])):
            torch.testing.assert_close(said.vector, alone.vector, rtol=0, atol=1e-12)
            torch.testing.assert_close(said.tokens, alone.tokens, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_last_position_is_the_last_that_is_not_masked() -> None:
    told, made = texts(), encoder({"vector": 8, "tokens": 16}, pool="last")
    said = made(told)
    for row in range(4):  # of row + 1 real tokens
        torch.testing.assert_close(said.vector[row], made.transformer_proj(said.tokens[row, row]))
    torch.testing.assert_close(made(other_padding(told)).vector, said.vector, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_pooled_position_and_the_doors_are_chosen() -> None:
    told = texts()
    wide = encoder({"vector": 8, "tokens": 16})
    rows = wide(told).tokens  # as wide as the transformer: they come as they are
    torch.testing.assert_close(wide(told).vector, wide.transformer_proj(rows[:, 0]))
    last = encoder({"vector": 8, "tokens": 16}, pool="last", padding="learned")
    torch.testing.assert_close(last(told).vector, last.transformer_proj(last(told).tokens[:, -1]))
    only = encoder({"vector": 8})(told)
    assert only.tokens is None and only.mask is None and only.vector.shape == (4, 8)


def test_every_parameter_learns() -> None:
    made = encoder({"vector": 8, "tokens": 12}, padding="learned")
    said = made(texts())
    (said.vector.square().sum() + said.tokens.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_texts_of_another_tokenizer_are_refused() -> None:
    made, told = encoder({"vector": 8}), texts()
    short = Texts(told.tokens[:, :5], told.mask[:, :5], tuple(part[:5] for part in told.empty))  # type: ignore[arg-type]
    with pytest.raises(ShapeMismatch, match=r"5 tokens for an encoder of 7.*own tokenizer"):
        made(short)
    for wrong in (30, -1):
        strange = told.tokens.clone()
        strange[1, 1] = wrong
        with pytest.raises(BadValue, match=f"0 to 29, and there is {wrong}.*own tokenizer"):
            made(replace(told, tokens=strange))


def test_an_encoder_that_does_not_say_its_kind_is_a_transformer() -> None:
    tokenizer = TokenizerConfig(context=LENGTH, padding=0)
    config = TextConfig(tokenizer=tokenizer, vocabulary=VOCABULARY, encoder={"width": 8, "heads": 2})  # type: ignore[arg-type]
    assert config.encoder == TextTransformerConfig(width=8, heads=2)
    assert TextConfig(**json.loads(config.model_dump_json())) == config
    assert isinstance(text_encoder(config, {"tokens": 4}), TextTransformer)
    with pytest.raises(ValueError, match="frozen"):
        TextConfig(tokenizer=tokenizer, vocabulary=VOCABULARY, encoder={"kind": "frozn"})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_a_network_hears_real_tokens_only(kind: str) -> None:
    made, told = network(kind), texts()
    x, time = question()
    say = encoder(made.config.doors)
    context = say(told)
    out = made(x, time, context)
    scale = {"rtol": 0, "atol": 1e-11 * out.abs().max().item()}
    torch.testing.assert_close(made(x, time, say(other_padding(told))), out, **scale)
    noise = torch.where(told.mask[..., None], context.tokens, 50.0)
    torch.testing.assert_close(made(x, time, replace(context, tokens=noise)), out, **scale)
    for row in range(4):  # as much padding as there is, less, none
        for length in range(row + 1, LENGTH + 1):
            vector = None if context.vector is None else context.vector[row : row + 1]
            short = Context(vector, context.tokens[row : row + 1, :length], context.mask[row : row + 1, :length])
            torch.testing.assert_close(made(x[:1], time[:1], short), out[row : row + 1], **scale)
    bare = Context(context.vector, context.tokens[:, :1], None)
    torch.testing.assert_close(made(x, time, bare)[:1], out[:1], **scale)
    changed = context.tokens.clone()
    changed[3, 3] *= -1
    assert (made(x, time, replace(context, tokens=changed)) - out)[3].abs().max() > 1e-6 * out.abs().max()


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_keys_and_values_made_beforehand_are_the_same_to_the_bit(kind: str) -> None:
    made, told = network(kind), texts()
    x, time = question()
    context = encoder(made.config.doors)(told)
    ready = prepared(made, context)
    assert isinstance(ready.projected, Projected)
    listeners = [
        m.name for m in made.modules() if isinstance(m, Listener) and m.keys_values(context.tokens) is not None
    ]
    assert sorted(ready.projected.layers) == sorted(listeners) and len(set(listeners)) == len(listeners) > 0
    assert torch.equal(made(x, time, ready), made(x, time, context))
    rows = [2, 0, 2, 1]
    assert torch.equal(made(x, time, ready.take(rows)), made(x, time, context.take(rows)))
    weak = [(Perturbation("attention-identity"), slice(1, 3))]
    assert torch.equal(made(x, time, ready, weak), made(x, time, context, weak))


@pytest.mark.parametrize("kind", ["cross", "append", "dit"])
@torch.no_grad()
def test_a_mixed_batch_of_perturbed_rows_is_the_separate_forwards(kind: str) -> None:
    made = network(kind)
    context = encoder(made.config.doors)(texts())
    x, time = question()
    kinds = [Perturbation("attention-identity"), Perturbation("skip"), Perturbation("time-noise", amount=2.0)]
    mixed = made(x, time, context, [(one, slice(i + 1, i + 2)) for i, one in enumerate(kinds)])
    for i, one in enumerate(kinds, start=1):
        row = slice(i, i + 1)
        alone = made(x[row], time[row], context.take(row), [(one, slice(0, 1))])
        torch.testing.assert_close(mixed[row], alone, rtol=0, atol=1e-11 * alone.abs().max().item())


@torch.no_grad()
def test_tokens_in_a_new_dit_do_nothing_and_its_other_parameters_keep_their_names() -> None:
    torch.manual_seed(0)
    told, plain = DiT(DIT).double(), DiT(DIT.model_copy(update={"tokens": None}))
    new = set(told.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) < set(told.state_dict())
    assert all(name.split(".")[2] == "cross_attn" for name in new) and len(new) == 3 * 8
    assert told.perturbations == plain.perturbations
    layer = told.blocks[1].cross_attn
    assert isinstance(layer, PatchCrossAttention) and layer.norm_tokens.weight.eq(1).all()
    h, said = normal(2, 4, 4, 16), normal(2, 3, 12)
    assert layer(h, Signal(normal(2, 16), tokens=said)).abs().max() == 0
    nn.init.eye_(layer.proj_out.weight)
    heard = layer(h, Signal(normal(2, 16), tokens=said))
    key, value = layer.key_value(layer.norm_tokens(said)).split(16, 2)
    query = layer.query(nn.functional.layer_norm(h.flatten(1, 2), (16,), eps=1e-6))
    wanted = [
        (query[..., at] @ key[..., at].mT / 8**0.5).softmax(-1) @ value[..., at] for at in (slice(8), slice(8, 16))
    ]
    torch.testing.assert_close(heard.flatten(1, 2), torch.cat(wanted, 2))
