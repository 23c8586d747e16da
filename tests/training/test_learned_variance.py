"""What a learned variance learns from, and the losses that are the variational bound itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from training.tiny import tiny_recipe

from guidon.conditioning.condition import Context
from guidon.errors import BadRecipe, BadValue
from guidon.model import Model, ModelConfig
from guidon.noise.bound import bound_term
from guidon.noise.posterior import Steps
from guidon.training.objective import DenoisingLoss, Draw, Objective
from guidon.training.recipe import read_recipe
from guidon.training.trainer import Trainer

CPU = torch.device("cpu")
TABLE = "vp-table('cosine', steps=50)"
TINY = {
    "in_channels": 1,
    "out_channels": 2,
    "model_channels": 8,
    "channel_mult": [1],
    "num_res_blocks": 1,
    "attention": [],
}


def tiny(learned: bool = True, **architecture: object) -> Model:
    channels = {"out_channels": 2 if learned else 1}
    config = {"architecture": {**TINY, **channels, "vector": None, **architecture}, "learned_variance": learned}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(ModelConfig(shape=(1, 8, 8), process=TABLE, output="eps", **config))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
    return model


def batch(model: Model, n: int = 6, **objective: object) -> tuple[Tensor, Draw]:
    images = torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(1)) / 127.5 - 1
    return images, Objective(**objective).draw(model.process, images.shape, seed=0, step=0, device=CPU)


class Says(nn.Module):
    """A network that says the same whatever it is asked."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = nn.Parameter(said)

    def forward(self, x: Tensor, time: Tensor, context: Context) -> Tensor:
        return self.said


@pytest.mark.parametrize("loss", ["mse", "rescaled-mse"])
def test_the_bound_beside_a_squared_error_teaches_the_variance_alone(loss: str) -> None:
    model = tiny()
    images, draw = batch(model)
    model.denoiser.network = Says(torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(2)))
    terms = DenoisingLoss(model, Objective(loss=loss)).terms(images, None, draw)
    (of_bound,) = torch.autograd.grad(terms["vb"].sum(), model.denoiser.network.said, retain_graph=True)
    assert bool((of_bound[:, :1] == 0).all()) and bool((of_bound[:, 1:] != 0).any())
    (of_error,) = torch.autograd.grad(terms["mse"].sum(), model.denoiser.network.said)
    assert bool((of_error[:, 1:] == 0).all()) and bool((of_error[:, :1] != 0).all())


@pytest.mark.parametrize("loss", ["kl", "rescaled-kl"])
def test_the_bound_alone_teaches_both(loss: str) -> None:
    model = tiny()
    images, draw = batch(model)
    model.denoiser.network = Says(torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(2)))
    DenoisingLoss(model, Objective(loss=loss))(images, None, draw).sum().backward()
    assert bool((model.denoiser.network.said.grad != 0).flatten(2).any(2).all())


@pytest.mark.parametrize("learned", [True, False])
def test_losses_differ_by_how_the_bound_is_scaled(learned: bool) -> None:
    model = tiny(learned)
    images, draw = batch(model)

    def terms(loss: str, **more: object) -> dict[str, Tensor]:
        found = DenoisingLoss(model, Objective(loss=loss, **more)).terms(images, None, draw)
        return {name: value.detach() for name, value in found.items()}

    mse, bound, whole = (terms(loss) for loss in ("mse", "kl", "rescaled-kl"))
    assert bound.keys() == whole.keys() == {"vb"}
    torch.testing.assert_close(whole["vb"], 50 * bound["vb"])
    if not learned:
        assert mse.keys() == {"mse"}
        assert not torch.equal(terms("kl", variance="large")["vb"], bound["vb"])
        return
    rescaled = terms("rescaled-mse")
    assert torch.equal(mse["mse"], rescaled["mse"])
    torch.testing.assert_close(mse["vb"], bound["vb"])
    torch.testing.assert_close(rescaled["vb"], mse["vb"] * 50 / 1000)
    weighted = terms("mse", weighting="min-snr")
    assert torch.equal(weighted["vb"], mse["vb"])
    factor = Objective(weighting="min-snr").weight(model.denoiser.output, draw.level)
    torch.testing.assert_close(weighted["mse"], mse["mse"] * factor)


