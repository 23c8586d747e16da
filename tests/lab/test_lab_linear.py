"""The parts of linear guidance: together they are cfg, each does what it is named for, and the gains are theorem 1's."""

from __future__ import annotations

import math

import pytest
import torch
from support.mixtures import Exact, told
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import ShapeMismatch, UnknownName
from guidon.guidance import CFG, GIVEN, Moment
from guidon.lab import Difference, Gaussian, Gaussians, LinearGuidance, integrate
from guidon.lab.linear import PARTS, gains, shrinkage
from guidon.noise import EDM, Flow, Level, Prediction
from guidon.noise.grids import Karras, Trailing
from guidon.sampling import Engine, Trajectory
from guidon.solvers import Euler, Heun, Solver

VARIANCES, VARIANCES_ALL = f64([0.9, 0.1, 0.4, 0.25]), f64([0.4, 0.5, 0.4, 2.0])
AXIAL = Gaussians(
    {0: Gaussian.of(f64([1.0, -0.5, 0.2, 0.0]), VARIANCES), -1: Gaussian.of(f64([0.1, 0.3, 0.2, -0.4]), VARIANCES_ALL)}
)


def full() -> Gaussians:
    members = {}
    for label in (0, 1, -1):
        root = normal(4, 4, seed=label + 5)
        members[label] = Gaussian.of(normal(1, 2, 2, seed=label + 9), root @ root.T / 4 + 0.05 * torch.eye(4))
    return Gaussians(members)


def run(truth: Gaussians, rule: CFG | LinearGuidance, solver: Solver, levels: tuple[Level, ...], x: Tensor) -> Tensor:
    return Engine({"main": Exact(truth)}).run([Trajectory(x, levels, solver, rule, told([0] * len(x)), lambda: x)])[0]


@pytest.mark.parametrize("noise_level", [0.01, 0.5, 3.0, 80.0])
@pytest.mark.parametrize("truth", [AXIAL, full()], ids=["axial", "full"])
def test_the_parts_sum_to_the_difference_of_beliefs(truth: Gaussians, noise_level: float) -> None:
    x, labels = (1 + noise_level) * normal(5, *truth.shape), torch.zeros(5, dtype=torch.long)
    split = Difference(truth, 0).at(noise_level)
    want = truth.believe(x, 0.6, 0.6 * noise_level, labels)[0] - truth.believe(x, 0.6, 0.6 * noise_level, labels - 1)[0]
    agree(sum(split.part(name, x / 0.6) for name in PARTS), want, "D_c - D_u", rtol=1e-8, atol=1e-9)  # type: ignore[arg-type]


