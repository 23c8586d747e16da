"""The terms of the variational bound, against integrals and laws."""

from __future__ import annotations

import math

import pytest
import torch
from support.numbers import agree, f64, normal
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from guidon.noise import EDM, Cosine, Flow, Process, VPTable
from guidon.noise.bound import bound_term, decoder_log_prob, normal_kl, prior_term
from guidon.noise.grids import LogSNR, Respaced
from guidon.noise.posterior import Steps, posterior_mean

GREYS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.2, 0.99, 4.0])
@pytest.mark.parametrize("deviation", [1e-3, 0.02, 0.5, 3.0])
def test_the_decoder_is_a_distribution_over_the_grey_values(mean: float, deviation: float) -> None:
    log = decoder_log_prob(GREYS, f64([mean]), f64([2 * math.log(deviation)]))
    assert float(log.exp().sum()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("deviation", [0.01, 0.1, 0.5])
def test_the_decoder_is_the_integral_of_a_gaussian_over_the_bin(deviation: float) -> None:
    """Within what tanh is off the normal distribution function, 2e-4 at most on each side."""
    mean = 0.3
    law = Normal(f64([mean]), f64([deviation]))
    edges = (GREYS[:-1] + GREYS[1:]) / 2
    cdf = torch.cat([f64([0.0]), law.cdf(edges), f64([1.0])])
    got = decoder_log_prob(GREYS, f64([mean]), f64([2 * math.log(deviation)])).exp()
    agree(got, cdf.diff(), "probability", rtol=0, atol=4e-4)
    assert float((got - cdf.diff()).abs().sum()) < 3e-3


def test_divergences_are_those_of_gaussians_and_never_negative() -> None:
    apart, one, other = normal(5, 7), normal(5, 7, seed=1), normal(5, 7, seed=2)
    want = kl_divergence(Normal(0 * apart, (one / 2).exp()), Normal(apart, (other / 2).exp()))
    agree(normal_kl(apart, one, other), want, "kl")
    assert bool((normal_kl(apart, one, other) > 0).all())
    agree(normal_kl(0 * apart, one, one), 0 * apart, "of itself")


@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow(), VPTable()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_each_term_is_the_mean_over_an_image_in_bits(process: Process, variance: str) -> None:
    steps = Steps.of(LogSNR(0.05, 20.0).levels(process, 6))
    images = torch.randint(0, 256, (6, 3, 4, 4), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    images, x0 = images.double(), normal(6, 3, 4, 4)
    log_variance = steps.log_variance(variance, None, images)  # type: ignore[arg-type]
    got = bound_term(steps, images, x0, log_variance)
    of_x0, of_x = posterior_mean(steps.here, steps.there)
    x = normal(6, 3, 4, 4, seed=3)
    for i in range(6):
        deviation = math.exp(float(log_variance[i]) / 2)
        if i == 5:
            want = -decoder_log_prob(images[i], x0[i], log_variance[i])
        else:
            true = Normal(of_x0[i] * images[i] + of_x[i] * x[i], steps.small[i].sqrt())
            want = kl_divergence(true, Normal(of_x0[i] * x0[i] + of_x[i] * x[i], deviation))
        agree(got[i], want.mean() / math.log(2), f"term {i}")
        agree(
            bound_term(steps.take(slice(i, i + 1)), images[i : i + 1], x0[i : i + 1], log_variance[i : i + 1])[0],
            got[i],
            "alone",
        )


def test_a_true_belief_with_the_small_variance_costs_nothing_but_the_decoder() -> None:
    steps = Steps.of(Respaced("10").levels(VPTable(), 1))
    images = GREYS[:48].reshape(1, 3, 4, 4).expand(10, -1, -1, -1)
    terms = bound_term(steps, images, images, steps.log_variance("small", None, images))
    agree(terms[:-1], f64([0.0] * 9), "terms", atol=1e-13)
    assert 0 < float(terms[-1]) < 8


@pytest.mark.parametrize(
    "process", [Cosine(), Flow(), VPTable("cosine"), VPTable(), EDM()], ids=lambda p: type(p).__name__
)
def test_the_prior_term_is_the_divergence_from_the_start_of_sampling(process: Process) -> None:
    images, level = normal(2, 1, 3, 3).clamp(-1, 1), process.level(process.t_max)
    scale = process.start_scale(level)
    want = kl_divergence(Normal(level.alpha * images, level.sigma), Normal(0.0 * images, scale)).mean((1, 2, 3))
    agree(prior_term(images, level, scale), want / math.log(2), "prior", rtol=1e-6, atol=1e-15)


def test_no_gradient_is_lost_or_undefined_where_a_belief_is_far_off() -> None:
    steps = Steps.of(Respaced("10").levels(VPTable(), 1))
    images = torch.zeros(10, 1, 2, 2)
    far = torch.full_like(images, 1e15)
    far[-1] = 2.0
    x0 = far.requires_grad_()
    terms: Tensor = bound_term(steps, images, x0, steps.log_variance("small", None, images))
    terms.sum().backward()
    assert bool(torch.isfinite(terms).all()) and x0.grad is not None and bool(torch.isfinite(x0.grad).all())
    assert bool((x0.grad[:-1] > 0).all())
