from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from guidon.conditioning import Context
from guidon.errors import BadValue, ShapeMismatch
from guidon.models import UNet, UNetConfig
from guidon.models.attention import Attention, attend
from guidon.models.inject import coordinates
from guidon.models.layers import GroupNorm, Groups, Signal, time_embedding
from guidon.registry import lookup

BASE = UNetConfig(
    model_channels=16, channel_mult=(1, 2), num_res_blocks=1, attention=(2,), heads=2, groups=4, vector=None
)


def randomised(config: UNetConfig) -> UNet:
    torch.manual_seed(0)
    network = UNet(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"patch": 2, "out_channels": 6},
        {"resblock_updown": True, "scale_shift": False},
        {"conv_resample": False, "channel_mult": (1, 1.5, 2), "num_res_blocks": (1, 2, 1)},
        {"attention_order": "qkv-first", "decoder_heads": 4, "attention": (1, 2)},
        {"head_channels": 8, "dropout": 0.1, "group_channels": 8},
    ],
)
def test_shape_survives_and_every_parameter_gets_a_gradient(change: dict[str, object]) -> None:
    network = randomised(BASE.model_copy(update=change))
    x = torch.randn(2, 3, 16, 8)
    out = network(x, torch.tensor([3.0, 999.5]))
    assert out.shape == (2, network.config.out_channels, 16, 8)
    out.square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without, without


def test_config_survives_json_and_the_registry_knows_the_network() -> None:
    assert UNetConfig(**json.loads(BASE.model_dump_json())) == BASE
    assert lookup("network", "unet") is UNet and UNet.Config is UNetConfig


def test_a_new_network_says_zero() -> None:
    assert UNet(BASE)(torch.randn(1, 3, 8, 8), torch.zeros(1)).abs().max() == 0


def test_neighbours_and_memory_layout_do_not_matter() -> None:
    network = randomised(BASE)
    x, time = torch.randn(3, 3, 8, 8), torch.tensor([0.0, 500.0, 1000.0])
    out = network(x, time)
    assert torch.allclose(network(x[1:2], time[1:2]), out[1:2], rtol=1e-3, atol=1e-3)
    assert torch.allclose(network.to(memory_format=torch.channels_last)(x, time), out, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(network(x, time.flip(0)), out, rtol=1e-2), "time matters"


def test_attention_orders_are_the_same_but_for_the_layout() -> None:
    heads, channels = 2, 8
    old, new = Attention(channels, heads), Attention(channels, heads, order="qkv-first")
    nn.init.normal_(old.proj_out.weight)
    new.load_state_dict(old.state_dict())
    rows = torch.arange(3 * channels).view(heads, 3, -1).transpose(0, 1).flatten()
    new.qkv.load_state_dict({"weight": old.qkv.weight[rows], "bias": old.qkv.bias[rows]})
    x, signal = torch.randn(2, channels, 4, 4), Signal(torch.zeros(2, 4))
    assert torch.allclose(old(x, signal), new(x, signal), atol=1e-5)
    assert not torch.allclose(old(x, signal), x)


@pytest.mark.parametrize(
    ("change", "way_down", "way_up"),
    [
        ({"heads": 2}, [2, 2], [2, 2, 2, 2]),
        ({"heads": 2, "decoder_heads": 4}, [2, 2], [4, 4, 4, 4]),
        ({"head_channels": 8, "heads": 1, "decoder_heads": 1}, [2, 4], [4, 4, 2, 2]),
        ({"head_channels": 20}, [1, 1], [1, 1, 1, 1]),
    ],
)
def test_heads_are_counted_by_number_or_by_channels(
    change: dict[str, object], way_down: list[int], way_up: list[int]
) -> None:
    network = UNet(BASE.model_copy(update={"attention": (1, 2), **change}))

    def heads(*stages: nn.Module) -> list[int]:
        return [layer.heads for stage in stages for layer in stage.modules() if isinstance(layer, Attention)]

    assert heads(*network.input_blocks) == way_down and heads(*network.output_blocks) == way_up
    assert heads(network.middle_block) == way_down[-1:]


def test_time_embedding_is_cosines_then_sines() -> None:
    embedded = time_embedding(torch.tensor([0.0, 2.0]), 6)
    assert embedded[0].tolist() == [1, 1, 1, 0, 0, 0]
    rates = torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)])
    assert torch.allclose(embedded[1], torch.cat([(2 * rates).cos(), (2 * rates).sin()]))
    assert time_embedding(torch.zeros(1), 7).shape == (1, 7)