def test_the_parts_are_eigenparts() -> None:
    truth = full()
    split, x = Difference(truth, 1).at(0.7), normal(6, 1, 2, 2)
    cov = {k: truth[k].axes * truth[k].variances @ truth[k].axes.T for k in (1, -1)}  # type: ignore[operator,union-attr]
    a_c, a_u = (cov[k] @ torch.linalg.inv(cov[k] + 0.49 * torch.eye(4, dtype=torch.float64)) for k in (1, -1))
    agree(shrinkage(truth[1], 0.7).sort().values, torch.linalg.eigvalsh(a_c), "A_c")
    values, axes = torch.linalg.eigh(a_c - a_u)
    assert values[0] < 0 < values[-1]
    away = (x - truth[1].mean).flatten(1)
    for name, kept in (("positive", values > 0), ("negative", values < 0)):
        want = away @ (axes[:, kept] * values[kept]) @ axes[:, kept].T
        agree(split.part(name, x).flatten(1), want, name)
        along = (split.part(name, x).flatten(1) * away).sum(1)
        assert (along > 0).all() if name == "positive" else (along < 0).all()
    shift = (truth[1].mean - truth[-1].mean).flatten() @ (torch.eye(4, dtype=torch.float64) - a_u)
    agree(split.part("mean", x).flatten(1), shift.expand(6, 4), "the shift of the mean")


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=str)
@pytest.mark.parametrize("truth", [AXIAL, full()], ids=["axial", "full"])
def test_all_parts_are_cfg(truth: Gaussians, solver: Solver) -> None:
    levels, x = Trailing().levels(Flow(), 8), normal(3, *truth.shape)  # from a level without signal
    assert math.isinf(levels[0].noise_level)
    linear = LinearGuidance(Difference(truth, 0), 3.5)
    agree(
        run(truth, linear, solver, levels, x), run(truth, CFG(3.5), solver, levels, x), "images", rtol=1e-8, atol=1e-8
    )
    for nothing in (LinearGuidance(Difference(truth, 0), 3.5, ()), LinearGuidance(Difference(truth, 0), 1.0)):
        agree(run(truth, nothing, solver, levels, x), run(truth, CFG(1.0), solver, levels, x), "unguided")


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone(part: str) -> None:
    """A positive part widens the axes where the class is wider than all, a negative one narrows the others, the mean moves."""
    levels, weight = [EDM().level(20.0), EDM().level(0.0)], 3.0
    x = torch.cat([torch.zeros(1, 4), 20 * torch.eye(4)]).double()
    parted, plain = (
        integrate({"main": Exact(AXIAL)}, rule, levels, x, told([0] * 5))[-1]
        for rule in (LinearGuidance(Difference(AXIAL, 0), weight, (part,)), CFG(1.0))
    )
    stretch = torch.stack([(parted[1 + i] - parted[0])[i] / (plain[1 + i] - plain[0])[i] for i in range(4)])
    of_all = gains(VARIANCES, VARIANCES_ALL, weight, 20.0)
    wider = VARIANCES > VARIANCES_ALL
    want = {
        "positive": torch.where(wider, of_all, 1.0),
        "negative": torch.where(wider, 1.0, of_all),
        "mean": torch.ones(4),
    }
    agree(stretch, want[part], "stretch", rtol=1e-7)
    assert (of_all[wider] > 1).all() and (of_all[VARIANCES < VARIANCES_ALL] < 1).all()
    moved = parted[0] - plain[0]
    if part == "mean":
        gap = AXIAL[0].mean - AXIAL[-1].mean
        assert ((moved * gap > 0) | (gap == 0) & (moved.abs() < 1e-9)).all()


def test_gains_from_one_noise_level_to_another() -> None:
    levels = [EDM().level(t) for t in (20.0, 0.3)]
    x = torch.cat([torch.zeros(1, 4), torch.eye(4)]).double()
    guided, plain = (integrate({"main": Exact(AXIAL)}, CFG(w), levels, x, told([0] * 5))[-1] for w in (2.5, 1.0))
    stretch = ((guided[1:] - guided[0]) / (plain[1:] - plain[0])).diagonal()
    agree(stretch, gains(VARIANCES, VARIANCES_ALL, 2.5, 20.0, 0.3), "gains", rtol=1e-8)


def test_it_asks_the_given_branch_alone_and_leaves_other_networks_their_beliefs() -> None:
    rule, at = LinearGuidance(Difference(AXIAL, 0), 2.0, ("mean",)), Moment(Level(0.5, 0.5, 1.0), Level(0.4, 0.6, 0.8))
    assert rule.branches(at, None) == (GIVEN,)
    x, x0 = normal(3, 4).float(), normal(3, 4, seed=1).float()
    guided, _ = rule.combine({GIVEN: Prediction.from_x0(x, x0, at.here)}, at, None)
    shift = (1 - VARIANCES_ALL / (VARIANCES_ALL + 4)) * (AXIAL[0].mean - AXIAL[-1].mean)
    assert guided.x0.dtype == torch.float32
    agree(guided.x0 - x0, shift.expand(3, 4), "what is added", rtol=1e-5, atol=1e-6)
    agree(0.5 * guided.x0 + guided.eps, x, "x", rtol=1e-5, atol=1e-5)


def test_a_noise_level_is_decomposed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, calls, eigh = full(), [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: calls.append(1) or eigh(a))
    rule, levels = LinearGuidance(Difference(truth, 0), 2.0), Karras(7.0, 0.1, 5.0).levels(EDM(), 4)
    for _ in range(2):
        run(truth, rule, Euler(), levels, normal(2, 1, 2, 2))
    assert len(calls) == 4


def test_refusals() -> None:
    with pytest.raises(UnknownName, match="positive"):
        LinearGuidance(Difference(AXIAL, 0), 2.0, ("positve",))
    with pytest.raises(ShapeMismatch, match="the same way"):
        Difference(Gaussians({0: AXIAL[0], -1: Gaussian.of(AXIAL[-1].mean, torch.eye(4))}), 0)
