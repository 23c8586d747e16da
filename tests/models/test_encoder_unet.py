"""The noisy classifier's network: its heads do what their formulas say, and it can be differentiated in the image."""

from __future__ import annotations

import json

import pytest
import torch
from support.numbers import normal
from torch import Tensor, nn

from guidon.errors import BadValue, ShapeMismatch
from guidon.models import EncoderUNet, EncoderUNetConfig, UNet, UNetConfig

BASE = EncoderUNetConfig(
    size=8,
    in_channels=2,
    out_channels=3,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention=(2,),
    head_channels=8,
    groups=4,
)
POOLS = ("attention", "average", "spatial", "spatial-v2")
NAMES = {  # of the released layout
    "attention": {
        "0.weight": (16,),
        "0.bias": (16,),
        "2.positional_embedding": (16, 17),
        "2.qkv_proj.weight": (48, 16),
        "2.qkv_proj.bias": (48,),
        "2.c_proj.weight": (3, 16),
        "2.c_proj.bias": (3,),
    },
    "average": {"0.weight": (16,), "0.bias": (16,), "3.weight": (3, 16, 1, 1), "3.bias": (3,)},
    # every stage on the way down and the middle: 8 + 8 + 8 + 16 + 16
    "spatial": {"0.weight": (2048, 56), "0.bias": (2048,), "2.weight": (3, 2048), "2.bias": (3,)},
    "spatial-v2": {
        "0.weight": (2048, 56),
        "0.bias": (2048,),
        "1.weight": (2048,),
        "1.bias": (2048,),
        "3.weight": (3, 2048),
        "3.bias": (3,),
    },
}


def build(pool: str, **change: object) -> EncoderUNet:
    torch.manual_seed(0)
    network = EncoderUNet(BASE.model_copy(update={"pool": pool, **change})).double()
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, std=0.02 if name.startswith("out.0.weight") and "spatial" in pool else 0.3)
    return network.eval()


def question(n: int = 3) -> tuple[Tensor, Tensor]:
    return normal(n, 2, 8, 8), torch.linspace(0.5, 900, n)


@pytest.mark.parametrize("pool", POOLS)
def test_the_gradient_is_the_slope(pool: str) -> None:
    network = build(pool)
    x, time = question()
    x.requires_grad_()
    for k in range(3):
        (gradient,) = torch.autograd.grad(network(x, time).log_softmax(1)[:, k].sum(), x)
        for seed in (1, 2):
            way = normal(*x.shape, seed=seed)
            with torch.no_grad():
                ahead, behind = (network(x + h * way, time).log_softmax(1)[:, k].sum() for h in (1e-5, -1e-5))
            torch.testing.assert_close((gradient * way).sum(), (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-8)


def features(network: EncoderUNet, x: Tensor, time: Tensor) -> list[Tensor]:
    """Return what every stage of the way down gives, and the middle."""
    seen: list[Tensor] = []
    stages = [*network.input_blocks, network.middle_block]
    hooks = [stage.register_forward_hook(lambda _, __, out: seen.append(out)) for stage in stages]
    network(x, time)
    for hook in hooks:
        hook.remove()
    return seen


def by_hand(network: EncoderUNet, seen: list[Tensor]) -> Tensor:
    """The four heads, written as their formulas."""
    out, pool = network.out, network.config.pool
    if pool.startswith("spatial"):
        means = torch.cat([f.flatten(2).mean(2) for f in seen], 1)
        hidden = means @ out[0].weight.T + out[0].bias
        if pool == "spatial":
            return hidden.relu() @ out[2].weight.T + out[2].bias
        return nn.functional.silu(out[1](hidden)) @ out[3].weight.T + out[3].bias
    flat = nn.functional.silu(out[0](seen[-1])).flatten(2)  # (B, C, L)
    if pool == "average":
        return flat.mean(2) @ out[3].weight[:, :, 0, 0].T + out[3].bias
    asked = torch.cat([flat.mean(2, keepdim=True), flat], 2) + out[2].positional_embedding
    query, key, value = out[2].qkv_proj(asked.mT).split(16, dim=2)  # q, k, v outermost, heads of 8 inside
    heads = []
    for at in (slice(0, 8), slice(8, 16)):
        scores = query[:, :1, at] @ key[:, :, at].mT / 8**0.5
        heads.append(scores.softmax(-1) @ value[:, :, at])
    return out[2].c_proj(torch.cat(heads, 2)[:, 0])


@pytest.mark.parametrize("pool", POOLS)
@torch.no_grad()
def test_every_head_is_its_formula(pool: str) -> None:
    network = build(pool)
    x, time = question()
    seen = features(network, x, time)
    torch.testing.assert_close(network(x, time), by_hand(network, seen), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(network(x, time), network(x, time.flip(0)), rtol=1e-3), "time matters"
    torch.testing.assert_close(network(x[1:2], time[1:2]), network(x, time)[1:2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pool", POOLS)
def test_parameters_are_named_as_released(pool: str) -> None:
    network = build(pool)
    state = network.state_dict()
    assert {n.removeprefix("out."): tuple(v.shape) for n, v in state.items() if n.startswith("out.")} == NAMES[pool]
    shared = BASE.model_dump(exclude={"size", "out_channels", "pool"})
    unet = UNet(UNetConfig(**shared, vector=None)).state_dict()
    way_down = {n: v.shape for n, v in unet.items() if not n.startswith(("out.", "output_blocks."))}
    assert {n: v.shape for n, v in state.items() if not n.startswith("out.")} == way_down


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("change", [{}, {"resblock_updown": True}, {"patch": 2, "in_channels": 2}, {"heads": 2}])
def test_every_parameter_learns(pool: str, change: dict[str, object]) -> None:
    network = build(pool, **change)
    x, time = question()
    network(x, time).log_softmax(1)[:, 0].sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without, without


def test_positions_of_attention_pooling_begin_small() -> None:
    torch.manual_seed(0)
    wide = BASE.model_copy(update={"model_channels": 128})
    assert EncoderUNet(wide).out[2].positional_embedding.std().item() == pytest.approx(256**-0.5, rel=0.05)


def test_config_survives_json() -> None:
    assert EncoderUNetConfig(**json.loads(BASE.model_dump_json())) == BASE


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(BadValue, match="head_channels"):
        EncoderUNet(BASE.model_copy(update={"head_channels": None}))
    assert EncoderUNet(BASE.model_copy(update={"head_channels": None, "pool": "average"}))
    with pytest.raises(BadValue, match="9x9 do not divide by 2"):
        EncoderUNet(BASE.model_copy(update={"size": 9}))
    larger = torch.zeros(1, 2, 12, 12).double()
    with pytest.raises(ShapeMismatch, match="36 positions where 16"):
        build("attention")(larger, torch.zeros(1))
    assert build("average")(larger, torch.zeros(1)).shape == (1, 3)
    with pytest.raises(ShapeMismatch, match="10x8"):
        build("average")(torch.zeros(1, 2, 9, 8).double(), torch.zeros(1))
    with pytest.raises(ShapeMismatch, match="time"):
        build("average")(torch.zeros(1, 2, 8, 8).double(), torch.zeros(2))
