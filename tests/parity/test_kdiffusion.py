"""Solvers and noise levels of k-diffusion, through the engine, on exact denoisers."""

from __future__ import annotations

import math

import pytest
import torch
from parity.golden import Case, cases, tensors
from support.drive import drive, no_noise
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, f64

from guidon.guidance import CFG, Guided, Moment
from guidon.noise import EDM, Level
from guidon.noise.grids import Grid, Karras, LogSNR
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.solvers import DPMpp2M, DPMpp2SAncestral, Euler, EulerAncestral, Heun, Solver

SET = "sampling/a_kdiffusion"


def solver_of(case: Case) -> Solver:
    """Return guidon's solver for a case, or skip."""
    name, args = case.params["sampler"], dict(case.params["args"])
    ancestral = {"sample_euler_ancestral": EulerAncestral, "sample_dpmpp_2s_ancestral": DPMpp2SAncestral}
    known: dict[str, Solver] = {"sample_euler": Euler(), "sample_heun": Heun(), "sample_dpmpp_2m": DPMpp2M()}
    if name in ancestral:
        args.pop("s_noise", 1.0)  # the noise is handed out scaled
        solver: Solver | None = ancestral[name](eta=args.pop("eta", 1.0))
    else:
        solver = known.get(name)
    if solver is None:
        pytest.skip(f"no solver {name}")
    if args:
        pytest.skip(f"{name} with {', '.join(sorted(args))}: no churn")
    return solver


def grid_of(params: dict[str, object]) -> Grid | None:
    """Return guidon's grid for a schedule, or None."""
    kind = params.get("function", params.get("kind"))
    ends = {"sigma_min": params.get("sigma_min"), "sigma_max": params.get("sigma_max")}
    if kind == "karras":
        return Karras(rho=params.get("rho", 7.0), **ends)  # type: ignore[arg-type]
    if kind == "exponential" or (kind == "polyexponential" and params.get("rho", 1.0) == 1.0):
        return LogSNR(**ends)  # type: ignore[arg-type]
    return None


@pytest.mark.parametrize("case", cases(SET, kind="schedule"))
def test_noise_levels(case: Case) -> None:
    grid = grid_of(case.params)
    if grid is None:
        pytest.skip(f"no grid like k-diffusion's {case.params['function']}")
    levels = grid.levels(EDM(), case.params["n"])
    agree(f64([level.sigma for level in levels]), case["sigmas"], "noise levels", rtol=1e-12)


@pytest.mark.parametrize("case", cases(SET, kind="sampler"))
def test_sampler(case: Case) -> None:
    solver, schedule, sigmas = solver_of(case), case.params["schedule"], case["sigmas"].tolist()
    grid = grid_of(schedule)
    if grid is not None:
        made = [level.noise_level for level in grid.levels(EDM(), schedule["n"])]
        made = made[:-1] if schedule.get("drop_zero") else made
        agree(f64(made), case["sigmas"], "noise levels", rtol=1e-12)
    network = Exact(Mixture.read(tensors(SET), f"mixture/{case.params['mixture']}"))
    scale = case.params["args"].get("s_noise", 1.0)
    noise = RecordedNoise(list(scale * case["noise"])) if case.has("noise") else no_noise
    levels = [EDM().level(s) if s else EDM().clean for s in sigmas]
    run = Trajectory(case["x_init"], levels, solver, CFG(case.params["scale"]), told(case.params["labels"]), noise)
    engine, asked, entered = Engine({"main": network}), [], {}
    engine.join(run)
    while not run.done:
        query = run.queries[0]
        asked.append(query.level.sigma)
        entered.setdefault(run.index, query.x)
        engine.round()
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
