"""The bound of a model that knows its data exactly: that of a Gaussian, whose entropy has a closed form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from support.text_models import text_model, vocabulary
from torch import Tensor, nn
from torch.distributions import Normal

from guidon.conditioning.condition import Context
from guidon.errors import BadValue, NotSupported, ShapeMismatch
from guidon.measure.likelihood import BitsPerDim, bits_per_dim, whole_table
from guidon.model import Model, ModelConfig
from guidon.noise import Cosine, Level, VPTable
from guidon.noise.grids import LogSNR, Respaced
from guidon.noise.posterior import Steps, posterior_mean, posterior_variances

MEAN, DEVIATION = 0.1, 0.25
ENTROPY = 0.5 * math.log2(2 * math.pi * math.e * DEVIATION**2) + math.log2(255 / 2)  # of a pixel
TINY = {"in_channels": 1, "model_channels": 8, "channel_mult": [1], "num_res_blocks": 1, "attention": []}


def tiny(process: str, classes: int | None = None, learned: bool = False) -> Model:
    architecture = TINY | {"out_channels": 2 if learned else 1, "vector": None if classes is None else "embedding"}
    names = None if classes is None else tuple(map(str, range(classes)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"classes": names, "learned_variance": learned, "output": "x0"}
        model = Model(ModelConfig(shape=(1, 4, 4), architecture=architecture, process=process, **config))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model


class Exact(nn.Module):
    """E[x0 | x_t] where pixels are normal with MEAN and DEVIATION, and the variance of x_s given x_t along a chain."""

    def __init__(self, model: Model, levels: Sequence[Level]) -> None:
        super().__init__()
        self.steps, self.learned = Steps.of(levels), model.denoiser.learned_variance
        self.clocks = torch.tensor([model.process.clock(level.t) for level in levels[:-1]], dtype=torch.float32)

    def forward(self, x: Tensor, time: Tensor, context: Context) -> Tensor:
        step = self.steps.take((self.clocks - time[0]).abs().argmin().reshape(1))
        alpha, sigma = float(step.here.alpha), float(step.here.sigma)
        total = alpha**2 * DEVIATION**2 + sigma**2
        x0 = MEAN + alpha * DEVIATION**2 / total * (x - alpha * MEAN)
        if not self.learned:
            return x0
        of_x0, _ = posterior_mean(step.here, step.there)
        small, large = posterior_variances(step.here, step.there)
        variance = small + of_x0**2 * (DEVIATION**2 * sigma**2 / total)
        fraction = (variance / step.small).log() / (large / step.small).log()
        return torch.cat([x0, torch.full_like(x0, 2 * float(fraction) - 1)], 1)


def exact(process: str, levels: Sequence[Level], *, learned: bool = False) -> Model:
    model = tiny(process, learned=learned)
    model.denoiser.network = Exact(model, levels)
    model.register_parameter("somewhere", nn.Parameter(torch.zeros(1)))
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Images (N, 1, 4, 4) of the Gaussian, in 256 grey values."""
    drawn = MEAN + DEVIATION * torch.randn(256, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    return ((drawn.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def truth(images: Tensor) -> Tensor:
    """Return the mean over the pixels of -log2 p(pixel), (N,)."""
    law, wide = Normal(MEAN, DEVIATION), images.double()
    return -(law.cdf(wide + 1 / 255) - law.cdf(wide - 1 / 255)).log2().mean((1, 2, 3))


def gap(found: BitsPerDim, images: Tensor) -> tuple[float, float]:
    """Return how far the bound is above the truth, and the standard error of that."""
    apart = found.total - truth(images)
    return float(apart.mean()), float(apart.std()) / math.sqrt(len(images))


def test_the_images_have_the_entropy_of_the_gaussian(images: Tensor) -> None:
    assert float(truth(images).mean()) == pytest.approx(ENTROPY, abs=4 * 0.72 / math.sqrt(images.numel()))


@pytest.mark.parametrize("count", [5, 40, 200])
def test_with_the_true_variance_the_bound_is_the_entropy_in_any_number_of_steps(images: Tensor, count: int) -> None:
    levels = Respaced().levels(VPTable(), count)
    found = bits_per_dim(exact("vp-table", levels, learned=True), images, levels=levels, clip=False)
    assert found.variance == "learned"
    apart, error = gap(found, images)
    assert error < 0.03 and abs(apart) < 3 * error
    assert abs(found.mean - ENTROPY) < 3 * found.standard_error


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("process", ["cosine", "edm", "flow", "vp"])
def test_with_a_fixed_variance_the_bound_comes_down_to_the_entropy_as_steps_grow(
    images: Tensor, process: str, variance: str
) -> None:
    """On any grid of any process: about half the gap at twice the steps."""
    model, gaps = tiny(process), []
    for count in (25, 50, 100, 200):
        levels = LogSNR(0.01, 100.0).levels(model.process, count)
        found = bits_per_dim(exact(process, levels), images, levels=levels, variance=variance, clip=False)  # type: ignore[arg-type]
        gaps.append(gap(found, images)[0])
    assert all(more > 1.5 * less for more, less in itertools.pairwise(gaps)) and gaps[-1] > 0


def test_parts_add_up_and_none_but_the_decoder_can_be_negative(images: Tensor) -> None:
    model = tiny("vp-table('cosine', steps=20)")
    found = bits_per_dim(model, images[:5])
    assert found.terms.shape == (5, 20) and found.prior.shape == (5,) and len(found.levels) == 21
    assert bool((found.terms[:, :-1] >= 0).all()) and bool((found.prior >= 0).all())
    torch.testing.assert_close(found.total, found.prior + found.terms.sum(1))
    assert found.mean == pytest.approx(float(found.total.mean()))
    assert found.standard_error == pytest.approx(float(found.total.var() / 5) ** 0.5)
    assert math.isnan(bits_per_dim(model, images[:1]).standard_error)


def test_the_table_is_taken_where_no_levels_are_named(images: Tensor) -> None:
    model = tiny("vp-table('cosine', steps=20)")
    named = bits_per_dim(model, images[:3], levels=Respaced("20").levels(model.process, 1))
    assert torch.equal(named.terms, bits_per_dim(model, images[:3]).terms)
    assert [level.t for level in whole_table(model.process)] == [*range(19, -1, -1), -1]
    with pytest.raises(BadValue, match=r"no table.*LogSNR"):
        whole_table(Cosine())


def test_an_image_has_the_same_bound_in_any_batch_and_another_with_another_seed(images: Tensor) -> None:
    model = tiny("vp-table('cosine', steps=10)", classes=3)
    labels, calls = torch.tensor([0, 1, 2, 0, 1]), []
    whole = bits_per_dim(model, images[:5], labels, batch=5)
    parts = bits_per_dim(model, images[:5], labels, batch=2, on_step=lambda *told: calls.append(told))
    torch.testing.assert_close(whole.terms, parts.terms, rtol=1e-5, atol=1e-6)
    assert calls == [(i, 30, None) for i in range(1, 31)]
    alone = bits_per_dim(model, images[3:4], labels[3:4], seed=3)
    torch.testing.assert_close(alone.terms, whole.terms[3:4], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(bits_per_dim(model, images[:5], labels, seed=9).terms, whole.terms)


def test_what_is_believed_depends_on_the_class(images: Tensor) -> None:
    model = tiny("vp-table('cosine', steps=10)", classes=3)
    found = [bits_per_dim(model, images[:2], told) for told in (torch.tensor([0, 0]), torch.tensor([1, 1]), None)]
    null = bits_per_dim(model, images[:2], torch.tensor([3, 3]))
    assert torch.equal(found[2].terms, null.terms)
    assert not torch.allclose(found[0].terms, found[1].terms) and not torch.allclose(found[0].terms, null.terms)


def test_beliefs_are_kept_in_range_unless_told_otherwise(images: Tensor) -> None:
    model = tiny("vp-table('cosine', steps=10)")
    model.denoiser.network = Says()
    model.register_parameter("somewhere", nn.Parameter(torch.zeros(1)))
    far, near = (bits_per_dim(model, images[:2], clip=clip) for clip in (False, True))
    model.denoiser.network.said = 1.0
    assert torch.equal(near.terms, bits_per_dim(model, images[:2], clip=False).terms)
    assert bool((far.terms > near.terms).all())


class Says(nn.Module):
    """A network that gives one number."""

    said = 3.0

    def forward(self, x: Tensor, time: Tensor, context: Context) -> Tensor:
        return torch.full_like(x, self.said)


def test_the_model_is_left_as_it_was(images: Tensor) -> None:
    model = tiny("vp-table('cosine', steps=10)").train()
    assert isinstance(bits_per_dim(model, images[:2]), BitsPerDim) and model.training


def test_what_cannot_be_measured_is_refused(images: Tensor) -> None:
    model = tiny("vp-table('cosine', steps=10)", classes=3)
    with pytest.raises(ShapeMismatch, match="resize"):
        bits_per_dim(model, images[:, :, :2])
    with pytest.raises(ShapeMismatch, match="as many labels"):
        bits_per_dim(model, images[:2], torch.tensor([0]))
    told = text_model(channels=1), vocabulary().encode(["a red circle", "two"])
    with pytest.raises(BadValue, match="told texts, not labels"):
        bits_per_dim(told[0], torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
    with pytest.raises(BadValue, match="told labels, not texts"):
        bits_per_dim(model, images[:2], told[1])
    with pytest.raises(NotSupported, match="learned no variance"):
        bits_per_dim(model, images[:2], variance="learned")
    with pytest.raises(BadValue, match="clean image"):
        bits_per_dim(model, images[:2], levels=whole_table(model.process)[:-1])
