"""The inner head: absent by default, a second output of the same forward, trained beside the first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from guidon.conditioning import Context
from guidon.errors import NotSupported
from guidon.model import Model, ModelConfig, load
from guidon.models import UNet, UNetConfig
from guidon.models.denoiser import Denoiser
from guidon.noise import Cosine, EDMOutput, VOutput
from guidon.training.objective import DenoisingLoss, Objective
from guidon.training.optimizer import build_optimizers
from guidon.training.recipe import TrainSection

BASE = UNetConfig(
    model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention=(), groups=4, vector=None, inner_head=True
)
ARCHITECTURE = {
    "in_channels": 1,
    "out_channels": 1,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention": [],
    "inner_head": True,
}


def randomised(config: UNetConfig) -> UNet:
    torch.manual_seed(0)
    network = UNet(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def tiny_model(**changes: object) -> Model:
    config = {"shape": (1, 8, 8), "architecture": ARCHITECTURE, "classes": tuple("ab")} | changes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model(ModelConfig(**config))


@pytest.mark.parametrize(
    ("change", "stage", "pixels"),
    [
        ({}, 1, 1),  # of four stages the first two are halfway; the second has doubled the size already
        ({"channel_mult": (1, 2, 2), "num_res_blocks": 2}, 4, 2),
        ({"channel_mult": (1, 2, 2), "num_res_blocks": (1, 2, 1), "resblock_updown": True}, 3, 2),
        ({"patch": 2, "out_channels": 6}, 1, 2),
        ({"channel_mult": (1,)}, 0, 1),
    ],
)
@torch.no_grad()
def test_both_heads_give_an_image_and_the_outer_one_does_not_know_the_inner(
    change: dict[str, object], stage: int, pixels: int
) -> None:
    network = randomised(BASE.model_copy(update=change))
    assert (network._inner_stage, network._inner_patch) == (stage, pixels)
    x, time = torch.randn(2, 3, 16, 8), torch.tensor([3.0, 900.0])
    out, inner = network(x, time, inner=True)
    assert out.shape == inner.shape == (2, network.config.out_channels, 16, 8)
    assert not torch.equal(out, inner)
    without = UNet(network.config.model_copy(update={"inner_head": False})).eval()
    without.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("inner_out.")})
    assert torch.equal(out, without(x, time)) and torch.equal(out, network(x, time))


def test_a_network_has_no_inner_head_unless_asked() -> None:
    plain = UNet(BASE.model_copy(update={"inner_head": False}))
    assert UNetConfig().inner_head is False and not plain.has_inner
    added = set(UNet(BASE).state_dict()) - set(plain.state_dict())
    assert added == {f"inner_out.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")}
    x, time = torch.zeros(1, 3, 8, 8), torch.zeros(1)
    with pytest.raises(NotSupported, match="inner_head: true"):
        plain(x, time, inner=True)
    denoiser = Denoiser(plain, Cosine(), VOutput())
    assert not denoiser.has_inner and denoiser(x, denoiser.process.level(0.5), Context()).inner is None
    assert denoiser.raw_with_inner(x, denoiser.process.level(0.5), Context())[1] is None


@pytest.mark.parametrize("learned", [False, True])
@torch.no_grad()
def test_the_inner_prediction_is_read_as_the_outer_one(learned: bool) -> None:
    network = randomised(BASE.model_copy(update={"out_channels": 6 if learned else 3}))
    denoiser = Denoiser(network, Cosine(), EDMOutput(), learned)
    assert denoiser.has_inner
    x, level = torch.randn(2, 3, 8, 8), denoiser.process.level(0.4)
    raw, inner = denoiser.raw_with_inner(x, level, Context())
    assert torch.equal(raw, denoiser.raw(x, level, Context()))
    prediction = denoiser(x, level, Context())
    for seen, told in ((prediction, raw), (prediction.inner, inner)):
        expected = denoiser.output.read(x, told[:, :3], level)
        assert torch.equal(seen.x0, expected.x0) and torch.equal(seen.eps, expected.eps)
        assert (seen.variance_fraction is not None) == learned
        if learned:
            assert torch.equal(seen.variance_fraction, (told[:, 3:] + 1) / 2)
    assert prediction.inner.inner is None
    assert torch.equal(prediction.take(slice(1, 2)).inner.x0, prediction.inner.x0[1:])


def batch(n: int = 16) -> tuple[Tensor, Tensor]:
    rows = torch.linspace(-1, 1, 8)
    images = torch.stack([rows.expand(8, 8), rows.expand(8, 8).T])[:, None]  # a class for each direction
    labels = torch.arange(n) % 2
    return images[labels], labels


def test_both_heads_learn() -> None:
    model, objective = tiny_model(), Objective()
    images, labels = batch()
    draw = objective.draw(model.process, images.shape, seed=0, step=0, device=torch.device("cpu"))
    loss = DenoisingLoss(model, objective)
    outer = DenoisingLoss(model, Objective(inner_weight=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def both() -> tuple[float, float]:
        with torch.no_grad():
            out, total = (part(images, labels, draw).mean().item() for part in (outer, loss))
        return out, (total - out) / objective.inner_weight

    before = both()
    for _ in range(120):
        optimizer.zero_grad()
        loss(images, labels, draw).mean().backward()
        optimizer.step()
    after = both()
    assert before[0] == pytest.approx(before[1], rel=1e-4), "both say zero at first"
    assert after[0] < 0.3 * before[0] and after[1] < 0.5 * before[1]


def test_the_loss_is_the_sum_with_the_stated_weight() -> None:
    model = tiny_model()
    for parameter in model.denoiser.network.parameters():
        nn.init.normal_(parameter, std=0.1)
    images, labels = batch(4)
    objective = Objective(weighting="min-snr", dropout=0, inner_weight=0.7)
    draw = objective.draw(model.process, images.shape, seed=1, step=0, device=torch.device("cpu"))
    level = draw.level.like(images)
    x = level.alpha * images + level.sigma * draw.noise
    denoiser = model.denoiser
    told = denoiser.raw_with_inner(x, draw.level, model.encode(model.condition(labels.tolist())))
    target, weight = (
        denoiser.output.target(images, draw.noise, draw.level),
        objective.weight(denoiser.output, draw.level),
    )
    outer, inner = ((weight * (raw - target).square().mean((1, 2, 3))).mean() for raw in told)
    torch.testing.assert_close(DenoisingLoss(model, objective)(images, labels, draw).mean(), outer + 0.7 * inner)


def test_the_inner_head_is_an_end_for_muon() -> None:
    model = tiny_model()
    optimizers = build_optimizers(model, TrainSection(steps=1, optimizer="muon"))
    hidden = {id(p) for group in optimizers["muon"].param_groups for p in group["params"]}
    assert hidden and not any(id(p) in hidden for p in model.denoiser.network.inner_out.parameters())


def test_a_model_with_an_inner_head_survives_the_disk(tmp_path: Path) -> None:
    model = tiny_model()
    nn.init.normal_(model.denoiser.network.inner_out[2].weight)
    model.save_pretrained(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.config == model.config and again.config.architecture["inner_head"] is True
    images, labels = batch(2)
    level, context = model.process.level(0.5), model.encode(model.condition(labels.tolist()))
    with torch.no_grad():
        expected, seen = model.eval().denoiser(images, level, context), again.denoiser(images, level, context)
    assert torch.equal(seen.inner.x0, expected.inner.x0) and not torch.equal(seen.inner.x0, seen.x0)
