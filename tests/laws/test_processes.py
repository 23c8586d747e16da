"""Laws of noise processes: there and back between time and noise level, monotone, and training times as stated."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support.examples import dataclasses_of, plain, processes
from support.numbers import f64

from guidon.errors import BadValue, NotSupported
from guidon.noise import Process, VPTable

OF_TABLES = {"leading", "respaced"}
OWN_STEPS = {"listed": 3}
OWN_RANGE = {"vp"}  # says noise levels of one process, whatever it is used on
PROCESSES = pytest.mark.parametrize("process", processes(), ids=str)


def times(process: Process, n: int = 41) -> list[float]:
    return torch.linspace(process.t_min, process.t_max, n, dtype=torch.float64).tolist()


@PROCESSES
def test_time_and_noise_level_are_inverse(process: Process) -> None:
    for t in times(process):
        tau = process.noise_level(t)
        if math.isinf(tau) or (isinstance(process, VPTable) and process.zero_snr and t > process.t_max - 1):
            continue  # between the last two entries of a table without signal at the end every noise level is infinite
        assert math.isclose(process.time_at(tau), t, rel_tol=1e-7, abs_tol=1e-9), (t, tau)
        level, back = process.level(t), process.level_at(tau)
        assert math.isclose(back.t, t, rel_tol=1e-7, abs_tol=1e-9)
        assert math.isclose(back.alpha, level.alpha, rel_tol=1e-9)
        assert math.isclose(back.sigma, level.sigma, rel_tol=1e-9)
        assert math.isclose(back.noise_level, tau, rel_tol=1e-9)


@PROCESSES
def test_noise_rises_and_signal_falls(process: Process) -> None:
    levels = [process.clean, *(process.level(t) for t in times(process, 97))]
    for before, after in itertools.pairwise(levels):
        assert before.t < after.t
        assert before.alpha >= after.alpha >= 0
        assert before.sigma < after.sigma
        assert before.noise_level < after.noise_level or math.isinf(before.noise_level)
        assert process.clock(before.t if before is not process.clean and before.t > 0 else after.t) <= process.clock(
            after.t
        )
    assert (levels[0].alpha, levels[0].sigma) == (1.0, 0.0)
    assert process.time_at(0.0) == process.t_clean


@PROCESSES
def test_a_tensor_of_times_is_many_times(process: Process) -> None:
    many = process.level(f64(times(process)))
    for i, t in enumerate(times(process)):
        one = process.level(t)
        assert math.isclose(many.alpha[i], one.alpha, rel_tol=1e-14)
        assert math.isclose(many.sigma[i], one.sigma, rel_tol=1e-14)
        assert math.isclose(process.clock(f64(times(process)))[i], process.clock(t), rel_tol=1e-12)
    single = process.level(f64(times(process)).float())
    assert single.alpha.dtype == torch.float64


@PROCESSES
def test_training_times_follow_their_law(process: Process) -> None:
    """The empirical distribution stays within the Kolmogorov-Smirnov bound of the stated one (probability 1e-6)."""
    n = 20000
    drawn = process.sample_times(n, torch.Generator().manual_seed(1))
    assert drawn.dtype == torch.float64
    assert drawn.shape == (n,)
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    stated = process.quantile(u)
    assert (stated[1:] >= stated[:-1]).all()
    points = process.quantile(torch.linspace(0.02, 0.98, 49, dtype=torch.float64))
    for point in points:
        gap = abs((drawn <= point).double().mean() - (stated <= point).double().mean()).item()
        assert gap < 2.7 / math.sqrt(n), (point, gap)
    assert torch.isfinite(process.quantile(f64([0.0, 1 - 2**-53]))).all()
    assert torch.isfinite(process.clock(drawn)).all()


@PROCESSES
def test_stratified_times_have_the_same_law_and_less_variance(process: Process) -> None:
    g, size, batches = torch.Generator().manual_seed(2), 16, 1500
    plain_means, means, firsts = [], [], []
    for _ in range(batches):
        strata = process.sample_times(size, g, stratified=True)
        means.append(strata.log1p().mean())
        firsts.append(strata[0])  # any one place alone has the whole distribution
        plain_means.append(process.sample_times(size, g).log1p().mean())
    assert torch.stack(means).var() < torch.stack(plain_means).var() / 4
    spread = torch.stack(plain_means).std() / batches**0.5
    assert abs(torch.stack(means).mean() - torch.stack(plain_means).mean()) < 5 * spread
    stated = process.quantile((torch.arange(10000, dtype=torch.float64) + 0.5) / 10000)
    for point in process.quantile(torch.linspace(0.1, 0.9, 9, dtype=torch.float64)):
        gap = abs((torch.stack(firsts) <= point).double().mean() - (stated <= point).double().mean()).item()
        assert gap < 2.7 / math.sqrt(batches), (point, gap)


@PROCESSES
@pytest.mark.parametrize(("name", "grid"), dataclasses_of("grid"), ids=lambda v: v if isinstance(v, str) else "")
def test_grids_walk_down_to_the_clean_image(process: Process, name: str, grid: type) -> None:
    for steps in (1, 2, 7, 20):
        if name in OF_TABLES and not isinstance(process, VPTable):
            with pytest.raises(NotSupported, match="for a continuous process use"):
                plain(name, grid).levels(process, steps)
            continue
        if name == "shifted" and process.noise_level(process.t_max) < math.inf:
            with pytest.raises(NotSupported, match="noisiest that this process has"):
                plain(name, grid).levels(process, steps)
            continue
        if name == "aligned" and steps == 1:
            with pytest.raises(BadValue, match="take more steps"):
                plain(name, grid).levels(process, steps)
            continue
        levels = plain(name, grid).levels(process, steps)
        assert len(levels) == OWN_STEPS.get(name, steps) + 1
        assert levels[-1] == process.clean
        sigmas = [level.noise_level for level in levels]
        assert all(a > b for a, b in itertools.pairwise(sigmas)), sigmas
        if name not in OWN_RANGE:
            assert all(process.t_min - 1e-9 <= level.t <= process.t_max + 1e-9 for level in levels[:-1])
        for level in levels[:-1]:
            if math.isfinite(level.noise_level):
                assert math.isclose(process.time_at(level.noise_level), level.t, rel_tol=1e-6, abs_tol=1e-7)
            assert math.isfinite(process.clock(level.t))


@PROCESSES
def test_the_start_has_the_scale_of_the_state(process: Process) -> None:
    level = process.level(process.t_max)
    spread = math.sqrt(level.alpha**2 * 0.25 + level.sigma**2)
    assert math.isclose(process.start_scale(level), spread, rel_tol=0.02)


@PROCESSES
@pytest.mark.parametrize(("name", "grid"), dataclasses_of("grid"), ids=lambda v: v if isinstance(v, str) else "")
def test_grids_refuse_no_steps(process: Process, name: str, grid: type) -> None:
    for steps in (0, -3):
        with pytest.raises((BadValue, NotSupported)):
            plain(name, grid).levels(process, steps)