@pytest.mark.parametrize(
    ("learned", "settings"),
    [
        (False, {"loss": "rescaled-mse"}),
        (True, {"loss": "kl", "weighting": "min-snr"}),
        (True, {"loss": "kl", "variance": "large"}),
        (False, {"loss": "mse", "variance": "large"}),
    ],
)
def test_settings_that_would_change_nothing_are_refused(learned: bool, settings: dict[str, str]) -> None:
    with pytest.raises(BadValue, match="would change nothing"):
        DenoisingLoss(tiny(learned), Objective(**settings))  # type: ignore[arg-type]


def test_the_bound_is_that_of_the_whole_table() -> None:
    model = tiny()
    images, draw = batch(model)
    process, x = model.process, draw.level.like(images).alpha * images + draw.level.like(images).sigma * draw.noise
    steps = Steps.of([*(process.level(float(t)) for t in reversed(range(50))), process.clean])
    mine = steps.take(49 - draw.level.t.long())
    with torch.no_grad():
        believed = model.denoiser(x, draw.level, Context())
        assert believed.variance_fraction is not None
        want = bound_term(mine, images, believed.x0, mine.log_variance("learned", believed.variance_fraction, images))
        got = DenoisingLoss(model, Objective(loss="kl"))(images, None, draw)
    torch.testing.assert_close(got, want)


def test_an_inner_head_learns_the_same_way() -> None:
    model = tiny(inner_head=True, channel_mult=[1, 1])
    images, draw = batch(model)
    raw, inner = model.denoiser.raw_with_inner(
        draw.level.like(images).alpha * images + draw.level.like(images).sigma * draw.noise, draw.level, Context()
    )
    got = DenoisingLoss(model, Objective(loss="kl", inner_weight=0.25))(images, None, draw)
    parts = []
    for said in (raw, inner):
        model.denoiser.network = Says(said.detach())
        parts.append(DenoisingLoss(model, Objective(loss="kl"))(images, None, draw))
    torch.testing.assert_close(got, parts[0] + 0.25 * parts[1])


def recipe(**changes: object):
    settings = tiny_recipe(steps=40, warmup=1, lr=5e-3, batch_size=64).model_dump(mode="json")
    settings["model"] |= {"process": TABLE, "output": "eps", "learned_variance": True}
    settings["train"] |= changes
    return read_recipe(settings)


def test_training_a_learned_variance_lowers_its_part_of_the_loss() -> None:
    trainer = Trainer(recipe())
    assert trainer.model.config.learned_variance and trainer.model.network.config.out_channels == 2
    told = [step.also for step in trainer.steps()]
    first, last = (sum(part["vb"] for part in some) / 5 for some in (told[:5], told[-5:]))
    assert last < 0.7 * first
    assert all(step.keys() == {"mse", "vb"} for step in told)


def test_parts_of_a_batch_together_are_the_batch() -> None:
    """Accumulated gradients of losses per image are those of the whole batch."""
    whole, parts = (Trainer(recipe(accumulate=n, steps=3)) for n in (1, 4))
    for trainer in (whole, parts):
        trainer.model.eval()  # without dropout, whose chance is drawn for each part
    losses = [[step.loss for step in trainer.steps()] for trainer in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("model", "objective", "said"),
    [
        ({"learned_variance": True}, {}, "a learned variance"),
        ({}, {"loss": "kl"}, "the loss kl"),
        ({"process": "edm"}, {"times": "importance"}, "importance sampling of times"),
    ],
)
def test_recipes_say_that_a_table_is_needed(model: dict[str, object], objective: dict[str, object], said: str) -> None:
    content = {"model": model, "train": {"steps": 1, "objective": objective}}
    with pytest.raises(BadRecipe, match=rf"{said} needs a process with a table.*model\.process: vp-table"):
        read_recipe(content)


def test_channels_are_doubled_for_the_variance() -> None:
    config = recipe().model_config_for((3, 8, 8), [str(i) for i in range(10)])
    assert (config.architecture["in_channels"], config.architecture["out_channels"]) == (3, 6)
    told = recipe().model_dump(mode="json")
    told["model"]["architecture"]["out_channels"] = 3
    with pytest.raises(BadRecipe, match="out_channels is 3"):
        read_recipe(told).model_config_for((3, 8, 8), None)
