"""Schedulers of diffusers on exact denoisers: tables, timesteps, and every state of every run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from parity.diffusers_plans import Plan, indices, output_of, plan, table, unknown
from parity.golden import Case, cases, settings, tensors
from support.drive import drive, guided_by, no_noise
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, f64
from torch import Tensor

from guidon.guidance import CFG, DynamicThreshold, Guided, Moment, Rule, Threshold
from guidon.noise import EpsOutput, Level, Prediction
from guidon.noise.posterior import log_variance, posterior_variances
from guidon.sampling import RecordedNoise
from guidon.solvers import DDPM, Churn

SET = "sampling/c_diffusers_schedulers"


@pytest.mark.parametrize("case", cases(SET, kind="beta_table"))
def test_betas(case: Case) -> None:
    process = table(case.params)
    agree(torch.from_numpy(process.alphas_cumprod), case["alphas_cumprod"], "alphas_cumprod", rtol=1e-11, atol=1e-14)
    agree(torch.from_numpy(process.betas), case["betas"], "betas", rtol=1e-11, atol=1e-14)


ROWS = [
    pytest.param(r, id=f"{r['scheduler']}-{r['timestep_spacing']}-{r['steps_offset']}-{r['n']}")
    for r in settings(SET).get("timestep_tables", [])
]


@pytest.mark.parametrize("row", ROWS)
def test_timesteps(row: dict[str, Any]) -> None:
    config, name = {**row.get("config", {}), **row}, row["scheduler"].removesuffix("Scheduler")
    got = indices(name, config).times(table(config), row["n"])
    if name == "HeunDiscrete":  # each but the first stands for both evaluations of a step
        got = [got[0], *(t for t in got[1:] for _ in range(2))]
    agree(f64(got), f64(row["timesteps"]), "timesteps", rtol=1e-12)


class Learned(Exact):
    """Adds the variance channel of the fixtures, tanh(0.7 x + 0.3)."""

    def __call__(self, x: Tensor, level: Level, context: Any) -> Prediction:
        told = super().__call__(x, level, context)
        return Prediction(told.x, level, told.x0, told.eps, (torch.tanh(0.7 * x + 0.3) + 1) / 2)


class Last:
    """Hands out noise and remembers what it handed out."""

    def __init__(self, case: Case) -> None:
        self.draw = RecordedNoise(list(case["noise"])) if case.has("noise") else no_noise

    def __call__(self) -> Tensor:
        self.value = self.draw()
        return self.value


@pytest.mark.parametrize("case", cases(SET, kind="scheduler_trajectory"))
def test_trajectory(case: Case) -> None:
    planned, params, noise = plan(case), case.params, Last(case)
    mixture, output = Mixture.read(tensors(SET), f"mixture/{params['mixture']}"), output_of(case)
    network = (Learned if planned.solver == DDPM("learned") else Exact)(mixture, output)
    rule, contexts = CFG(params["scale"]), told(params["labels"])
    entered: list[Tensor] = []  # what the network was asked about
    levels: list[Level] = []
    clean: list[Tensor] = []  # what it believed, before any clipping
    heard: list[Guided] = []

    def listen(x: Tensor, at: Moment) -> Guided:
        level = planned.asked(at)
        shown = x if level is at.here else unchurned(x, at, level)
        entered.append(shown)
        levels.append(level)
        clean.append(guided_by(rule, network, contexts)(shown, replace(at, here=level)).x0)

        def answer(x: Tensor, here: Level, context: Any) -> Prediction:
            """Return the raw answer at the level that was asked, read at that of the state."""
            found = network(shown, level, context)
            return found if level is here else output.read(x, output.target(found.x0, found.eps, level), here)

        heard.append(guided_by(ranged(rule, case), answer, contexts)(x, at))
        return heard[-1]

    def unchurned(x: Tensor, at: Moment, level: Level) -> Tensor:
        if not isinstance(planned.solver, Churn):
            return x
        if not isinstance(output, EpsOutput) and params["scheduler"].startswith("Euler"):
            unknown(params["scheduler"], f"churn and {params['prediction_type']}: read at two levels")
        fresh = math.sqrt(at.here.sigma**2 - level.sigma**2) * planned.solver.noise
        return x - fresh * noise.value

    states, _ = drive(planned.solver, planned.steps, case["x"][0], listen, noise)
    if planned.ends_noisy:
        states[-1] = states[-1] + last_noise(planned, case, heard[-1])
    agree(f64([level.alpha for level in levels]), case["model_alpha"], "alphas asked", rtol=1e-9)
    agree(f64([level.sigma for level in levels]), case["model_sigma"], "sigmas asked", rtol=1e-9)
    if case.has("x0"):
        agree(torch.stack(clean), case["x0"], "clean images", rtol=1e-8, atol=1e-9)
    agree(torch.stack(entered), case["x"][:-1], "states", rtol=1e-8, atol=1e-9)
    agree(states[-1], case["x"][-1], "result", rtol=1e-8, atol=1e-9)


def ranged(rule: Rule, case: Case) -> Rule:
    """Return a rule that keeps the clean image in range as the scheduler does; DDIM keeps the noise unless told otherwise."""
    config, name = case.params["config"], case.params["scheduler"]
    rederive = not name.startswith("DDIM") or case.params["step_args"].get("use_clipped_model_output", False)
    if config.get("thresholding"):
        share, most = config.get("dynamic_thresholding_ratio", 0.995), config.get("sample_max_value", 1.0)
        return rule | DynamicThreshold(share, most, rederive)
    if config.get("clip_sample", name.startswith(("DDIM", "DDPM"))):
        reach = config.get("clip_sample_range", 1.0)
        return rule | Threshold(-reach, reach, rederive)
    return rule


def last_noise(planned: Plan, case: Case, guided: Guided) -> Tensor:
    """Return the noise that DDPM's last step adds in diffusers when it starts above index 0."""
    at = planned.steps[-1]
    small, large = posterior_variances(at.here, at.there)
    small = max(small, 1e-20)
    if planned.solver == DDPM("learned"):
        assert guided.variance_fraction is not None
        return case["noise"][-1] * torch.exp(0.5 * log_variance(guided.variance_fraction, small, large))
    return case["noise"][-1] * math.sqrt(small if planned.solver == DDPM("small") else large)
