"""UniPC: its order, what it is without its corrector, and beliefs that it follows exactly."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from support.drive import drive, guided_by, moments, sample
from support.mixtures import Exact, plane, told
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG, Guided, Moment
from guidon.noise import EDM, Cosine, Flow, Level
from guidon.noise.grids import Karras, LogSNR
from guidon.registry import parse, to_text
from guidon.solvers import DPMpp2M, DPMSolver2M, Euler, Heun, Solver, UniPC
from guidon.solvers.phi import phi
from guidon.solvers.unipc import weights

NEVER = None
LABELS = [0, 1] * 12


def run(solver: Solver, steps: int) -> Tensor:
    """Integrate from noise level 20 to 0.02."""
    levels = Karras(7.0, 0.02, 20.0).levels(EDM(), steps + 1)[:-1]
    return sample(Exact(plane()), levels, solver, CFG(2.0), 20 * normal(24, 2), told(LABELS))


@functools.cache
def endpoint() -> Tensor:
    coarse, fine = run(Heun(), 512), run(Heun(), 1024)
    return fine + (fine - coarse) / 3


def order_of(solver: Solver, steps: int = 64) -> float:
    """Return the order of convergence between ``steps`` and twice as many."""
    errors = [(run(solver, n) - endpoint()).norm(dim=1).median().item() for n in (steps, 2 * steps)]
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("believes", ["x0", "eps"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_corrector_gains_an_order(order: int, believes: str, variant: str) -> None:
    corrected = order_of(UniPC(order, variant, believes, end="full"))
    plain = order_of(UniPC(order, variant, believes, corrector_from=NEVER, end="full"))
    assert abs(corrected - (order + 1)) < 0.3
    assert abs(plain - order) < 0.3


@pytest.mark.parametrize("order", [2, 3])
def test_a_last_step_of_order_one_leaves_order_two_at_least(order: int) -> None:
    assert order_of(UniPC(order)) > 2
    assert (run(UniPC(order), 32) - endpoint()).norm(dim=1).median() < 0.005


@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow()], ids=str)
def test_without_the_corrector_it_is_dpm_solver(process: EDM | Cosine | Flow) -> None:
    levels = LogSNR(0.02, 20.0).levels(process, 9)
    x = levels[0].sigma * normal(4, 2)
    for plain, other in (
        (UniPC(1), Euler()),
        (UniPC(2, end="full"), DPMpp2M()),
        (UniPC(2), DPMpp2M(end="lower")),
        (UniPC(2, believes="eps", end="full"), DPMSolver2M()),
    ):
        bare = UniPC(plain.predictor, plain.variant, plain.believes, NEVER, plain.end)
        got, want = (sample(Exact(plane()), levels, s, CFG(2.5), x, told([0, 1, 1, 0])) for s in (bare, other))
        agree(got, want, str(other))
        corrected = sample(Exact(plane()), levels, plain, CFG(2.5), x, told([0, 1, 1, 0]))
        assert not torch.allclose(corrected, want, atol=1e-4)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("believes", ["x0", "eps"])
def test_order_three_follows_a_parabola_exactly(believes: str, variant: str) -> None:
    """A belief that is a parabola in log noise level, whatever the state: from the fourth step on nothing is off."""
    levels = [Cosine().level_at(tau) for tau in (9.0, 6.0, 3.5, 3.0, 1.4, 0.9, 0.3, 0.1)]
    of_log = np.polynomial.Polynomial([0.4, -0.7, 0.3])

    def believe(x: Tensor, at: Moment) -> Guided:
        value = torch.full_like(x, of_log(math.log(at.noise_level)))
        if believes == "x0":
            return Guided(value, (x - at.here.alpha * value) / at.here.sigma)
        return Guided((x - at.here.sigma * value) / at.here.alpha, value)

    def exact(x: Tensor, here: Level, there: Level) -> Tensor:
        """Return the solution: u = log tau, d(x / sigma)/du = -e^-u x0(u), or d(x / alpha)/du = e^u eps(u)."""
        a, b = math.log(here.noise_level), math.log(there.noise_level)
        sign, of = (-1, "sigma") if believes == "x0" else (1, "alpha")
        nodes, share = np.polynomial.legendre.leggauss(30)
        u = a + (b - a) * (nodes + 1) / 2
        integral = (sign * np.exp(sign * u) * of_log(u)) @ share * (b - a) / 2
        return getattr(there, of) * (x / getattr(here, of) + integral)

    states, _ = drive(UniPC(3, variant, believes, end="full"), moments(levels), f64([0.3, -2.0]), believe)
    for i in range(len(levels) - 1):
        off = (states[i + 1] - exact(states[i], levels[i], levels[i + 1])).abs().max()
        assert (off < 1e-12) if i >= 3 else (off > 1e-4), i


def test_a_step_of_lower_order_is_corrected_by_as_few_beliefs() -> None:
    """The corrector of the last but one step, of order 2, integrates the parabola through three beliefs about the clean image."""
    levels = [Cosine().level_at(tau) for tau in (9.0, 6.0, 3.5, 3.0, 1.4, 0.9)]
    logs = np.array([-math.log(level.noise_level) for level in levels])
    cubic = np.polynomial.Polynomial([0.4, -0.7, 0.3, 0.2])

    def believe(x: Tensor, at: Moment) -> Guided:
        value = torch.full_like(x, cubic(-math.log(at.noise_level)))
        return Guided(value, (x - at.here.alpha * value) / at.here.sigma)

    states, _ = drive(UniPC(3), moments(levels), f64([0.3]), believe)
    beliefs, growth = cubic(logs), np.diff(np.exp(logs))
    scaled = [(x / level.sigma).item() for x, level in zip(states, levels, strict=True)]
    slope = (beliefs[3] - beliefs[2]) / (logs[3] - logs[2]) * (logs[4] - logs[3])
    before = scaled[4] - growth[3] * (beliefs[3] + slope / 2)  # corrected, at level 3: from where the predictor came
    after = scaled[5] - growth[4] * beliefs[4]  # corrected, at level 4: from where the last step came
    nodes, share = np.polynomial.legendre.leggauss(30)
    u = logs[3] + (logs[4] - logs[3]) * (nodes + 1) / 2
    parabola = np.polynomial.Polynomial.fit(logs[2:5], beliefs[2:5], 2)
    assert math.isclose(after - before, (np.exp(u) * parabola(u)) @ share * (logs[4] - logs[3]) / 2, rel_tol=1e-10)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("end", ["lower", "full"])
def test_a_run_to_the_clean_image_ends_with_what_is_believed(end: str, variant: str) -> None:
    """The reference gives NaN for bh1."""
    levels, believe = Karras(7.0, 0.02, 20.0).levels(EDM(), 7), guided_by(CFG(2.0), Exact(plane()), told([0, 1]))
    states, asked = drive(UniPC(3, variant, end=end), moments(levels), 20 * normal(2, 2), believe)
    agree(states[-1], believe(asked[-1].x, asked[-1].at).x0, "image")


def test_the_first_corrected_step() -> None:
    """With corrector_from = k the first k + 1 steps are the predictor's alone; the step after them begins corrected."""
    levels, believe = Karras(7.0, 0.02, 20.0).levels(EDM(), 8), guided_by(CFG(2.0), Exact(plane()), told([0, 1]))
    bare, late = (drive(UniPC(corrector_from=k), moments(levels), 20 * normal(2, 2), believe)[0] for k in (NEVER, 3))
    equal = [torch.equal(a, b) for a, b in zip(bare, late, strict=True)]
    assert equal == [True] * 5 + [False] * 4


