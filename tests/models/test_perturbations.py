"""Every perturbation does what its formula says, to the rows it is meant for and to no others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported, UnknownName
from guidon.models import UNet, UNetConfig
from guidon.models.attention import Attention
from guidon.models.denoiser import Denoiser
from guidon.models.layers import Signal, Stage
from guidon.noise import Cosine, VOutput
from guidon.perturbation import Perturbation

BASE = UNetConfig(
    model_channels=8, channel_mult=(1, 2), num_res_blocks=2, attention=(2,), heads=2, groups=4, vector=None
)
WAYS: dict[str, dict[str, object]] = {
    "plain": {},
    "film": {"vector": "film", "vector_width": 5},
    "cross": {"tokens": "cross", "token_width": 5},
    "append": {"tokens": "append", "token_width": 5, "attention": (1, 2), "resblock_updown": True},
}
KINDS = [
    Perturbation("attention-identity"),
    Perturbation("query-blur", amount=math.inf),
    Perturbation("query-blur", amount=0.8),
    Perturbation("skip"),
    Perturbation("time-noise", amount=2.0, seed=3),
]


def build(way: str = "plain") -> UNet:
    torch.manual_seed(0)
    network = UNet(BASE.model_copy(update=WAYS[way])).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def question(network: UNet, n: int = 6) -> tuple[Tensor, Tensor, Context]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    doors = network.config.doors
    context = Context(
        vector=normal(n, 5) if "vector" in doors else None,
        tokens=normal(n, 3, 5) if "tokens" in doors else None,
        mask=torch.arange(3) < torch.arange(n)[:, None] % 3 + 1 if "tokens" in doors else None,
    )
    return normal(n, 3, 8, 12), torch.linspace(10, 900, n), context


def by_hand(layer: Attention, x: Tensor, perturbation: Perturbation, tokens: Tensor | None) -> Tensor:
    """Attention head by head, weakened as the papers say; qkv are laid out heads first."""
    flat = layer.norm(x).flatten(2).transpose(1, 2)
    width = x.shape[1] // layer.heads
    out = []
    for head in range(layer.heads):
        at = 3 * width * head
        query, key, value = layer.qkv(flat)[:, :, at : at + 3 * width].split(width, dim=2)
        if perturbation.name == "attention-identity":
            out.append(value)
            continue
        size, deviation = x.shape[2:], perturbation.amount
        if math.isinf(deviation):
            query = query.mean(1, keepdim=True).expand_as(query)
        else:
            wanted = math.ceil(6 * deviation) + 1 - math.ceil(6 * deviation) % 2
            reach = [min(wanted // 2, side // 2) for side in size]
            taps = [torch.exp(-(torch.arange(-r, r + 1).double() ** 2) / (2 * deviation**2)) for r in reach]
            kernel = torch.outer(*taps) / torch.outer(*taps).sum()
            grid = query.transpose(1, 2).reshape(-1, 1, *size)
            padded = F.pad(grid, (reach[1], reach[1], reach[0], reach[0]), mode="reflect")
            query = F.conv2d(padded, kernel[None, None]).reshape(len(x), width, -1).transpose(1, 2)
        if tokens is not None:
            more = layer.encoder_kv(tokens)[:, :, 2 * width * head : 2 * width * (head + 1)]
            key, value = torch.cat([more[..., :width], key], 1), torch.cat([more[..., width:], value], 1)
        out.append((query @ key.mT / width**0.5).softmax(-1) @ value)
    return x + layer.proj_out(torch.cat(out, 2)).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("appended", [0, 5])
@pytest.mark.parametrize(
    "perturbation",
    [Perturbation("attention-identity"), *(Perturbation("query-blur", amount=a) for a in (0.3, 0.7, 3.0, math.inf))],
    ids=str,
)
def test_attention_is_weakened_as_the_papers_say(perturbation: Perturbation, appended: int) -> None:
    torch.manual_seed(0)
    layer = Attention(8, 2, tokens=appended).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    layer.name = "here"
    x, tokens = torch.randn(3, 8, 4, 7).double(), torch.randn(3, 2, 5).double() if appended else None
    plain = Signal(torch.zeros(3, 4), tokens=tokens)
    weak = layer(x, plain._replace(weak={"here": [(perturbation, slice(1, 3))]}))
    torch.testing.assert_close(weak[1:], by_hand(layer, x, perturbation, tokens)[1:], rtol=0, atol=1e-12)
    torch.testing.assert_close(weak[:1], layer(x, plain)[:1], rtol=0, atol=1e-12)
    assert (weak[1:] - layer(x, plain)[1:]).abs().max() > 1e-2
    elsewhere = layer(x, plain._replace(weak={"there": [(perturbation, slice(1, 3))]}))
    assert torch.equal(elsewhere, layer(x, plain))


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_a_mixed_batch_is_the_separate_forwards(way: str) -> None:
    network = build(way)
    x, time, context = question(network)
    perturbed = [(kind, slice(i + 1, i + 2)) for i, kind in enumerate(KINDS)]
    mixed = network(x, time, context, perturbed)
    for i, kind in enumerate([None, *KINDS]):
        row = slice(i, i + 1)
        plain = network(x[row], time[row], context.take(row))
        alone = plain if kind is None else network(x[row], time[row], context.take(row), [(kind, slice(0, 1))])
        torch.testing.assert_close(mixed[row], alone, rtol=0, atol=1e-12 * plain.abs().max().item())
        assert kind is None or (alone - plain).norm() > 1e-6 * plain.norm(), f"{kind} changes the output"


@torch.no_grad()
def test_several_perturbations_may_weaken_the_same_rows() -> None:
    network = build()
    x, time, _ = question(network)
    first, second, rows = KINDS[0], KINDS[4], slice(2, 5)
    both = network(x, time, None, [(first, rows), (second, rows)])
    assert torch.equal(both, network(x, time, None, [(second, rows), (first, rows)]))
    for one in (first, second):
        assert (both - network(x, time, None, [(one, rows)]))[rows].norm() > 1e-6 * both[rows].norm()


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_every_layer_on_offer_can_be_weakened(way: str) -> None:
    network = build(way)
    x, time, context = question(network, 2)
    plain = network(x, time, context)
    for name, layers in network.perturbations.items():
        assert set(network.suggested(name)) <= set(layers)
        for layer in layers:
            weak = network(x, time, context, [(Perturbation(name, (layer,)), slice(0, 2))])
            assert (weak - plain).norm() > 1e-9 * plain.norm(), f"{name} in {layer} does nothing"


def test_layers_have_names_for_people() -> None:
    network = build()
    attention = (
        *(f"down.{i}.attention" for i in (4, 5)),
        "middle.attention",
        *(f"up.{i}.attention" for i in (0, 1, 2)),
    )
    assert network.perturbations["attention-identity"] == network.perturbations["query-blur"] == attention
    # the first block of a level widens and those on the way up take a skip in: they cannot be left out
    blocks = ("down.1.block", "down.2.block", "down.5.block", "middle.block", "middle.block2")
    assert set(network.perturbations["skip"]) == {*attention, *blocks}
    assert network.perturbations["time-noise"] == network.suggested("time-noise") == ()
    assert network.suggested("attention-identity") == network.suggested("query-blur") == ("middle.attention",)
    assert network.suggested("skip") == ("middle.attention", "up.0.attention", "up.1.attention")
    assert UNet(BASE.model_copy(update={"attention": ()})).suggested("skip") == ("middle.attention",)
    assert "middle.cross" in build("cross").perturbations["skip"]
    with pytest.raises(UnknownName, match="time-noise"):
        network.suggested("time-nose")


@pytest.mark.parametrize("kind", KINDS[:4], ids=str)
@torch.no_grad()
def test_without_layers_those_that_are_suggested_are_weakened(kind: Perturbation) -> None:
    network = build()
    x, time, _ = question(network, 2)
    named = replace(kind, layers=network.suggested(kind.name))
    assert torch.equal(network(x, time, None, [(kind, slice(0, 2))]), network(x, time, None, [(named, slice(0, 2))]))


@torch.no_grad()
def test_a_skipped_layer_adds_nothing() -> None:
    network = build("film")
    x, time, context = question(network)
    middle = tuple(name for name in network.perturbations["skip"] if name.startswith("middle."))
    skipped = network(x, time, context, [(Perturbation("skip", middle), slice(None))])
    network.middle_block = Stage()
    torch.testing.assert_close(skipped, network(x, time, context), rtol=0, atol=1e-12 * skipped.abs().max().item())


class Noisy(torch.nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = function  # type: ignore[method-assign]


@torch.no_grad()
def test_time_noise_is_one_vector_on_the_time_embedding_and_follows_its_seed() -> None:
    network = build()
    x, time, _ = question(network)

    def weak(seed: int, amount: float = 1.5) -> Tensor:
        return network(x, time, None, [(Perturbation("time-noise", amount=amount, seed=seed), slice(None))])

    first = weak(7)
    torch.manual_seed(99)
    assert torch.equal(first, weak(7))
    assert (first - weak(8)).norm() > 1e-3 * first.norm()
    assert torch.equal(weak(7, 0.0), network(x, time))
    noise = torch.randn(network.config.embedding_width, generator=torch.Generator().manual_seed(7)).double()
    embed = network.time_embed

    def noisy(embedding: Tensor) -> Tensor:
        plain = embed(embedding)
        return plain + 1.5 * plain.std(1, keepdim=True) * noise

    network.time_embed = Noisy(noisy)
    torch.testing.assert_close(first, network(x, time), rtol=0, atol=1e-12 * first.abs().max().item())


@torch.no_grad()
def test_no_blur_and_no_rows_change_nothing() -> None:
    network = build()
    x, time, _ = question(network)
    plain = network(x, time)
    assert torch.equal(network(x, time, None, ()), plain)
    assert torch.equal(network(x, time, None, [(KINDS[0], slice(3, 3))]), plain)
    for width in (0.0, 1e-300):
        still = network(x, time, None, [(Perturbation("query-blur", amount=width), slice(None))])
        torch.testing.assert_close(still, plain, rtol=0, atol=1e-12 * plain.abs().max().item())


@pytest.mark.parametrize(
    ("perturbation", "error", "message"),
    [
        (Perturbation("atention-identity"), NotSupported, "UNet.*did you mean 'attention-identity'.*query-blur, skip"),
        (Perturbation("query-blur", ("midle.attention",)), NotSupported, "did you mean 'middle.attention'.*down.4"),
        (Perturbation("attention-identity", ("middle.block",)), NotSupported, "middle.block.*it can to: down.4"),
        (Perturbation("skip", ("up.0.block",)), NotSupported, "up.0.block"),
        (Perturbation("time-noise", ("middle.attention",)), NotSupported, "leave layers out"),
        (Perturbation("skip", ()), NotSupported, "no layer"),
        (Perturbation("query-blur", amount=-1.0), BadValue, "from 0 on, got -1.0"),
        (Perturbation("query-blur", amount=math.nan), BadValue, "nan"),
        (Perturbation("time-noise", amount=math.inf), BadValue, "inf"),
    ],
    ids=str,
)
def test_what_a_network_cannot_do_is_refused(perturbation: Perturbation, error: type[Exception], message: str) -> None:
    network = build()
    denoiser = Denoiser(network, Cosine(), VOutput())
    with pytest.raises(error, match=message):
        denoiser.check(perturbation)
    x, _, context = question(network)
    with pytest.raises(error, match=message):
        denoiser(x, denoiser.process.level(0.5), context, [(perturbation, slice(0, 1))])


@torch.no_grad()
def test_a_denoiser_passes_perturbations_on_and_a_network_without_any_says_so() -> None:
    denoiser = Denoiser(build(), Cosine(), VOutput())
    x, _, context = question(denoiser.network)
    level = denoiser.process.level(0.5)
    weak, plain = denoiser(x, level, context, [(KINDS[0], slice(4, 6))]), denoiser(x, level, context)
    torch.testing.assert_close(weak.x0[:4], plain.x0[:4], rtol=0, atol=1e-11)
    assert (weak.x0[4:] - plain.x0[4:]).norm() > 1e-3 * plain.x0[4:].norm()
    for kind in KINDS:
        denoiser.check(kind)
    with pytest.raises(NotSupported, match=r"Identity does not offer.*none; use another rule"):
        Denoiser(nn.Identity(), Cosine(), VOutput()).check(KINDS[0])
