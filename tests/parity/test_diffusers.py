"""Schedulers of diffusers on exact denoisers; their conventions for levels, where they are not guidon's grids, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from parity.golden import Case, cases, settings, tensors
from support.drive import drive, guided_by, no_noise
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, f64
from torch import Tensor

from guidon.guidance import CFG, DynamicThreshold, Guided, Moment, Rule, Threshold
from guidon.noise import EDM, EpsOutput, Flow, Level, Output, Prediction, VelocityOutput, VOutput, VPTable, X0Output
from guidon.noise.grids import Karras, Leading, Linspace, LogSNR, Trailing
from guidon.sampling import RecordedNoise
from guidon.solvers import DDIM, DDPM, DPMpp2M, Euler, EulerAncestral, Heun, Solver
from guidon.solvers.ancestral import log_variance, posterior_variances

SET = "sampling/c_diffusers_schedulers"
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
OUTPUTS: dict[str, Output] = {
    "epsilon": EpsOutput(),
    "sample": X0Output(),
    "v_prediction": VOutput(),
    "flow_prediction": VelocityOutput(),
    "flow": VelocityOutput(),
}
ODD = ("use_beta_sigmas", "stochastic_sampling", "invert_sigmas")


def table(config: dict[str, Any]) -> VPTable:
    """Return the process of a scheduler's configuration."""
    schedule = config.get("beta_schedule", "linear")
    if schedule not in SCHEDULES:
        pytest.skip(f"no table {schedule!r}")
    ends = (None, None)
    if schedule != "squaredcos_cap_v2":
        ends = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    steps = config.get("num_train_timesteps", 1000)
    return VPTable(SCHEDULES[schedule], steps, *ends, zero_snr=config.get("rescale_betas_zero_snr", False))


@pytest.mark.parametrize("case", cases(SET, kind="beta_table"))
def test_betas(case: Case) -> None:
    process = table(case.params)
    agree(torch.from_numpy(process.alphas_cumprod), case["alphas_cumprod"], "alphas_cumprod", rtol=1e-11, atol=1e-14)
    agree(torch.from_numpy(process.betas), case["betas"], "betas", rtol=1e-11, atol=1e-14)


