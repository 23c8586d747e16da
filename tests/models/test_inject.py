"""Every way in: it starts as doing nothing, learns to tell conditions apart, and honours masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from guidon.conditioning import Context, LabelEncoder, Labels
from guidon.errors import NotSupported, ShapeMismatch
from guidon.models import UNet, UNetConfig
from guidon.models.attention import Attention
from guidon.models.inject import CrossAttention, FiLM, beside
from guidon.models.layers import Signal

SMALL = UNetConfig(
    in_channels=1,
    out_channels=1,
    model_channels=16,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention=(2,),
    heads=2,
    groups=4,
)
WAYS: dict[str, tuple[dict[str, object], str]] = {
    "adagn": ({"scale_shift": True}, "vector"),
    "add": ({"scale_shift": False}, "vector"),
    "film": ({"vector": "film", "vector_width": 12}, "vector"),
    "cross": ({"vector": None, "tokens": "cross", "token_width": 12}, "tokens"),
    "append": ({"vector": None, "tokens": "append", "token_width": 12}, "tokens"),
    "concat": ({"vector": None, "spatial_channels": 3}, "spatial"),
}


def build(way: str) -> tuple[UNet, LabelEncoder]:
    torch.manual_seed(0)
    options, door = WAYS[way]
    network = UNet(SMALL.model_copy(update=options))
    return network, LabelEncoder(4, network.config.doors[door], door)  # type: ignore[arg-type]


def fit(network: UNet, encoder: LabelEncoder, steps: int = 60) -> tuple[float, float, Tensor]:
    """Map the label alone to one of five images (the null's included) from one noise; return first and last loss."""
    labels = Labels(torch.arange(8) % 5, 4)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))[labels.ids].clamp(-1, 1)
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(2)).expand(
        8, -1, -1, -1
    )  # only the label tells
    time = torch.full((8,), 500.0)
    parameters = [*network.parameters(), *encoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=4e-3)
    losses = []
    for _ in range(steps):
        loss = (network(x, time, encoder(labels)) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1], x


@pytest.mark.parametrize("way", WAYS)
def test_a_few_images_are_learned_and_the_condition_matters(way: str) -> None:
    network, encoder = build(way)
    null_before = encoder.embedding.weight[4].detach().clone()
    first, last, x = fit(network, encoder)
    assert last < 0.3 * first
    assert (encoder.embedding.weight[4] - null_before).abs().max() > 1e-3, "the null row is learned"
    with torch.no_grad():
        by_label = network(x[:5], torch.full((5,), 500.0), encoder(Labels(torch.arange(5), 4)))
    gaps = torch.cdist(by_label.flatten(1), by_label.flatten(1)) + torch.eye(5) * 9
    assert gaps.min() > 0.1, "every label, the null too, gives an output of its own"


@pytest.mark.parametrize("way", ["cross", "append"])
def test_masked_tokens_have_no_influence(way: str) -> None:
    network, _ = build(way)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, time = torch.randn(2, 1, 8, 8), torch.tensor([10.0, 900.0])
    tokens, mask = torch.randn(2, 6, 12), torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    out = network(x, time, Context(tokens=tokens, mask=mask))

    permuted, changed, shown = tokens.clone(), tokens.clone(), tokens.clone()
    permuted[1] = tokens[1, [0, 1, 2, 5, 3, 4]]
    changed[1, 3:] = 100.0
    shown[1, :3] = shown[0, :3]
    assert torch.allclose(network(x, time, Context(tokens=permuted, mask=mask)), out, atol=1e-5)
    assert torch.allclose(network(x, time, Context(tokens=changed, mask=mask)), out, atol=1e-5)
    assert not torch.allclose(network(x, time, Context(tokens=shown, mask=mask))[1], out[1], atol=1e-2)
    assert torch.allclose(network(x[1:], time[1:], Context(tokens=tokens[1:, :3])), out[1:], atol=1e-5)


def test_cross_attention_leaves_an_image_without_tokens_alone() -> None:
    attention = CrossAttention(16, 2, 8)
    nn.init.normal_(attention.proj_out.weight)
    nn.init.normal_(attention.proj_out.bias)
    x, mask = torch.randn(2, 16, 4, 4, requires_grad=True), torch.tensor([[False, False], [True, False]])
    out = attention(x, Signal(torch.zeros(2, 4), tokens=torch.randn(2, 2, 8), mask=mask))
    assert torch.equal(out[0], x[0]) and not torch.allclose(out[1], x[1])
    out.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_new_ways_start_as_identity() -> None:
    x = torch.randn(2, 16, 4, 4)
    signal = Signal(torch.zeros(2, 4), tokens=torch.randn(2, 3, 8))
    assert torch.equal(FiLM(8, 16)(x, torch.randn(2, 8)), x)
    assert torch.equal(CrossAttention(16, 2, 8)(x, signal), x)
    assert torch.equal(Attention(16, 2, tokens=8)(x, signal), x)


def test_spatial_is_broadcast_or_refused() -> None:
    x, everywhere = torch.randn(2, 1, 8, 8), torch.randn(2, 3, 1, 1)
    assert torch.equal(beside(x, everywhere, 3), beside(x, everywhere.expand(-1, -1, 8, 8), 3))
    with pytest.raises(ShapeMismatch, match="resize"):
        beside(x, torch.zeros(2, 3, 4, 4), 3)
    with pytest.raises(ShapeMismatch, match="channels"):
        beside(x, torch.zeros(2, 2, 8, 8), 3)


@pytest.mark.parametrize("way", WAYS)
def test_a_context_that_does_not_fit_is_refused(way: str) -> None:
    network, encoder = build(way)
    x, time = torch.randn(2, 1, 8, 8), torch.zeros(2)
    door = WAYS[way][1]
    with pytest.raises(NotSupported, match=f"lacks {door}"):
        network(x, time)
    with pytest.raises(ShapeMismatch):
        network(x, time, encoder(Labels(torch.tensor([0]), 4)))
    other = "tokens" if door == "vector" else "vector"
    parts = {door: getattr(encoder(Labels(torch.tensor([0, 1]), 4)), door)}
    parts[other] = getattr(LabelEncoder(4, 12, other)(Labels(torch.tensor([0, 1]), 4)), other)  # type: ignore[arg-type]
    with pytest.raises(NotSupported, match=f"brings {other}"):
        network(x, time, Context(**parts))
    with pytest.raises(ShapeMismatch):
        network(x, time, LabelEncoder(4, 5, door)(Labels(torch.tensor([0, 1]), 4)))  # type: ignore[arg-type]