def test_groups_by_count_or_by_channels_always_divide() -> None:
    assert [Groups().of(width) for width in (32, 48, 96, 7)] == [32, 16, 32, 1]
    assert [Groups(channels=16).of(width) for width in (32, 48, 24)] == [2, 3, 3]


def test_short_attention_in_half_precision_is_the_same_attention() -> None:
    query, key, value = torch.randn(3, 2, 4, 9, 8).unbind()
    mask = torch.rand(2, 1, 1, 9) > 0.4
    mask[..., 0] = True
    for seen in (None, mask):
        exact = attend(query, key, value, seen)
        short = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), seen)
        assert (short - exact).norm() < 0.02 * exact.norm()


def test_group_norm_trains_on_channels_last_data_that_needs_no_gradient() -> None:
    norm = GroupNorm(48)
    assert norm.num_groups == 16
    norm(torch.randn(2, 48, 8, 8).to(memory_format=torch.channels_last)).square().sum().backward()
    assert norm.weight.grad is not None and norm.weight.grad.isfinite().all()


def test_bfloat16_autocast_trains() -> None:
    network = randomised(BASE).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x, torch.tensor([1.0, 2.0]))
    exact = network(x, torch.tensor([1.0, 2.0]))
    out.float().square().mean().backward()
    assert (out.float() - exact).norm() < 0.1 * exact.norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_sizes_that_cannot_work_name_the_remedy() -> None:
    network = UNet(BASE.model_copy(update={"patch": 2}))
    with pytest.raises(ShapeMismatch, match="12x8"):
        network(torch.zeros(1, 3, 10, 8), torch.zeros(1))
    with pytest.raises(ShapeMismatch, match="images"):
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1))
    with pytest.raises(ShapeMismatch, match="time"):
        network(torch.zeros(1, 3, 8, 8), torch.zeros(2))


@pytest.mark.parametrize(
    "change",
    [{"attention": (4,)}, {"heads": 3}, {"num_res_blocks": (1,)}, {"vector": "embedding", "vector_width": 3}],
)
def test_configs_that_contradict_themselves_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadValue):
        UNet(BASE.model_copy(update=change))
    with pytest.raises(ValidationError):
        UNetConfig(colour="red")  # type: ignore[call-arg]


def test_no_condition_is_no_context() -> None:
    network, x, time = randomised(BASE), torch.randn(1, 3, 8, 8), torch.zeros(1)
    assert torch.equal(network(x, time), network(x, time, Context()))


def test_coordinates_say_where_a_pixel_is() -> None:
    where = coordinates(torch.zeros(2, 3, 3, 5))
    assert where.shape == (2, 2, 3, 5)
    assert where[1, 0, 2].tolist() == [-1, -0.5, 0, 0.5, 1] and where[0, 1, :, 4].tolist() == [-1, 0, 1]


def test_a_network_with_coordinates_is_shown_them_behind_all_else() -> None:
    """It is the network without them whose input has two more channels at the end."""
    config = BASE.model_copy(update={"coordinates": True, "spatial_channels": 2})
    network, x, beside = randomised(config), torch.randn(2, 3, 8, 8), torch.randn(2, 2, 8, 8)
    wider = UNet(BASE.model_copy(update={"spatial_channels": 4}))
    wider.load_state_dict(network.state_dict())
    told = torch.cat([beside, coordinates(x)], dim=1)
    time = torch.tensor([1.0, 500.0])
    assert torch.equal(network(x, time, Context(spatial=beside)), wider.eval()(x, time, Context(spatial=told)))
