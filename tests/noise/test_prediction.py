"""One belief, five parameterisations: every output reads to the same prediction, and its views agree."""

from __future__ import annotations

import math

import pytest
import torch
from support.examples import dataclasses_of, plain, processes
from support.numbers import agree, f64, normal

from guidon.errors import NotSupported
from guidon.noise import EDM, EDMOutput, EpsOutput, Level, Output, Prediction, VPTable, X0Output

OUTPUTS = [plain(name, member) for name, member in dataclasses_of("output")]
LEVELS = [
    process.level(t)
    for process in processes()
    for t in torch.linspace(process.t_min, process.t_max, 5, dtype=torch.float64).tolist()[:-1]
] + [EDM().level(80.0), EDM().level(0.002)]


def test_all_five_outputs_are_there() -> None:
    assert {name for name, _ in dataclasses_of("output")} >= {"eps", "x0", "v", "velocity", "edm"}


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_a_perfect_network_is_read_right(output: Output) -> None:
    for i, level in enumerate(LEVELS):
        x0, eps = normal(3, 2, 4, seed=i), normal(3, 2, 4, seed=i + 100)
        x = level.alpha * x0 + level.sigma * eps
        told = output.read(x, output.target(x0, eps, level), level)
        scale = max(1.0, level.noise_level, 1 / level.noise_level)
        agree(told.x0, x0, f"x0 at {level}", atol=1e-12 * scale)
        agree(told.eps, eps, f"eps at {level}", atol=1e-12 * scale)
        agree(told.v, level.alpha * eps - level.sigma * x0, "v", atol=1e-12 * scale)
        agree(told.velocity, eps - x0, "velocity", atol=1e-12 * scale)
        agree(told.score, -eps / level.sigma, "score", atol=1e-12 * scale / level.sigma)


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_rows_at_their_own_levels(output: Output) -> None:
    """A batch in which every row has its own level is what the rows are alone; also in float32."""
    levels = LEVELS[::3]
    many = Level(*(f64([getattr(level, name) for level in levels]) for name in ("t", "alpha", "sigma")))
    x0, eps = normal(len(levels), 2, 4), normal(len(levels), 2, 4, seed=1)
    at = many.like(x0)
    x = at.alpha * x0 + at.sigma * eps
    raw, scale = output.target(x0, eps, many), output.input_scale(many)
    for i, level in enumerate(levels):
        row = slice(i, i + 1)
        agree(raw[row], output.target(x0[row], eps[row], level), "raw")
        agree(output.read(x, raw, many).take(row).x0, output.read(x[row], raw[row], level).x0, "x0")
        agree(
            f64([float(output.x0_gain(many)[i] if isinstance(output.x0_gain(many), torch.Tensor) else 1)]),
            f64([float(output.x0_gain(level))]),
            "gain",
        )
        alone = output.input_scale(level)
        assert math.isclose(scale[i] if isinstance(scale, torch.Tensor) else scale, alone, rel_tol=1e-12)
    assert output.read(x.float(), raw.float(), many).x0.dtype == torch.float32
    assert output.target(x0.float(), eps.float(), many).dtype == torch.float32


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_gain_is_the_slope_of_x0(output: Output) -> None:
    for level in LEVELS:
        x, raw = normal(2, 3), normal(2, 3, seed=1)
        slope = output.read(x, raw + 1, level).x0 - output.read(x, raw, level).x0
        agree(slope, torch.full_like(slope, output.x0_gain(level)), f"slope at {level}", rtol=1e-6, atol=1e-9)


def test_edm_output_keeps_input_and_target_at_unit_variance() -> None:
    for sigma in (0.01, 0.5, 5.0, 80.0):
        level, output = EDM().level(sigma), EDMOutput(0.5)
        x0, eps = 0.5 * normal(20000, 1), normal(20000, 1, seed=1)
        assert math.isclose((x0 + sigma * eps).std() * output.input_scale(level), 1, rel_tol=0.03)
        assert math.isclose(output.target(x0, eps, level).std(), 1, rel_tol=0.03)


def test_scores_of_a_gaussian() -> None:
    level, x = VPTable().level(500.0), normal(5, 1)
    total = level.alpha**2 * 0.3**2 + level.sigma**2
    assert torch.allclose(Prediction.from_eps(x, level.sigma * x / total, level).score, -x / total)


def test_what_cannot_be_told_is_refused() -> None:
    blind, clean, x = VPTable(zero_snr=True).level(999.0), VPTable().clean, normal(2, 3)
    for output in (EpsOutput(), EDMOutput()):
        with pytest.raises(NotSupported, match="no signal is left"):
            output.read(x, x, blind)
    with pytest.raises(NotSupported, match="end sampling above"):
        X0Output().read(x, x, clean)