def timesteps(scheduler: str, config: dict[str, Any], n: int) -> list[float]:
    """Return a scheduler's timesteps: guidon's grids, but that the DPM family leaves out the one nearest to the image."""
    process, spacing, offset = table(config), config.get("timestep_spacing"), config.get("steps_offset", 0)
    size = process.steps
    dpm = scheduler.startswith(("DPMSolver", "UniPC", "DEIS"))
    defaults = {"DDIM": "leading", "DDPM": "leading"}
    spacing = spacing or defaults.get(scheduler[:4], "linspace")
    if dpm and config.get("lambda_min_clipped", -math.inf) > -math.inf:
        log_snr = -np.log(np.array([process.noise_level(float(t)) for t in range(size)]))
        size -= int(np.searchsorted(log_snr[::-1], config["lambda_min_clipped"]))
        assert size < process.steps, "nothing was cut off"
    if dpm and spacing == "linspace":
        return np.linspace(0, size - 1, n + 1).round()[::-1][:-1].tolist()
    if dpm and spacing == "leading":
        return [float(i * (size // (n + 1)) + offset) for i in range(n, 0, -1)]
    assert size == process.steps or spacing == "trailing"
    if spacing == "linspace":
        times = Linspace().times(process, n)
        return np.round(times).tolist() if scheduler.startswith("DD") else times
    grid = Trailing() if spacing == "trailing" else Leading(offset)
    return grid.times(process, n)


ROWS = [
    pytest.param(r, id=f"{r['scheduler']}-{r['timestep_spacing']}-{r['steps_offset']}-{r['n']}")
    for r in settings(SET).get("timestep_tables", [])
]


@pytest.mark.parametrize("row", ROWS)
def test_timesteps(row: dict[str, Any]) -> None:
    got = timesteps(row["scheduler"], {**row.get("config", {}), **row}, row["n"])
    if row["scheduler"].startswith("Heun"):  # each but the first stands for both evaluations of a step
        got = [got[0], *(t for t in got[1:] for _ in range(2))]
    agree(f64(got), f64(row["timesteps"]), "timesteps", rtol=1e-12)


@dataclass
class Plan:
    """What a scheduler does, in guidon's terms."""

    solver: Solver
    steps: list[Moment]
    forget_before: set[int] = field(default_factory=set)
    ends_noisy: bool = False


def pairs(here: Sequence[Level], there: Sequence[Level]) -> list[Moment]:
    return [Moment(a, b, i, len(here)) for i, (a, b) in enumerate(zip(here, there, strict=True))]


def plan(case: Case) -> Plan:
    """Return the plan of a case, or skip."""
    params, config = case.params, case.params["config"]
    scheduler, n = params["scheduler"].removesuffix("Scheduler"), params["num_inference_steps"]
    for key in ODD:
        if config.get(key):
            pytest.skip(f"{params['scheduler']} with {key}")
    if params["prediction_type"] not in OUTPUTS:
        pytest.skip(f"no output {params['prediction_type']}")
    if scheduler in ("DDPM", "DDIM"):
        return table_plan(case, scheduler, config, n)
    if scheduler == "FlowMatchEulerDiscrete":
        return flow_plan(case)
    if scheduler in ("EulerDiscrete", "HeunDiscrete", "EulerAncestralDiscrete"):
        return exploding_plan(case, scheduler, config, n)
    if scheduler == "DPMSolverMultistep":
        return dpm_plan(case, config, n)
    pytest.skip(f"no solver like {params['scheduler']}")


def table_plan(case: Case, scheduler: str, config: dict[str, Any], n: int) -> Plan:
    """DDPM goes to the next entry; DDIM always N // n down, and after the last to the image or to the first entry."""
    process, given = table(config), case.params["set_timesteps_args"].get("timesteps")
    times = [float(t) for t in given] if given else timesteps(scheduler, config, n)
    here = [process.level(t) for t in times]
    if scheduler == "DDIM":
        down = process.steps // (n or len(times))
        last = process.clean if config.get("set_alpha_to_one", True) else process.level(0.0)
        there = [process.level(t - down) if t >= down else last for t in times]
        return Plan(DDIM(case.params["step_args"].get("eta", 0.0)), pairs(here, there))
    variance = config.get("variance_type", "fixed_small")
    known = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
    if variance not in known:
        pytest.skip(f"no variance {variance}")
    # a list that does not end at 0 draws noise in its last step too
    return Plan(DDPM(known[variance]), pairs(here, [*here[1:], process.clean]), ends_noisy=times[-1] > 0)


def exploding_plan(case: Case, scheduler: str, config: dict[str, Any], n: int) -> Plan:
    """The Euler family keeps z = x / alpha, so it walks noise levels."""
    solvers: dict[str, Solver] = {
        "EulerDiscrete": Euler(),
        "HeunDiscrete": Heun(),
        "EulerAncestralDiscrete": EulerAncestral(),
    }
    args = {k: v for k, v in case.params["step_args"].items() if v}
    if args:
        pytest.skip(f"{case.params['scheduler']} with {', '.join(sorted(args))}: no churn")
    if config.get("interpolation_type", "linear") != "linear":
        pytest.skip("noise levels interpolated other than linearly")
    process = table(config)
    taus = [finite(process.noise_level(t)) for t in timesteps(scheduler, config, n)]
    taus = rearranged(config, taus[-1], taus[0], n) or taus
    last = (
        EDM().level(finite(process.noise_level(0.0))) if config.get("final_sigmas_type") == "sigma_min" else EDM().clean
    )
    levels = [*(EDM().level(tau) for tau in taus), last]
    return Plan(solvers[scheduler], pairs(levels[:-1], levels[1:]))


def flow_plan(case: Case) -> Plan:
    """Flow walks the listed times; without a shift they are a grid of guidon's."""
    sigmas, config = case["sigmas"].tolist(), case.params["config"]
    if config == {"shift": 1.0} and case.params["num_inference_steps"]:
        own = [level.sigma for level in Linspace().levels(Flow(), case.params["num_inference_steps"])]
        agree(f64(own), case["sigmas"], "noise levels", rtol=1e-12)
    levels = [Flow().level(s) for s in sigmas]
    return Plan(Euler(), pairs(levels[:-1], levels[1:]))


def dpm_plan(case: Case, config: dict[str, Any], n: int) -> Plan:
    order, kind = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    solvers: dict[tuple[str, int], Solver] = {
        ("dpmsolver++", 2): DPMpp2M(),
        ("dpmsolver++", 1): Euler(),
        ("dpmsolver", 1): Euler(),
        ("sde-dpmsolver++", 1): DDPM("small"),
    }
    if (kind, order) not in solvers:
        pytest.skip(f"no solver {kind} of order {order}")
    if order == 2 and config.get("solver_type", "midpoint") != "midpoint":
        pytest.skip(f"{kind} with solver_type {config['solver_type']}")
    if config.get("use_flow_sigmas"):
        levels = [Flow().level(s) for s in case["sigmas"].tolist()]
    else:
        process = table(config)
        ends = (finite(process.noise_level(t)) for t in (0.0, process.t_max))
        taus = rearranged(config, *ends, n) or [
            finite(process.noise_level(t)) for t in timesteps("DPMSolver", config, n)
        ]
        last = process.clean if config.get("final_sigmas_type", "zero") == "zero" else process.level(0.0)
        levels = [*(preserving(tau) for tau in taus), last]
    first_order_end = config.get("euler_at_final") or (config.get("lower_order_final", True) and n < 15)
    return Plan(solvers[kind, order], pairs(levels[:-1], levels[1:]), {n - 1} if first_order_end else set())


def rearranged(config: dict[str, Any], low: float, high: float, n: int) -> list[float] | None:
    """Return noise levels that replace those of the timesteps, or None."""
    if config.get("use_karras_sigmas"):
        levels = Karras(7.0, low, high).levels(EDM(), n)
    elif config.get("use_exponential_sigmas") or config.get("use_lu_lambdas"):
        levels = LogSNR(low, high).levels(EDM(), n)
    else:
        return None
    return [level.sigma for level in levels[:-1]]


def finite(tau: float) -> float:
    """Return a noise level; where no signal is left the original puts alpha^2 = 2^-24 instead."""
    return math.sqrt(2**24 - 1) if math.isinf(tau) else tau


def preserving(tau: float) -> Level:
    """Return the variance-preserving level of a noise level."""
    alpha = 1 / math.hypot(1, tau)
    return Level(tau, alpha, tau * alpha)


class Learned(Exact):
    """Adds the variance channel of the fixtures, tanh(0.7 x + 0.3)."""

    def __call__(self, x: Tensor, level: Level, context: Any) -> Prediction:
        told = super().__call__(x, level, context)
        return Prediction(told.x, level, told.x0, told.eps, (torch.tanh(0.7 * x + 0.3) + 1) / 2)


@pytest.mark.parametrize("case", cases(SET, kind="scheduler_trajectory"))
def test_trajectory(case: Case) -> None:
    planned, params = plan(case), case.params
    heun = isinstance(planned.solver, Heun)
    if case.has("sigmas"):
        levels = f64([at.here.noise_level for at in planned.steps] + [planned.steps[-1].there.noise_level])
        if params["state_space"].startswith("flow"):
            levels = f64([at.here.sigma for at in planned.steps] + [planned.steps[-1].there.sigma])
        want = case["sigmas"][[0, *range(1, len(case["sigmas"]), 2)]] if heun else case["sigmas"]
        agree(levels, want, "noise levels", rtol=1e-9)
    mixture, output = Mixture.read(tensors(SET), f"mixture/{params['mixture']}"), OUTPUTS[params["prediction_type"]]
    network = (Learned if planned.solver == DDPM("learned") else Exact)(mixture, output)
    rule, contexts = CFG(params["scale"]), told(params["labels"])
    unclipped, believe = guided_by(rule, network, contexts), guided_by(ranged(rule, case), network, contexts)
    noise = RecordedNoise(list(case["noise"])) if case.has("noise") else no_noise
    heard: list[Guided] = []
    clean: list[Tensor] = []  # as the fixtures have them, before any clipping

    def listen(x: Tensor, at: Moment) -> Guided:
        clean.append(unclipped(x, at).x0)
        heard.append(believe(x, at))
        return heard[-1]

    states, asked = drive(planned.solver, planned.steps, case["x"][0], listen, noise, planned.forget_before)
    if planned.ends_noisy:
        states[-1] = states[-1] + last_noise(planned, case, heard[-1])
    if case.has("x0"):
        agree(torch.stack(clean), case["x0"], "clean images", rtol=1e-8, atol=1e-9)
    agree(torch.stack([ask.x for ask in asked]), case["x"][:-1], "states", rtol=1e-8, atol=1e-9)
    agree(states[-1], case["x"][-1], "result", rtol=1e-8, atol=1e-9)


def ranged(rule: Rule, case: Case) -> Rule:
    """Return a rule that keeps the clean image in range as the scheduler does; DDIM keeps the noise unless told otherwise."""
    config, name = case.params["config"], case.params["scheduler"]
    rederive = not name.startswith("DDIM") or case.params["step_args"].get("use_clipped_model_output", False)
    if config.get("thresholding"):
        share, most = config.get("dynamic_thresholding_ratio", 0.995), config.get("sample_max_value", 1.0)
        return rule | DynamicThreshold(share, most, rederive)
    if name.startswith(("DDIM", "DDPM")) and config.get("clip_sample", True):
        reach = config.get("clip_sample_range", 1.0)
        return rule | Threshold(-reach, reach, rederive)
    return rule


def last_noise(planned: Plan, case: Case, guided: Guided) -> Tensor:
    """Return the noise that DDPM's last step adds in diffusers when it starts above index 0."""
    small, large = posterior_variances(planned.steps[-1])
    small = max(small, 1e-20)
    if planned.solver == DDPM("learned"):
        assert guided.variance_fraction is not None
        return case["noise"][-1] * torch.exp(0.5 * log_variance(guided.variance_fraction, small, large))
    return case["noise"][-1] * math.sqrt(small if planned.solver == DDPM("small") else large)
