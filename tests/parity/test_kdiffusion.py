"""Solvers and noise levels of k-diffusion, through the engine, on exact denoisers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from parity.golden import Case, cases, tensors
from support.drive import drive, no_noise
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, f64

from guidon.guidance import CFG, Guided, Moment
from guidon.noise import EDM, Level
from guidon.noise.grids import Exponential, Grid, Karras, Polyexponential, VPGrid
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.solvers import (
    DPM2,
    LMS,
    Churn,
    DPM2Ancestral,
    DPMFast,
    DPMpp2M,
    DPMpp2MSDE,
    DPMpp2SAncestral,
    DPMpp3MSDE,
    DPMppSDE,
    Euler,
    EulerAncestral,
    Heun,
    Solver,
)
from guidon.solvers.solver import Noise

SET = "sampling/a_kdiffusion"


PLAIN = {"euler": Euler, "heun": Heun, "dpm_2": DPM2}
SOLVERS: dict[str, type[Solver]] = {
    **PLAIN,
    "euler_ancestral": EulerAncestral,
    "dpm_2_ancestral": DPM2Ancestral,
    "dpm_fast": DPMFast,
    "lms": LMS,
    "dpmpp_2m": DPMpp2M,
    "dpmpp_2m_sde": DPMpp2MSDE,
    "dpmpp_3m_sde": DPMpp3MSDE,
    "dpmpp_2s_ancestral": DPMpp2SAncestral,
    "dpmpp_sde": DPMppSDE,
}
FIELDS = {"eta": "eta", "r": "r", "order": "order", "solver_type": "form"}


def solver_of(case: Case) -> Solver:
    """Return guidon's solver for a case, or skip."""
    name, args = case.params["sampler"].removeprefix("sample_"), dict(case.params["args"])
    if name == "dpm_adaptive":
        pytest.skip(
            "dpm_adaptive is not to be had: its step sizes depend on the whole batch, which contradicts "
            '"the same image at any batch size"'
        )
    scale = args.pop("s_noise", 1.0)  # where there is no churn the noise is handed out scaled
    if name in PLAIN:
        amount, low, high = args.pop("s_churn", 0.0), args.pop("s_tmin", 0.0), args.pop("s_tmax", math.inf)
        assert not args, f"{name} with {args}"
        return Churn(PLAIN[name](), amount, low, high, scale) if amount else PLAIN[name]()
    if name == "dpm_fast" and args.pop("eta", 0.0):
        pytest.skip("dpm_fast with fresh noise")
    fields = {FIELDS[key]: value for key, value in args.items()}
    return LMS(through=True, **fields) if name == "lms" else SOLVERS[name](**fields)


def noise_of(case: Case, solver: Solver) -> Noise:
    """Return the noise of a case in the order in which guidon draws it; the original's churn draws in every step."""
    if not case.has("noise"):
        return no_noise
    if isinstance(solver, Churn):
        entered = case["sigmas"][:-1].tolist()
        return RecordedNoise([case["noise"][i] for i, s in enumerate(entered) if solver.low <= s <= solver.high])
    return RecordedNoise(list(case.params["args"].get("s_noise", 1.0) * case["noise"]))


def grid_of(params: dict[str, Any]) -> Grid:
    """Return guidon's grid for a schedule."""
    kind = params.get("function", params.get("kind"))
    grids: dict[str, type[Grid]] = {
        "karras": Karras,
        "exponential": Exponential,
        "polyexponential": Polyexponential,
        "vp": VPGrid,
    }
    fields = ("rho", "sigma_min", "sigma_max", "beta_d", "beta_min", "eps_s")
    return grids[kind](**{field: params[field] for field in fields if field in params})


def levels_of(case: Case) -> list[Level]:
    """Return the levels of a case, made by guidon's grid."""
    schedule = case.params["schedule"]
    if schedule["kind"] == "range":
        return fast_levels(**{key: schedule[key] for key in ("n", "sigma_min", "sigma_max")})
    levels = list(grid_of(schedule).levels(EDM(), schedule["n"]))
    levels = levels[:-1] if schedule.get("drop_zero") else levels
    agree(f64([level.noise_level for level in levels]), case["sigmas"], "noise levels", rtol=1e-12)
    return levels


def fast_levels(n: int, sigma_min: float, sigma_max: float) -> list[Level]:
    """Return the levels of ``n`` evaluations in blocks of equal length in log noise level, with those inside of blocks.

    Blocks take three evaluations each, but for two and one at the end, or what is left over.
    """
    blocks = [3] * (n // 3 - 1) + [2, 1] if n % 3 == 0 else [3] * (n // 3) + [n % 3]
    shares = [(i + j / size) / len(blocks) for i, size in enumerate(blocks) for j in range(size)]
    whole = math.log(sigma_max / sigma_min)
    return [EDM().level(sigma_max * math.exp(-share * whole)) for share in (*shares, 1.0)]


@pytest.mark.parametrize("case", cases(SET, kind="schedule"))
def test_noise_levels(case: Case) -> None:
    levels = grid_of(case.params).levels(EDM(), case.params["n"])
    agree(f64([level.sigma for level in levels]), case["sigmas"], "noise levels", rtol=1e-12)


@pytest.mark.parametrize("case", cases(SET, kind="sampler"))
def test_sampler(case: Case) -> None:
    solver = solver_of(case)
    network = Exact(Mixture.read(tensors(SET), f"mixture/{case.params['mixture']}"))
    rule, noise = CFG(case.params["scale"]), noise_of(case, solver)
    run = Trajectory(case["x_init"], levels_of(case), solver, rule, told(case.params["labels"]), noise)
    engine, asked, entered = Engine({"main": network}), [], {}
    engine.join(run)
    while not run.done:
        query = run.queries[0]
        asked.append(query.level.sigma)
        entered.setdefault(run.index, query.x)
        engine.round()
    if isinstance(solver, DPMFast):  # the original has a state for each block, of up to three steps
        ends = {run.steps - 1} if run.steps % 3 == 0 else set()
        entered = {index: x for index, x in entered.items() if index % 3 == 0 or index in ends}
    agree(f64(asked), case["calls_sigma"], "levels asked", rtol=1e-12)
    agree(torch.stack(list(entered.values())), case["x_hat"], "states")
    agree(run.x, case["x_final"], "result")


@pytest.mark.parametrize("case", cases(SET, kind="table"))
def test_split_into_kept_and_fresh_noise(case: Case) -> None:
    for i, eta in enumerate(case["eta"].tolist()):
        if not 0 <= eta <= 1:
            continue
        here, there = (case[f"sigma_{end}"][i].item() for end in ("from", "to"))
        at = Moment(Level(here, 1.0, here), Level(there, 1.0, there))
        for eps, fresh, key in ((1.0, 0.0, "sigma_down"), (0.0, 1.0, "sigma_up")):
            told_eps, drawn = Guided(f64([0.0]), f64([eps])), f64([fresh])
            states, _ = drive(EulerAncestral(eta), [at], f64([0.0]), lambda x, at, t=told_eps: t, lambda n=drawn: n)
            assert math.isclose(states[-1].item(), case[key][i].item(), rel_tol=1e-12, abs_tol=1e-12), (key, i)
