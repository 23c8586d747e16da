"""The adaptive integrator against stored paths of 1e-11, closed forms, and the sheet's mixtures."""

from __future__ import annotations

import math

import pytest
import torch
from parity.golden import Case, cases, tensors
from support.mixtures import Exact, Mixture, Pair, plane, told
from support.numbers import agree, f64, normal
from torch import Tensor

from guidon.errors import BadValue, NotSupported
from guidon.guidance import APG, CFG, Autoguidance, Interval, Rule
from guidon.lab import integrate
from guidon.lab.endpoints import ode
from guidon.noise import EDM, Cosine, Flow, Level, VPTable
from guidon.noise.grids import LogSNR
from guidon.sampling import Engine, Trajectory
from guidon.solvers import DDPM

SET = "sampling/h_exact_endpoints"
PROCESSES = {"ve": EDM(), "vp_cosine": Cosine(), "rectified_flow": Flow()}


@pytest.mark.golden
@pytest.mark.parametrize(
    "case",
    [case for kind in ("", "_interval", "_autoguidance") for case in cases(SET, kind=f"ode_endpoint{kind}")],
)
def test_stored_paths(case: Case) -> None:
    params = case.params
    levels = [PROCESSES[params["parameterisation"]].level(t) for t in case["times"].tolist()]
    networks = {"main": Exact(Mixture.read(tensors(SET), params["mixture_case"]))}
    rule: Rule = CFG(params["scale"])
    if "sigma_lo" in params:
        rule = CFG(params["scale"], when=Interval(params["sigma_lo"], params["sigma_hi"]))
    if "weak_mixture_case" in params:
        networks["weak"] = Exact(Mixture.read(tensors(SET), params["weak_mixture_case"]))
        rule = Autoguidance(params["scale"])
    path = integrate(networks, rule, levels, case["path"][0], told(case["labels"]))
    agree(path, case["path"], "path", rtol=1e-9, atol=2e-9)


@pytest.mark.parametrize("process", [Cosine(), Flow(), VPTable(), VPTable(zero_snr=True)], ids=str)
def test_every_process_takes_the_same_path(process: Cosine | Flow | VPTable) -> None:
    x, ends = normal(6, 2), []
    for one in (EDM(), process):
        levels = [one.level_at(tau) for tau in (20.0, 1.0, 0.05)]
        path = integrate({"main": Exact(plane())}, CFG(2.0), levels, levels[0].alpha * 20 * x, told([0, 1] * 3))
        ends.append(torch.stack([state / level.alpha for state, level in zip(path, levels, strict=True)]))
    agree(ends[1], ends[0], "paths", rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_from_no_signal_to_the_clean_image(weight: float) -> None:
    pair = Pair(1.0, 0.5, 0.0, 1.0)
    ends = integrate(
        {"main": Exact(pair)}, CFG(weight), [Cosine().level(1.0), Cosine().clean], f64([[0.0], [1.0]]), told([0, 0])
    )[-1]
    assert math.isclose(ends[0].item(), ode(pair, weight).mean, rel_tol=1e-8)
    assert math.isclose((ends[1] - ends[0]).item(), ode(pair, weight).std, rel_tol=1e-8)


def quantiles(n: int, top: float) -> Tensor:
    """Return the middle of each of ``n`` equal shares of N(0, 1 + top^2), (n, 1)."""
    return math.hypot(1, top) * torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]


# The sheet's numbers are those of a run that starts at noise level 80.

N, TOP = 2001, 80.0


def ends_of(mixture: Mixture, rule: Rule, *between: float) -> Tensor:
    levels = [EDM().level(t) for t in (TOP, *between, 0.0)]
    return integrate({"main": Exact(mixture)}, rule, levels, quantiles(N, TOP), told([0] * N), rtol=1e-6, atol=1e-8)[-1]


