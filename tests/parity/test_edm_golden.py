"""EDM's samplers, EDM2's with a guiding network, and guidance intervals, on exact denoisers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from parity.golden import Case, cases, tensors
from support.drive import no_noise
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, f64

from guidon.guidance import CFG, GIVEN, Autoguidance, Interval, Moment, Rule
from guidon.noise import EDM, Level, Process, VPTable
from guidon.noise.grids import Exponential, Karras
from guidon.noise.sde import VE, VP
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.sampling.trajectory import Event
from guidon.solvers import Euler, Heun, Solver
from guidon.solvers.churn import Churn
from guidon.solvers.solver import Noise

SET = "sampling/b_edm"


def solver_of(case: Case) -> Solver:
    """Return guidon's solver for a case, or skip."""
    args = case.params["args"]
    schedule, scaling = args.get("schedule", "linear"), args.get("scaling", "none")
    clocks: dict[tuple[str, str], Process | None] = {
        ("linear", "none"): None,
        ("ve", "none"): VE(),
        ("vp", "vp"): vp(args),
    }
    if (schedule, scaling) not in clocks:
        pytest.skip(f"no process has the times of schedule {schedule!r} and the scale of {scaling!r}")
    clock = clocks[schedule, scaling]
    solver = Euler(clock) if args.get("solver") == "euler" else Heun(args.get("alpha", 1.0), clock)
    if not args.get("S_churn"):
        return solver
    return Churn(solver, args["S_churn"], args.get("S_min", 0.0), args.get("S_max", math.inf), args.get("S_noise", 1.0))


def vp(args: dict[str, Any]) -> VP:
    """Return the variance-preserving process that the ablation fits to the ends of its range."""
    least = args.get("epsilon_s", 1e-3)
    low, high = ends(args)
    growth = 2 * (math.log1p(low**2) / least - math.log1p(high**2)) / (least - 1)
    return VP(beta_min=math.log1p(high**2) - growth / 2, beta_d=growth, t_min=least)


def ends(args: dict[str, Any]) -> tuple[float, float]:
    """Return the range of noise levels of a case; the ablation's depends on the discretisation where nothing is said."""
    usual = VP(t_min=args.get("epsilon_s", 1e-3))
    known = {
        "vp": (usual.noise_level(usual.t_min), usual.noise_level(1.0)),
        "ve": (0.02, 100.0),
        "iddpm": (0.002, 81.0),
        "edm": (0.002, 80.0),
    }
    low, high = known[args.get("discretization", "edm")]
    given = args.get("sigma_min"), args.get("sigma_max")
    return (low if given[0] is None else given[0]), (high if given[1] is None else given[1])


def rule_of(case: Case) -> Rule:
    params = case.params
    match params["kind"]:
        case "edm_sampler" | "ablation_sampler":
            return CFG(params["scale"])
        case "edm2_edm_sampler":
            weight = params["args"]["guidance"]
            return Autoguidance(weight) if "weak_mixture" in params else CFG(weight)
        case "guidance_interval_edm_sampler":
            first, last = params["guidance_interval"] or (0, 10**9)  # both ends count; the whole step decides

            def weight_of(at: Moment) -> float:
                return params["G"] if first <= at.index <= last else 1.0

            return CFG(weight_of)
        case "sigma_interval_via_edm2_edm_sampler":
            return CFG(params["G"], when=Interval(params["sigma_lo"], params["sigma_hi"]))
    pytest.fail(f"an unknown kind {params['kind']}")


def levels_of(case: Case) -> list[Level]:
    args = case.params["args"]
    low, high = ends(args)
    low, high = max(low, case.params.get("net_sigma_min", 0)), min(high, case.params.get("net_sigma_max", 1e9))
    limited = {**args, "sigma_min": low, "sigma_max": high}
    steps, kind = args["num_steps"], args.get("discretization", "edm")
    if kind == "iddpm":  # the levels of a table, as many as asked for of those in the range
        table = VPTable("cosine", args.get("M", 1000))
        kept = [tau for tau in (table.noise_level(float(t)) for t in range(table.steps)) if low <= tau <= high][::-1]
        taus = [kept[round((len(kept) - 1) / (steps - 1) * i)] for i in range(steps)]
        return [*(EDM().level(tau) for tau in taus), EDM().clean]
    if kind == "vp":
        times = torch.linspace(1, args.get("epsilon_s", 1e-3), steps, dtype=torch.float64)
        return [*(EDM().level(vp(limited).noise_level(t)) for t in times.tolist()), EDM().clean]
    grid = Exponential(low, high) if kind == "ve" else Karras(args.get("rho", 7.0), low, high)
    return list(grid.levels(EDM(), steps))


@pytest.mark.parametrize("case", cases(SET))
def test_sampler(case: Case) -> None:
    solver, rule, levels = solver_of(case), rule_of(case), levels_of(case)
    mixtures = {"main": case.params["mixture"], "weak": case.params.get("weak_mixture", case.params["mixture"])}
    networks = {name: Exact(Mixture.read(tensors(SET), f"mixture/{m}")) for name, m in mixtures.items()}
    heard: list[Event] = []
    x, contexts = case["latents"] * levels[0].sigma, told(case.params["labels"])
    noise: Noise = no_noise
    if case.has("noise"):  # drawn in every step, or, in EDM2, only where the step uses it
        each = len(case["noise"]) == len(levels) - 1
        noise = (lambda: case["noise"][run.index]) if each else RecordedNoise(list(case["noise"]))
    run = Trajectory(x, levels, solver, rule, contexts, noise, look_on=heard.append)
    Engine(networks).run([run])
    agree(run.x, case["x_final"], "result", rtol=1e-8, atol=1e-9)
    if case.has("call_sigma"):
        states = torch.stack([next(iter(event.predictions.values())).x for event in heard])
        agree(f64([event.at.noise_level for event in heard]), case["call_sigma"], "levels asked", rtol=1e-11)
        agree(states, case["call_x"], "states", rtol=1e-8, atol=1e-9)
        answers = {"call_denoised": [event.guided.x0 for event in heard]}
        if case.has("call_guide_denoised"):  # there each network's own answer is stored
            away = rule.away  # type: ignore[attr-defined]
            answers = {
                key: [event.predictions[branch].x0 for event in heard]
                for key, branch in (("call_denoised", GIVEN), ("call_guide_denoised", away))
            }
        for key, got in answers.items():
            agree(torch.stack(got), case[key], key, rtol=1e-8, atol=1e-9)
    if case.has("guided_call_sigmas"):
        asked = [event.at.noise_level for event in heard if len(event.predictions) == 2]
        agree(f64(asked), case["guided_call_sigmas"], "guided levels", rtol=1e-11)
