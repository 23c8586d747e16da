"""The posterior of a step, for one step and for a step of each image, on every process."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support.numbers import agree, f64, normal

from guidon.errors import BadValue, NotSupported
from guidon.noise import EDM, VP, Cosine, Flow, Level, Process, VPTable
from guidon.noise.grids import LogSNR, Respaced, Trailing
from guidon.noise.posterior import Steps, log_variance, posterior_mean, posterior_variances

PROCESSES = pytest.mark.parametrize(
    "process", [EDM(), Cosine(), Flow(), VP(), VPTable()], ids=lambda p: type(p).__name__
)


@PROCESSES
def test_the_posterior_is_that_of_bayes(process: Process) -> None:
    """q(x_s | x_t, x0) of two Gaussians, by the covariance of (x_s, x_t) given x0, on every step of a chain."""
    levels = LogSNR(0.05, 20.0).levels(process, 6)[:-1]
    for here, there in itertools.pairwise(levels):
        ratio = here.alpha / there.alpha
        covariance = ratio * there.sigma**2  # of x_s and x_t, as x_t = ratio x_s + fresh noise
        of_x = covariance / here.sigma**2
        small = there.sigma**2 - covariance**2 / here.sigma**2
        got = posterior_mean(here, there)
        assert got == pytest.approx((there.alpha - of_x * here.alpha, of_x), rel=1e-9)
        assert posterior_variances(here, there) == pytest.approx((small, here.sigma**2 - (ratio * there.sigma) ** 2))


@PROCESSES
def test_a_step_of_each_image_is_a_step(process: Process) -> None:
    levels = LogSNR(0.05, 20.0).levels(process, 6)
    steps = Steps.of(levels)
    mean, variances = posterior_mean(steps.here, steps.there), posterior_variances(steps.here, steps.there)
    for i, (here, there) in enumerate(itertools.pairwise(levels)):
        assert [part[i].item() for part in mean] == pytest.approx(posterior_mean(here, there), rel=1e-12)
        assert [part[i].item() for part in variances] == pytest.approx(posterior_variances(here, there), rel=1e-12)
    assert steps.last.tolist() == [False] * 5 + [True]
    assert mean[0][-1] == 1 and mean[1][-1] == 0 and variances[0][-1] == 0


def test_from_a_level_without_signal_x_says_nothing() -> None:
    at = Trailing().levels(VPTable(zero_snr=True), 10)
    of_x0, of_x = posterior_mean(at[0], at[1])
    assert (of_x0, of_x) == pytest.approx((at[1].alpha, 0.0))
    assert posterior_variances(at[0], at[1]) == pytest.approx((at[1].sigma ** 2, 1.0))


def test_the_last_step_takes_its_smallest_variance_from_the_step_before() -> None:
    levels = Respaced("10").levels(VPTable(), 1)
    steps = Steps.of(levels)
    before, _ = posterior_variances(levels[-3], levels[-2])
    agree(steps.small[-2:], f64([before, before]), "small")
    agree(steps.large[-1], f64(levels[-2].sigma ** 2), "large")
    x = normal(10, 3, 2, 2)
    small, large = (steps.log_variance(kind, None, x) for kind in ("small", "large"))  # type: ignore[arg-type]
    assert small.shape == large.shape == (10, 1, 1, 1)
    assert small[-1] == large[-1] and bool((small[:-1] < large[:-1]).all())
    agree(large[:-1].flatten(), steps.large[:-1].log(), "log large")


@PROCESSES
def test_off_a_table_the_last_step_has_the_variance_of_the_forward_step(process: Process) -> None:
    steps = Steps.of(LogSNR(0.05, 20.0).levels(process, 6))
    agree(steps.small[-1], steps.large[-1], "small")
    agree(steps.large[-1], f64(process.level_at(0.05).sigma ** 2), "large")
    assert bool((steps.small[:-1] < steps.large[:-1]).all())


def test_alone_a_step_has_the_variance_of_the_forward_step() -> None:
    process = VPTable()
    steps = Steps.of([process.level(500.0), process.clean])
    agree(steps.small, steps.large, "small")
    agree(steps.large, f64([float(process.level(500.0).sigma) ** 2]), "large")


def test_a_learned_variance_lies_between_in_its_logarithm() -> None:
    steps = Steps.of(Respaced("10").levels(VPTable(), 1))
    fraction = torch.rand(10, 3, 4, 4, dtype=torch.float64)
    got = steps.log_variance("learned", fraction, fraction)
    small, large = (v.reshape(-1, 1, 1, 1) for v in (steps.small, steps.large))
    agree(got.exp(), small ** (1 - fraction) * large**fraction, "variance")
    for i in range(10):  # and with floats as with tensors
        one = log_variance(fraction[i], float(steps.small[i]), float(steps.large[i]))
        agree(one, got[i], "of one step")
    assert got.float().dtype == steps.log_variance("learned", fraction.float(), fraction.float()).dtype
    with pytest.raises(NotSupported, match="learned no variance"):
        steps.log_variance("learned", None, fraction)


def test_steps_are_found_by_their_times() -> None:
    process = VPTable("cosine")
    steps = Steps.of(Respaced("10").levels(process, 1))
    found = steps.starting_at(f64([999, 0, 555, 0]))
    assert found.there.t.tolist() == [888, -1, 444, -1]
    agree(found.small, steps.take(torch.tensor([0, 9, 4, 9])).small, "small")
    assert math.isclose(float(found.here.alpha[2]), float(process.level(555.0).alpha), rel_tol=1e-12)
    with pytest.raises(BadValue, match="between the steps"):
        steps.starting_at(f64([999, 1]))


@pytest.mark.parametrize("levels", [[Level(0.0, 1.0, 0.0)], [Level(2.0, 1.0, 2.0), Level(1.0, 1.0, 1.0)]])
def test_a_chain_ends_at_the_clean_image(levels: list[Level]) -> None:
    with pytest.raises(BadValue, match="clean image"):
        Steps.of(levels)
