"""Guided probability-flow paths that an adaptive integrator computed to 1e-11: solvers reach them at their order."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from parity.golden import Case, cases, settings, tensors
from support.drive import no_noise, sample
from support.examples import solvers
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, f64
from torch import Tensor

from guidon.guidance import CFG, Autoguidance, Interval
from guidon.noise import EDM, Cosine, Flow, Level
from guidon.noise.grids import Karras
from guidon.registry import to_text
from guidon.sampling import Engine, Trajectory
from guidon.solvers import DPM2, DPMpp2M, Euler, Heun, Solver

SET = "sampling/h_exact_endpoints"
SOLVERS: dict[str, Solver] = {
    "sample_euler": Euler(),
    "sample_heun": Heun(),
    "sample_dpm_2": DPM2(),
    "sample_dpmpp_2m": DPMpp2M(),
}


def network_of(case: Case) -> Exact:
    return Exact(Mixture.read(tensors(SET), case.params["mixture_case"]))


@pytest.mark.parametrize("case", cases(SET, kind="denoiser_probe"))
def test_the_exact_denoiser_is_exact(case: Case) -> None:
    mixture = Mixture.read(tensors(SET), case.name.replace("probe", "mixture"))
    labels = case["labels"]
    for suffix, asked in (("cond", labels), ("uncond", torch.full_like(labels, -1))):
        x0, eps = mixture.believe(case["x"], case["alpha"], case["sigma"], asked)
        agree(x0, case[f"x0_{suffix}"], "x0", rtol=1e-9, atol=1e-10)
        agree(eps, case[f"eps_{suffix}"], "eps", rtol=1e-9, atol=1e-10)


def stretch(case: Case, steps: int) -> tuple[Tensor, Tensor, list[Level]]:
    """Return start, end and levels between two stored times where every parameterisation is regular."""
    times, path = case["times"].tolist(), case["path"]
    if case.params["parameterisation"] == "ve":
        first, last = 0, len(times) - 2
        levels = list(Karras(7.0, times[last], times[first]).levels(EDM(), steps + 1)[:-1])
    else:
        process = {"vp_cosine": Cosine(), "rectified_flow": Flow()}[case.params["parameterisation"]]
        first, last = times.index(next(t for t in times if t <= 0.95)), len(times) - 2
        levels = [
            process.level(t) for t in torch.linspace(times[first], times[last], steps + 1, dtype=torch.float64).tolist()
        ]
    return path[first], path[last], levels


def eased(case: Case, steps: int) -> tuple[Tensor, Tensor, list[Level]]:
    """Return start, end and levels whose steps are short at both ends, where multistep solvers are of lower orders."""
    start, end, levels = stretch(case, 2)
    process, top, bottom = levels[0].process, math.log(levels[0].noise_level), math.log(levels[-1].noise_level)
    assert process is not None
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    shares = (ramp**2 * (3 - 2 * ramp)).tolist()
    return start, end, [process.level_at(math.exp(top + (bottom - top) * share)) for share in shares]


def paths() -> list[object]:
    """Return guided paths with solvers: the strongest guidance in the highest dimension with all, the others with a few."""
    found, each = [], [case.values[0] for case in cases(SET, kind="ode_endpoint")]
    hardest = max(((case.params["dim"], case.params["scale"]) for case in each), default=None)
    for case in each:
        hard = (case.params["dim"], case.params["scale"]) == hardest
        chosen = [solver for solver in solvers() if not solver.stochastic] if hard else SOLVERS.values()
        found += [pytest.param(case, solver, id=f"{case.name}-{to_text(solver)}") for solver in chosen]
    return found


@pytest.mark.parametrize(("case", "solver"), paths())
def test_order_on_exact_paths(case: Case, solver: Solver) -> None:
    """The order is a limit: where errors of two orders cancel at first, it shows with more steps."""
    steps, before = 192, math.inf  # multiples of 6: blocks of two and three steps come out even
    while steps <= 3072:
        start, end, levels = eased(case, steps)
        got = sample(network_of(case), levels, solver, CFG(case.params["scale"]), start, told(case["labels"]))
        error = (got - end).norm(dim=1).log().mean().exp().item()
        order = math.log2(before / error) if math.isfinite(before) else 0.0
        if abs(order - solver.order) < 0.15:
            return
        before, steps = error, 2 * steps
    pytest.fail(f"order {order:.2f}, stated {solver.order}; error {error:.2g}")


CONVERGENCE = [
    pytest.param(row, id=f"{row['dim']}-{row['sampler']}-w{row['scale']:g}")
    for row in settings(SET).get("convergence_of_reference_samplers", [])
]


@pytest.mark.parametrize("row", CONVERGENCE)
def test_same_errors_as_the_reference_samplers(row: dict[str, Any]) -> None:
    solver = SOLVERS.get(row["sampler"])
    if solver is None:
        pytest.skip(f"no solver {row['sampler']}")
    case = Case(SET, f"{row['dim']}/ve/w{row['scale']:g}")
    got = []
    for steps in row["steps"]:
        start, end, levels = stretch(case, steps)
        x = sample(network_of(case), levels, solver, CFG(row["scale"]), start, told(case["labels"]))
        got.append((x - end).norm(dim=1).median())
    agree(torch.stack(got), f64(row["median_error"]), "median errors", rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("case", cases(SET, kind="ode_endpoint_interval"))
def test_guidance_in_an_interval(case: Case) -> None:
    times, low, high = case["times"].tolist(), case.params["sigma_lo"], case.params["sigma_hi"]
    rule, last = CFG(case.params["scale"], when=Interval(low, high)), len(times) - 2
    errors = []
    for steps in (128, 256):  # a share for each stretch, so that guidance is switched exactly at a level
        levels = []
        for top, bottom in itertools.pairwise(times[: last + 1]):
            levels += Karras(7.0, bottom, top).levels(EDM(), steps // last + 1)[:-2]
        levels.append(EDM().level(times[last]))
        x = sample(network_of(case), levels, Euler(), rule, case["path"][0], told(case["labels"]))
        errors.append((x - case["path"][last]).norm(dim=1).median().item())
    assert 0.8 < math.log2(errors[0] / errors[1]) < 1.2 and errors[1] < 0.05, errors


@pytest.mark.parametrize("case", cases(SET, kind="ode_endpoint_autoguidance"))
def test_autoguidance(case: Case) -> None:
    mixtures = {"main": case.params["mixture_case"], "weak": case.params["weak_mixture_case"]}
    networks = {name: Exact(Mixture.read(tensors(SET), mixture)) for name, mixture in mixtures.items()}
    errors = []
    for steps in (128, 256):
        start, end, levels = stretch(case, steps)
        run = Trajectory(start, levels, Heun(), Autoguidance(case.params["scale"]), told(case["labels"]), no_noise)
        errors.append((Engine(networks).run([run])[0] - end).norm(dim=1).median().item())
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.15 and errors[1] < 2e-3, errors
