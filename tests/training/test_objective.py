from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from guidon.conditioning.condition import Context
from guidon.errors import BadValue
from guidon.model import Model, ModelConfig
from guidon.noise import (
    EDM,
    Cosine,
    EDMOutput,
    EpsOutput,
    Flow,
    Level,
    Output,
    VelocityOutput,
    VOutput,
    VPTable,
    X0Output,
)
from guidon.training.objective import DenoisingLoss, Draw, Objective

OUTPUTS: list[Output] = [EpsOutput(), X0Output(), VOutput(), VelocityOutput(), EDMOutput(0.5)]
TINY = {
    "in_channels": 1,
    "out_channels": 1,
    "model_channels": 8,
    "channel_mult": [1],
    "num_res_blocks": 1,
    "attention": [],
}


def tiny(**changes: object) -> Model:
    config = {"shape": (1, 8, 8), "architecture": TINY, "classes": tuple("abc")} | changes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model(ModelConfig(**config))


class Oracle(nn.Module):
    """A network that knows the image: it gives exactly the target, or the target plus an error."""

    def __init__(self, output: Output, process: object, image: Tensor, error: float = 0.0) -> None:
        super().__init__()
        self.output, self.process, self.image, self.error = output, process, image, error

    def forward(self, x: Tensor, time: Tensor, context: Context) -> Tensor:
        t = self.process.time_of(time)
        level = self.process.level(t)
        at = level.like(self.image)
        state = x / self.output.input_scale(at)
        noise = (state - at.alpha * self.image) / at.sigma
        return self.output.target(self.image, noise, level) + self.error


class Inverse:
    """A process that also knows the time from the clock."""

    def __init__(self, process: object) -> None:
        self._process = process

    def time_of(self, clock: Tensor) -> Tensor:
        clock = clock.double()
        return torch.exp(clock / 250) if isinstance(self._process, EDM) else clock / 1000

    def level(self, t: Tensor) -> Level:
        return self._process.level(t)


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("process", [Cosine(), Flow(), EDM()], ids=lambda p: type(p).__name__)
def test_a_network_that_gives_the_target_has_no_loss_and_one_that_errs_has_its_square(process, output):
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    model = tiny()
    model.denoiser.process, model.denoiser.output = process, output
    objective = Objective()
    draw = objective.draw(process, images.shape, seed=0, step=0, device=torch.device("cpu"))
    # away from the ends of the process, where float32 cannot tell the noise from the state
    keep = (draw.level.noise_level > 0.05) & (draw.level.noise_level < 20)
    images, draw = (
        images[keep],
        Draw(
            Level(*(v[keep] for v in (draw.level.t, draw.level.alpha, draw.level.sigma))),
            draw.dropped[keep],
            draw.noise[keep],
        ),
    )
    labels = torch.zeros(len(images), dtype=torch.long)
    for error, expected in ((0.0, 0.0), (0.5, 0.25)):
        model.denoiser.network = Oracle(output, Inverse(process), images, error)
        assert DenoisingLoss(model, objective)(images, labels, draw).mean().item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_those_of_the_paper(gamma):
    level = Cosine().level(torch.linspace(0.02, 0.98, 25, dtype=torch.float64))
    snr = (level.alpha / level.sigma) ** 2
    clipped = snr.clamp(max=gamma)
    objective = Objective(weighting="min-snr", gamma=gamma)
    closed_forms = {EpsOutput(): clipped / snr, X0Output(): clipped, VOutput(): clipped / (snr + 1)}
    closed_forms[VelocityOutput()] = clipped * (level.sigma / (level.alpha + level.sigma)) ** 2
    tau2 = 1 / snr
    closed_forms[EDMOutput(0.5)] = clipped * tau2 * 0.25 / (tau2 + 0.25)
    for output, expected in closed_forms.items():
        torch.testing.assert_close(objective.weight(output, level), expected.float(), rtol=1e-5, atol=0)
        assert torch.equal(Objective().weight(output, level), torch.ones(25))


def test_the_weight_enters_the_loss_image_by_image():
    model = tiny()
    images = torch.rand(4, 1, 8, 8)
    draw = Objective().draw(model.process, images.shape, seed=3, step=0, device=torch.device("cpu"))
    draw = Draw(draw.level, torch.zeros(4, dtype=torch.bool), draw.noise)
    labels = torch.tensor([0, 1, 2, 0])
    weighted = Objective(weighting="min-snr")
    whole = DenoisingLoss(model, weighted)(images, labels, draw)
    plain = [
        DenoisingLoss(model, Objective())(images[i : i + 1], labels[i : i + 1], draw.take(slice(i, i + 1)))
        for i in range(4)
    ]
    assert whole.shape == (4,) and whole.dtype == torch.float32
    torch.testing.assert_close(whole, torch.cat(plain) * weighted.weight(model.denoiser.output, draw.level))