TWO = Mixture(torch.ones(2), f64([[2.0], [-2.0]]), f64([[0.25], [0.25]]), torch.tensor([0, 1]))
COUNTEREXAMPLE_2 = [(3.0, ("2.50", "0.31"), ("2.000", "0.4997")), (7.5, ("3.04", "0.24"), ("2.000", "0.4995"))]


@pytest.mark.parametrize(("weight", "by_ode", "powered"), COUNTEREXAMPLE_2)
def test_two_gaussians(weight: float, by_ode: tuple[str, str], powered: tuple[str, str]) -> None:
    ends = ends_of(TWO, CFG(weight))
    assert (f"{ends.mean():.2f}", f"{ends.std():.2f}") == by_ode
    grid, zeros = torch.linspace(-8, 8, 8001, dtype=torch.float64), torch.zeros(8001, dtype=torch.long)
    given, null = (TWO.log_density(grid[:, None], 1.0, 0.0, labels) for labels in (zeros, zeros - 1))
    share = torch.softmax(weight * given + (1 - weight) * null, 0)
    mean = (share * grid).sum()
    assert (f"{mean:.3f}", f"{(share * (grid - mean) ** 2).sum().sqrt():.4f}") == powered


@pytest.mark.parametrize(("weight", "mean", "std"), [(3.0, 2.12, 0.48), (7.5, 2.19, 0.48)])
def test_two_gaussians_by_the_sde(weight: float, mean: float, std: float) -> None:
    n, generator = 8000, torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(n, 1, generator=generator, dtype=torch.float64)

    levels = LogSNR(0.005, TOP).levels(EDM(), 200)
    ends = Engine({"main": Exact(TWO)}).run(
        [Trajectory(TOP * noise(), levels, DDPM(), CFG(weight), told([0] * n), noise)]
    )[0]
    assert abs(ends.mean() - mean) < 0.02 and abs(ends.std() - std) < 0.02


def clock(at: object) -> float:
    return 2 / math.pi * math.atan(at.noise_level)  # type: ignore[attr-defined]


MODES = [
    (CFG(1.0), (), "0.509"),
    (CFG(3.0), (), "0.023"),
    (CFG(6.0), (), "0.000"),
    (CFG(6.0, when=Interval(0.1, 0.6)), (0.6, 0.1), "0.509"),
    (CFG(6.0, when=Interval(0.3, 1.5)), (1.5, 0.3), "0.398"),
    (CFG(lambda at: 1 + 10 * (1 - clock(at))), (), "0.014"),
    (CFG(lambda at: 1 + 10 * clock(at)), (), "0.000"),
]


@pytest.mark.parametrize(("rule", "edges", "printed"), MODES, ids=range(len(MODES)))
def test_the_share_of_the_inner_mode(rule: Rule, edges: tuple[float, ...], printed: str) -> None:
    """Sheet, section 7: the class has modes at 1 and 2.5, no class has them at -1 and -2.5 too."""
    modes = Mixture(
        torch.ones(4), f64([[1.0], [2.5], [-1.0], [-2.5]]), f64([[0.15**2]] * 4), torch.tensor([0, 0, 1, 1])
    )
    share = (ends_of(modes, rule, *edges) < 1.75).double().mean().item()
    assert abs(share - float(printed)) < 0.0015


def test_refusals() -> None:
    networks, x, contexts = {"main": Exact(plane())}, normal(2, 2), told([0, 1])
    levels = [EDM().level(2.0), EDM().level(0.5)]
    with pytest.raises(NotSupported, match="has memory"):
        integrate(networks, CFG(2.0) | APG(momentum=0.5), levels, x, contexts)
    with pytest.raises(BadValue, match="less noisy"):
        integrate(networks, CFG(2.0), levels[::-1], x, contexts)
    with pytest.raises(NotSupported):
        integrate(networks, CFG(2.0), [Level(2.0, 1.0, 2.0), Level(0.5, 1.0, 0.5)], x, contexts)
