"""Tables, respacing and diffusion arithmetic of openai/guided-diffusion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from parity.golden import rows, settings, tensors, tolerance
from support.numbers import agree
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import Moment
from guidon.noise import Level, Prediction, VPTable
from guidon.noise.grids import Respaced, respaced_indices
from guidon.solvers.ancestral import log_variance, posterior_mean, posterior_variances

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
    steps = [Moment(levels[i + 1], levels[i]) for i in range(len(kept))]
    small, forward = np.array([posterior_variances(at) for at in steps]).T
    of_x0, of_x = np.array([posterior_mean(at) for at in steps]).T
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


@pytest.mark.parametrize("told", rows("diffusion_math"))
def test_forward_and_posterior(told: dict[str, Any]) -> None:
    prefix = told["key"] + "/"
    stored = {k.removeprefix(prefix): v.double() for k, v in tensors("diffusion_math").items() if k.startswith(prefix)}
    levels = chain(told, table(told))
    index = tensors("diffusion_math")[f"{told['key']}/t"].tolist()
    t = torch.tensor([levels[i + 1].t for i in index], dtype=torch.float64)
    at = table(told).level(t)
    wide, x0, x_t = at.like(stored["x_start"]), stored["x_start"], stored["x_t"]
    steps = [Moment(levels[i + 1], levels[i]) for i in index]
    mean = [x0[b] * posterior_mean(m)[0] + x_t[b] * posterior_mean(m)[1] for b, m in enumerate(steps)]
    small = [posterior_variances(m)[0] for m in steps]
    after_first = posterior_variances(Moment(levels[2], levels[1]))[0]
    got = {
        "x_t": wide.alpha * x0 + wide.sigma * stored["noise"],
        "q_mean": wide.alpha * x0,
        "q_variance": column(at.sigma**2),
        "q_log_variance": column(2 * at.sigma.log()),
        "posterior_mean": torch.stack(mean),
        "posterior_variance": column(small),
        "posterior_log_variance_clipped": column([math.log(v or after_first) for v in small]),
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
    if case["clip_denoised"]:
        pytest.skip("clip_denoised: no rule that clips the clean image")
    reads = {"epsilon": Prediction.from_eps, "start_x": Prediction.from_x0}
    if case["mean_type"] not in reads or case["var_type"] not in (*LEARNED, *FIXED):
        pytest.skip(f"no output {case['mean_type']} with variance {case['var_type']}")
    stored, levels = tensors("diffusion_math"), chain(told, table(told))
    x_t, raw = stored[f"{told['key']}/x_t"].double(), stored[f"{told['key']}/model_output"].double()
    for b, i in enumerate(stored[f"{told['key']}/t"].tolist()):
        x, at = x_t[b : b + 1], Moment(levels[i + 1], levels[i])
        x0 = reads[case["mean_type"]](x, raw[b : b + 1, :3], at.here).x0
        small, large = posterior_variances(at)
        of_x0, of_x = posterior_mean(at)
        # the last step has no noise; the original still names variances there: those of index 1 stand in for the smallest
        first = posterior_variances(Moment(levels[2], levels[1]))[0] if i == 0 else small
        if case["var_type"] in LEARNED:
            logs = log_variance((raw[b : b + 1, 3:] + 1) / 2, first, large)
            variance = logs.exp()
        else:
            large = first if i == 0 else large
            value, log_of = (small, first) if FIXED[case["var_type"]] == "small" else (large, large)
            variance, logs = (torch.full((1, 1, 1, 1), v).double() for v in (value, math.log(log_of)))
        for name, got in {
            "pred_xstart": x0,
            "mean": x0 * of_x0 + x * of_x,
            "variance": variance,
            "log_variance": logs,
        }.items():
            want = stored[f"{case['key']}/{name}"][b : b + 1]
            agree(got, want, f"{name} at {i}", rtol=1e-5, atol=tolerance("diffusion_math", f"{case['key']}/{name}"))


def column(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)
