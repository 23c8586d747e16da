"""Tables, respacing and diffusion arithmetic of openai/guided-diffusion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from parity.golden import rows, settings, tensors, tolerance
from support.numbers import agree
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG, GIVEN, Moment, Threshold
from guidon.noise import Level, Prediction, VPTable
from guidon.noise.grids import Respaced, respaced_indices
from guidon.noise.posterior import Steps, posterior_mean, posterior_variances

SCHEDULES = {"linear": "linear", "cosine": "cosine", "squaredcos_cap_v2": "cosine"}
LEARNED = ("learned_range",)
FIXED = {"fixed_small": "small", "fixed_large": "large"}


def table(told: dict[str, Any], **options: Any) -> VPTable:
    """Return the process of a case."""
    if told["schedule"] not in SCHEDULES:
        pytest.skip(f"no table {told['schedule']!r}")
    return VPTable(SCHEDULES[told["schedule"]], told["num_timesteps"], **options)


def chain(told: dict[str, Any], process: VPTable) -> list[Level]:
    """Return the levels of a respaced chain, the clean image first, then index 0, 1, ..."""
    spec = told.get("respacing") or ""
    if isinstance(spec, list):
        spec = ",".join(map(str, spec))
    steps = process.steps if not spec else 1
    return list(reversed(Respaced(spec).levels(process, steps)))


@pytest.mark.parametrize("told", rows("schedules"))
def test_schedule(told: dict[str, Any]) -> None:
    stored, process = tensors("schedules"), table(told)
    levels = chain(told, process)
    if "timestep_map" in told:
        assert [level.t for level in levels[1:]] == told["timestep_map"]
    kept = process.alphas_cumprod[[int(level.t) for level in levels[1:]]]
    steps = [(levels[i + 1], levels[i]) for i in range(len(kept))]
    small, forward = np.array([posterior_variances(*pair) for pair in steps]).T
    of_x0, of_x = np.array([posterior_mean(*pair) for pair in steps]).T
    got = {
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": np.append(1.0, kept[:-1]),
        "alphas_cumprod_next": np.append(kept[1:], 0.0),
        "sqrt_recip_alphas_cumprod": np.array([1 / level.alpha for level in levels[1:]]),
        "sqrt_recipm1_alphas_cumprod": np.array([level.noise_level for level in levels[1:]]),
        "betas": process.betas if len(kept) == process.steps else forward,
        "posterior_variance": small,
        # the original's log of a variance that is 0 at index 0 repeats index 1
        "posterior_log_variance_clipped": np.log(np.append(small[1], small[1:])),
        "posterior_mean_coef1": of_x0,
        "posterior_mean_coef2": of_x,
    }
    # the last four are differences of numbers near 1: a table's 1e-16 is 1e-12 of the smallest beta
    loose = {
        "betas",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    }
    # and after respacing the original multiplies its tables up again from recomputed betas
    exact = len(kept) == process.steps
    for name, value in got.items():
        if f"{told['key']}/{name}" in stored:
            want = stored[f"{told['key']}/{name}"]
            agree(torch.from_numpy(value), want, name, rtol=1e-12 if exact and name not in loose else 1e-11, atol=1e-15)
    if exact and f"{told['key']}/betas" in stored:
        agree(torch.from_numpy(forward), stored[f"{told['key']}/betas"], "variance of the forward step", rtol=1e-11)


@pytest.mark.parametrize("told", rows("respacing"))
def test_respacing(told: dict[str, Any]) -> None:
    assert respaced_indices(told["num_timesteps"], told["respacing"]) == told["kept"]


@pytest.mark.parametrize("told", rows("respacing", "errors"))
def test_respacing_refuses(told: dict[str, Any]) -> None:
    with pytest.raises(BadValue):
        respaced_indices(told["num_timesteps"], told["respacing"])


@pytest.mark.parametrize("told", rows("diffusion_math", "model_timesteps"))
def test_time_shown_to_the_network(told: dict[str, Any]) -> None:
    process = table(told, rescale_clock=told["rescale_timesteps"])
    levels = chain(told, process)[1:]
    assert [process.clock(levels[i].t) for i in told["t"]] == told["t_shown_to_model"]


def steps_of(told: dict[str, Any]) -> Steps:
    """Return the steps of a respaced chain, index 0 first."""
    steps = Steps.of(chain(told, table(told))[::-1])
    return steps.take(torch.arange(len(steps.small)).flip(0))


@pytest.mark.parametrize("told", rows("diffusion_math"))
def test_forward_and_posterior(told: dict[str, Any]) -> None:
    prefix = told["key"] + "/"
    stored = {k.removeprefix(prefix): v.double() for k, v in tensors("diffusion_math").items() if k.startswith(prefix)}
    steps = steps_of(told).take(tensors("diffusion_math")[f"{told['key']}/t"])
    at, x0, x_t = steps.here, stored["x_start"], stored["x_t"]
    wide = at.like(x0)
    of_x0, of_x = (column(part) for part in posterior_mean(at, steps.there))
    small, _ = posterior_variances(at, steps.there)
    got = {
        "x_t": wide.alpha * x0 + wide.sigma * stored["noise"],
        "q_mean": wide.alpha * x0,
        "q_variance": column(at.sigma**2),
        "q_log_variance": column(2 * at.sigma.log()),
        "posterior_mean": x0 * of_x0 + x_t * of_x,
        "posterior_variance": column(small),
        "posterior_log_variance_clipped": column(steps.small.log()),
        "xstart_from_eps": Prediction.from_eps(x_t, stored["model_output"][:, :3], at).x0,
        "eps_from_xstart": Prediction.from_x0(x_t, x0, at).eps,
    }
    for name, value in got.items():
        atol = tolerance("diffusion_math", f"{told['key']}/{name}")
        agree(value, stored[name], name, rtol=1e-5, atol=atol)


MEAN_VARIANCE = [
    pytest.param(told, case, id=case["key"])
    for told in settings("diffusion_math").get("cases", [])
    for case in told["p_mean_variance"]
]


@pytest.mark.parametrize(("told", "case"), MEAN_VARIANCE)
def test_mean_and_variance(told: dict[str, Any], case: dict[str, Any]) -> None:
    reads = {"epsilon": Prediction.from_eps, "start_x": Prediction.from_x0}
    if case["mean_type"] not in reads or case["var_type"] not in (*LEARNED, *FIXED):
        pytest.skip(f"no output {case['mean_type']} with variance {case['var_type']}")
    stored, key = tensors("diffusion_math"), told["key"]
    x, raw, index = stored[f"{key}/x_t"].double(), stored[f"{key}/model_output"].double(), stored[f"{key}/t"]
    steps = steps_of(told).take(index)
    believed = reads[case["mean_type"]](x, raw[:, :3], steps.here)
    rule = CFG(1.0) | Threshold() if case["clip_denoised"] else CFG(1.0)
    x0 = rule.combine({GIVEN: believed}, Moment(steps.here, steps.there), rule.init())[0].x0
    of_x0, of_x = (column(part) for part in posterior_mean(steps.here, steps.there))
    if case["var_type"] in LEARNED:
        logs = steps.log_variance("learned", (raw[:, 3:] + 1) / 2, x)
    else:
        logs = steps.log_variance(FIXED[case["var_type"]], None, x)
    # in the last step, which has no noise, the original's small variance is 0 beside a logarithm that is not
    small, _ = posterior_variances(steps.here, steps.there)
    variance = column(small) if case["var_type"] == "fixed_small" else logs.exp()
    got = {"pred_xstart": x0, "mean": x0 * of_x0 + x * of_x, "variance": variance, "log_variance": logs}
    for name, value in got.items():
        atol = tolerance("diffusion_math", f"{case['key']}/{name}")
        agree(value, stored[f"{case['key']}/{name}"], name, rtol=1e-5, atol=atol)


def column(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)