def test_conditions_are_dropped_per_item_at_the_stated_rate():
    n, rate = 20_000, 0.1
    objective = Objective(dropout=rate)
    dropped = objective.draw(Cosine(), torch.Size((n, 1, 1, 1)), seed=0, step=0, device=torch.device("cpu")).dropped
    bound = 4 * math.sqrt(n * rate * (1 - rate))
    assert abs(int(dropped.sum()) - n * rate) < bound
    # per item, not per batch: neighbours are independent
    both = int((dropped[:-1] & dropped[1:]).sum())
    assert abs(both - n * rate**2) < 4 * math.sqrt(n * rate**2)


@pytest.mark.parametrize(("rate", "row"), [(0.0, "given"), (1.0, "null")])
def test_the_network_is_told_the_label_or_the_learned_null(rate, row):
    model, told = tiny(), []
    model.denoiser.network.register_forward_pre_hook(lambda module, args: told.append(args[2].vector))
    images, labels = torch.zeros(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    objective = Objective(dropout=rate)
    draw = objective.draw(model.process, images.shape, seed=0, step=0, device=torch.device("cpu"))
    DenoisingLoss(model, objective)(images, labels, draw)
    expected = labels if row == "given" else torch.full_like(labels, 3)
    assert torch.equal(told[0], model.encoder.embedding(expected))


def test_chance_depends_on_seed_and_step_and_not_on_the_world():
    def draw(seed: int, step: int) -> Draw:
        return Objective().draw(Cosine(), torch.Size((8, 1, 2, 2)), seed=seed, step=step, device=torch.device("cpu"))

    torch.manual_seed(1)
    one = draw(0, 5)
    torch.manual_seed(2)
    assert torch.equal(one.noise, draw(0, 5).noise)
    assert torch.equal(one.level.t, draw(0, 5).level.t)
    for other in (draw(1, 5), draw(0, 6)):
        assert not torch.equal(one.noise, other.noise)
        assert not torch.equal(one.level.t, other.level.t)


def test_the_loss_is_float32_under_autocast():
    model = tiny()
    images, labels = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
    draw = Objective().draw(model.process, images.shape, seed=0, step=0, device=torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        assert DenoisingLoss(model, Objective())(images, labels, draw).dtype == torch.float32


def test_missing_labels_are_refused():
    draw = Objective().draw(Cosine(), torch.Size((2, 1, 8, 8)), seed=0, step=0, device=torch.device("cpu"))
    with pytest.raises(BadValue, match="no labels"):
        DenoisingLoss(tiny(), Objective())(torch.zeros(2, 1, 8, 8), None, draw)


def test_an_unconditional_model_learns_from_images_with_and_without_labels():
    """Labels change nothing, the loss is that of its own closed form, and every weight of the network gets a gradient."""
    model = tiny(classes=None, architecture=TINY | {"vector": None})
    images = torch.rand(4, 1, 8, 8) * 2 - 1
    draw = Objective().draw(model.process, images.shape, seed=0, step=0, device=torch.device("cpu"))
    losses = DenoisingLoss(model, Objective())(images, None, draw)
    assert torch.equal(losses, DenoisingLoss(model, Objective())(images, torch.tensor([0, 1, 2, 0]), draw))
    at = draw.level.like(images)
    raw = model.denoiser.raw(at.alpha * images + at.sigma * draw.noise, draw.level, Context())
    target = at.alpha * draw.noise - at.sigma * images
    torch.testing.assert_close(losses, (raw - target).square().mean((1, 2, 3)))
    losses.mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("learned", "objective", "said"),
    [
        (True, {}, "a learned variance"),
        (False, {"loss": "kl"}, "the loss kl"),
        (False, {"loss": "rescaled-kl"}, "the loss rescaled-kl"),
        (False, {"times": "importance"}, "importance sampling"),
    ],
)
def test_what_needs_a_table_is_refused_on_other_processes(learned, objective, said):
    model = tiny(learned_variance=learned, architecture=TINY | {"out_channels": 2 if learned else 1})
    with pytest.raises(BadValue, match=rf"{said}.*model\.process: vp-table"):
        DenoisingLoss(model, Objective(**objective))
    Objective(**objective).check(VPTable(), learned)
