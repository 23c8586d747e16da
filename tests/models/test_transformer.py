"""The diffusion transformer: positions, patches, gates, and the ways in which it can be weakened."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from support.numbers import normal
from torch import Tensor, nn
from training.tiny import tiny_recipe

from guidon.conditioning import Context, LabelEncoder, Labels
from guidon.errors import BadValue, NotSupported, ShapeMismatch, UnknownName
from guidon.models import DiT, DiTConfig
from guidon.models.denoiser import Denoiser
from guidon.models.dit import positions
from guidon.models.layers import Signal
from guidon.models.perturb import blur
from guidon.noise import Cosine, VOutput
from guidon.perturbation import Perturbation
from guidon.registry import lookup
from guidon.training.optimizer import build_optimizers

BASE = DiTConfig(in_channels=2, out_channels=4, patch=2, width=16, depth=3, heads=2, mlp_ratio=2.5)
KINDS = [
    Perturbation("attention-identity"),
    Perturbation("query-blur", amount=math.inf),
    Perturbation("query-blur", amount=0.8),
    Perturbation("skip"),
    Perturbation("time-noise", amount=2.0, seed=3),
]


def build(**change: object) -> DiT:
    torch.manual_seed(0)
    network = DiT(BASE.model_copy(update=change)).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def question(n: int = 6) -> tuple[Tensor, Tensor, Context]:
    return normal(n, 2, 8, 12), torch.linspace(10, 900, n), Context(vector=normal(n, 16, seed=1))


def test_positions_tell_the_column_then_the_row() -> None:
    table = positions(2, 3, 8)
    assert table.shape == (2, 3, 8)
    for row in range(2):
        for column in range(3):
            wanted = [f(place * rate) for place in (column, row) for f in (math.sin, math.cos) for rate in (1.0, 0.01)]
            torch.testing.assert_close(table[row, column], torch.tensor(wanted, dtype=torch.float64))


@torch.no_grad()
def test_channels_vary_fastest_in_a_patch() -> None:
    network = build()
    nn.init.zeros_(network.final_layer.linear.weight)
    network.final_layer.linear.bias.copy_(torch.arange(16))
    out = network(*question(1))
    for channel in range(4):
        for row in range(8):
            for column in range(12):
                assert out[0, channel, row, column] == (row % 2 * 2 + column % 2) * 4 + channel


@torch.no_grad()
def test_what_is_far_away_in_the_image_reaches_only_through_attention() -> None:
    network = build()
    for block in network.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    x, time, context = question(1)
    changed = x.clone()
    changed[:, :, 2:4, 4:6] += 1  # the patch in row 1, column 2
    moved = (network(changed, time, context) - network(x, time, context)).abs().amax((0, 1)) > 1e-12
    inside = torch.zeros(8, 12, dtype=torch.bool)
    inside[2:4, 4:6] = True
    assert torch.equal(moved, inside)


@torch.no_grad()
def test_a_new_network_says_zero_and_its_blocks_do_nothing() -> None:
    torch.manual_seed(0)
    network, (x, time, context) = DiT(BASE).double(), question(2)
    assert network(x, time, context).abs().max() == 0
    h = normal(2, 4, 6, 16)
    assert torch.equal(network.blocks(h, Signal(normal(2, 16))), h)
    patches, bound = network.x_embedder.proj, math.sqrt(6 / (16 + 8))  # of a linear map from a patch to the width
    assert 0.9 * bound < patches.weight.abs().max() <= bound and patches.bias.abs().max() == 0
    assert network.t_embedder.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_config_survives_json_and_the_registry_knows_the_network() -> None:
    assert DiTConfig(**json.loads(BASE.model_dump_json())) == BASE
    assert lookup("network", "dit") is DiT and DiT.Config is DiTConfig
    assert DiT(BASE).blocks[2].mlp.fc1.weight.shape == (40, 16), "2.5 times the width"
    assert (BASE.multiple, BASE.doors, DiTConfig(vector=None).doors) == (2, {"vector": 16}, {})


def test_every_parameter_learns() -> None:
    network = build()
    network(*question()).square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without, without


@torch.no_grad()
def test_a_mixed_batch_is_the_separate_forwards() -> None:
    network = build()
    x, time, context = question()
    mixed = network(x, time, context, [(kind, slice(i + 1, i + 2)) for i, kind in enumerate(KINDS)])
    for i, kind in enumerate([None, *KINDS]):
        row = slice(i, i + 1)
        plain = network(x[row], time[row], context.take(row))
        alone = plain if kind is None else network(x[row], time[row], context.take(row), [(kind, slice(0, 1))])
        torch.testing.assert_close(mixed[row], alone, rtol=0, atol=1e-12 * plain.abs().max().item())
        assert kind is None or (alone - plain).norm() > 1e-6 * plain.norm(), f"{kind} changes the output"


@torch.no_grad()
def test_every_layer_on_offer_can_be_weakened() -> None:
    network = build()
    x, time, context = question(2)
    plain = network(x, time, context)
    for name, layers in network.perturbations.items():
        assert set(network.suggested(name)) <= set(layers)
        for layer in layers:
            weak = network(x, time, context, [(Perturbation(name, (layer,)), slice(0, 2))])
            assert (weak - plain).norm() > 1e-9 * plain.norm(), f"{name} in {layer} does nothing"


@torch.no_grad()
def test_weakened_layers_are_what_the_papers_say() -> None:
    network = build()
    x, time, context = question(2)

    def weak(name: str, layer: str, amount: float = 1.0) -> Tensor:
        return network(x, time, context, [(Perturbation(name, (layer,), amount), slice(None))])

    alone = weak("attention-identity", "block.1.attention")
    blurred = {amount: weak("query-blur", "block.1.attention", amount) for amount in (0.8, math.inf)}
    skipped = weak("skip", "block.1")
    close = {"rtol": 0, "atol": 1e-12 * alone.abs().max().item()}
    block, attention = network.blocks[1], network.blocks[1].attn
    attention.forward = lambda h, signal: attention.proj(attention.qkv(h)[..., 32:])  # type: ignore[method-assign]
    torch.testing.assert_close(alone, network(x, time, context), **close)
    for amount, seen in blurred.items():
        attention.forward = blurred_questions(attention, amount)  # type: ignore[method-assign]
        torch.testing.assert_close(seen, network(x, time, context), **close)
    block.forward = lambda h, signal: h  # type: ignore[method-assign]
    torch.testing.assert_close(skipped, network(x, time, context), **close)


def blurred_questions(attention: nn.Module, amount: float) -> Callable[[Tensor, Signal], Tensor]:
    """Return an attention, written head by head, whose positions ask questions blurred over rows and columns."""

    def forward(h: Tensor, signal: Signal) -> Tensor:
        query, key, value = attention.qkv(h.flatten(1, 2)).split(16, dim=2)
        query = blur(query[:, None], h.shape[1:3], amount)[:, 0]
        heads = [
            (query[..., at] @ key[..., at].mT / 8**0.5).softmax(-1) @ value[..., at]
            for at in (slice(0, 8), slice(8, 16))
        ]
        return attention.proj(torch.cat(heads, 2)).view_as(h)

    return forward


def test_layers_have_names_for_people_and_those_of_the_papers_are_suggested() -> None:
    network = build()
    assert network.perturbations["skip"] == ("block.0", "block.1", "block.2")
    attention = ("block.0.attention", "block.1.attention", "block.2.attention")
    assert network.perturbations["attention-identity"] == network.perturbations["query-blur"] == attention
    assert network.suggested("attention-identity") == network.suggested("query-blur") == ("block.1.attention",)
    assert network.perturbations["time-noise"] == network.suggested("time-noise") == ()
    medium, large, one = (DiT(BASE.model_copy(update={"depth": d, "width": 4, "heads": 1})) for d in (24, 28, 1))
    assert medium.suggested("skip") == ("block.7", "block.8", "block.9"), "those of SD3.5"
    assert medium.suggested("query-blur") == ("block.12.attention",), "the middle"
    assert large.suggested("skip") == ("block.8", "block.9", "block.10")
    assert one.suggested("skip") == ("block.0",) and one.suggested("query-blur") == ("block.0.attention",)
    with pytest.raises(UnknownName, match="time-noise"):
        network.suggested("time-nose")


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [
        (Perturbation("atention-identity"), "DiT.*did you mean 'attention-identity'"),
        (Perturbation("attention-identity", ("block.1",)), "block.1.*it can to: block.0.attention"),
        (Perturbation("skip", ("block.1.attention",)), "it can to: block.0, block.1"),
        (Perturbation("time-noise", ("block.1",)), "leave layers out"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused(perturbation: Perturbation, message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        Denoiser(build(), Cosine(), VOutput()).check(perturbation)


def test_what_does_not_fit_is_refused() -> None:
    network, (x, time, context) = build(), question(2)
    with pytest.raises(ShapeMismatch, match="8x12"):
        network(x[:, :, :7], time, context)
    with pytest.raises(ShapeMismatch, match="images"):
        network(x[:, :1], time, context)
    with pytest.raises(ShapeMismatch, match="time"):
        network(x, time[:1], context)
    with pytest.raises(NotSupported, match="lacks vector"):
        network(x, time)
    with pytest.raises(NotSupported, match="brings spatial"):
        network(x, time, Context(vector=context.vector, spatial=x))
    with pytest.raises(ShapeMismatch, match="5 wide where the network takes 16"):
        network(x, time, Context(vector=torch.zeros(2, 5)))
    with pytest.raises(NotSupported, match="no inner head"):
        network(x, time, context, inner=True)
    for change, message in (({"width": 18}, "multiple of 4"), ({"heads": 3}, "heads")):
        with pytest.raises(BadValue, match=message):
            DiT(BASE.model_copy(update=change))


def test_without_a_door_it_needs_no_context() -> None:
    network, (x, time, _) = build(vector=None), question(2)
    assert torch.equal(network(x, time), network(x, time, Context()))


def test_a_few_images_are_learned_and_the_label_matters() -> None:
    torch.manual_seed(0)
    config = DiTConfig(in_channels=1, out_channels=1, width=32, depth=2, heads=2)
    network, encoder = DiT(config), LabelEncoder(4, 32)
    labels = Labels(torch.arange(8) % 5, 4)
    images = normal(5, 1, 8, 8, seed=1).float()[labels.ids].clamp(-1, 1)
    x, time = normal(1, 1, 8, 8, seed=2).float().expand(8, -1, -1, -1), torch.full((8,), 500.0)
    optimizer, losses = torch.optim.Adam([*network.parameters(), *encoder.parameters()], lr=4e-3), []
    for _ in range(60):
        loss = (network(x, time, encoder(labels)) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_recipe_names_it_and_muon_takes_the_middle() -> None:
    told = tiny_recipe().model_dump()
    recipe = tiny_recipe().read(
        {
            "data": told["data"],
            "model": {"network": "dit", "architecture": {"width": 16, "depth": 2, "heads": 2}},
            "train": {"steps": 3, "optimizer": "muon"},
        }
    )
    model = recipe.build((1, 8, 8), tuple("0123456789"))
    assert isinstance(model.network, DiT) and model.network.config.in_channels == 1
    optimizers = build_optimizers(model, recipe.train)
    hidden = {id(p) for group in optimizers["muon"].param_groups for p in group["params"]}
    names = {name for name, p in model.network.named_parameters() if id(p) in hidden}
    blocks = {f"blocks.{i}.{part}.weight" for i in (0, 1) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert names == blocks | {f"blocks.{i}.adaLN_modulation.1.weight" for i in (0, 1)} | {"t_embedder.mlp.2.weight"}
