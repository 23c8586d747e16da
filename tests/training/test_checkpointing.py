"""Checkpointing the features of a network changes neither what it says nor its gradients, and keeps less."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guidon.model import Model
from guidon.model_config import ModelConfig
from guidon.models.layers import checkpoint_stages

UNET = {
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_res_blocks": 2,
    "attention": [1, 2],
    "heads": 2,
    "dropout": 0.2,
    "vector": "embedding",
}
DIT = {"patch": 2, "width": 32, "depth": 4, "heads": 2}
KINDS = [("unet", UNET), ("dit", DIT)]


def forward_and_backward(
    network: str, architecture: dict[str, Any], checkpointing: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Return the output, the gradients, and the bytes that are kept for the way back."""
    torch.manual_seed(0)
    config = ModelConfig(
        shape=(3, 16, 16),
        network=network,
        architecture={"in_channels": 3, "out_channels": 3} | architecture,
        classes=("a", "b"),
    )
    model = Model(config).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    if checkpointing:
        checkpoint_stages(model)
    x = torch.randn(4, 3, 16, 16)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)  # for dropout
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model.denoiser.raw(x, model.process.level(0.4), model.encode(model.condition(["a", "b", None, "a"])))
    total = sum(kept.values())
    out.square().mean().backward()
    return out.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, total


@pytest.mark.parametrize(("network", "architecture"), KINDS)
def test_output_and_gradients_are_bit_equal_and_less_is_kept(network: str, architecture: dict[str, Any]) -> None:
    out, gradients, kept = forward_and_backward(network, architecture, False)
    again, regained, less = forward_and_backward(network, architecture, True)
    assert torch.equal(out, again)
    assert gradients.keys() == regained.keys()
    assert [name for name in gradients if not torch.equal(gradients[name], regained[name])] == []
    assert less < 0.35 * kept


@pytest.mark.parametrize(("network", "architecture"), KINDS)
def test_without_gradients_nothing_is_computed_twice(
    network: str, architecture: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("checkpointed without need")

    monkeypatch.setattr("guidon.models.layers.checkpoint", refuse)
    config = ModelConfig(
        shape=(3, 16, 16),
        network=network,
        architecture={"in_channels": 3, "out_channels": 3} | architecture,
        classes=("a", "b"),
    )
    model = Model(config)
    checkpoint_stages(model)
    model.sample(["a"], steps=2, rule=1.0)


def test_a_recipe_asks_for_it_and_gets_the_same_model() -> None:
    from training.tiny import tiny_recipe

    from guidon.training.trainer import Trainer

    weights = []
    for checkpointing in (False, True):
        trainer = Trainer(tiny_recipe(steps=3, checkpointing=checkpointing))
        list(trainer.steps())
        weights.append(trainer.model.state_dict())
        assert trainer.model.network.middle_block.checkpointing is checkpointing
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
