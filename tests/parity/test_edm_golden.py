"""EDM's samplers, EDM2's with a guiding network, and guidance intervals, on exact denoisers."""

from __future__ import annotations

import pytest
import torch
from parity.golden import Case, cases, tensors
from support.drive import no_noise
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, f64

from guidon.guidance import CFG, GIVEN, Autoguidance, Interval, Moment, Rule
from guidon.noise import EDM, Level
from guidon.noise.grids import Karras
from guidon.sampling import Engine, Trajectory
from guidon.sampling.trajectory import Event
from guidon.solvers import Euler, Heun, Solver

SET = "sampling/b_edm"


def solver_of(case: Case) -> Solver:
    """Return guidon's solver for a case, or skip."""
    args = case.params["args"]
    if args.get("S_churn", 0) > 0:
        pytest.skip("no churn")
    if args.get("schedule", "linear") != "linear" or args.get("scaling", "none") != "none":
        pytest.skip(f"no steps in the time of schedule {args['schedule']!r}: guidon's steps are in noise level")
    if args.get("alpha", 1.0) != 1.0:
        pytest.skip("no second-order step but Heun's")
    return {"euler": Euler(), "heun": Heun()}[args.get("solver", "heun")]


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
    """Return the grid; the ablation's other discretisations as they are stored."""
    args = case.params["args"]
    if args.get("discretization", "edm") != "edm":
        asked = dict.fromkeys(
            float(f"{sigma:.12g}") for sigma in case["call_sigma"].tolist()
        )  # one level is asked twice
        return [*(EDM().level(sigma) for sigma in asked), EDM().clean]
    low, high = args.get("sigma_min", 0.002), args.get("sigma_max", 80.0)
    low, high = max(low, case.params.get("net_sigma_min", 0)), min(high, case.params.get("net_sigma_max", 1e9))
    return list(Karras(args.get("rho", 7.0), low, high).levels(EDM(), args["num_steps"]))


@pytest.mark.parametrize("case", cases(SET))
def test_sampler(case: Case) -> None:
    solver, rule, levels = solver_of(case), rule_of(case), levels_of(case)
    mixtures = {"main": case.params["mixture"], "weak": case.params.get("weak_mixture", case.params["mixture"])}
    networks = {name: Exact(Mixture.read(tensors(SET), f"mixture/{m}")) for name, m in mixtures.items()}
    heard: list[Event] = []
    x, contexts = case["latents"] * levels[0].sigma, told(case.params["labels"])
    run = Trajectory(x, levels, solver, rule, contexts, no_noise, look_on=heard.append)
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