def test_weights_solve_the_order_conditions() -> None:
    ratios, z = [-0.8, -0.3, 1.0], -0.6
    for scale in (z, math.expm1(z)):
        found = weights(ratios, z, scale)
        for k, moment in enumerate([math.expm1(z) / z - 1, 2 * ((math.expm1(z) / z - 1) / z - 1 / 2)], start=1):
            assert math.isclose(sum(w * r ** (k - 1) for w, r in zip(found, ratios, strict=True)), moment / scale)
    assert weights([-0.7], z, z) == [0.5]
    assert weights([], z, z) == []


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_phi(k: int) -> None:
    """phi_k(z) = int_0^1 e^((1-s) z) s^(k-1) / (k-1)! ds."""
    nodes, share = np.polynomial.legendre.leggauss(40)
    s = (nodes + 1) / 2
    for z in (-12.0, -1.5, -1.0001, -0.9999, -1e-6, 0.0, 1e-3, 0.9999, 1.0001, 4.0):
        integral = (np.exp((1 - s) * z) * s ** (k - 1)) @ share / 2 / math.factorial(k - 1)
        assert math.isclose(phi(k, z), integral, rel_tol=1e-12)


def test_values() -> None:
    solver = UniPC(3, "bh1", "eps", 2, "full")
    assert parse("solver", to_text(solver)) == solver
    for wrong in (
        {"predictor": 4},
        {"predictor": 0},
        {"variant": "bh3"},
        {"believes": "v"},
        {"corrector_from": -1},
        {"end": "clean"},
    ):
        with pytest.raises(BadValue, match=next(iter(wrong))):
            UniPC(**wrong)  # type: ignore[arg-type]
