"""CFG-Zero*: the authors' rule and that of diffusers, over whole flows.

The authors zero the steps up to and with their ``zero_steps``, diffusers the steps below its ``zero_init_steps``.
"""

from __future__ import annotations

import pytest
import torch
from parity.golden import Case, cases, tensors
from support.drive import drive, guided_by, moments
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, normal
from torch import Tensor

from guidon.guidance import CFG, CFGZero, Guided, Moment, Rule
from guidon.guidance.contrast import Pull
from guidon.noise import Flow, Prediction, VelocityOutput
from guidon.solvers import Euler

SET = "sampling/g_cfg_zero_star"


@pytest.mark.parametrize("case", cases(SET, kind="optimized_scale"))
def test_scale(case: Case) -> None:
    given, away, level = case["v_cond"], case["v_uncond"], Flow().level(0.7)
    x = normal(*given.shape)
    pull = Pull(*(Prediction.from_velocity(x, v, level) for v in (given, away)), 3.0)
    shaped, _ = CFGZero().shape(pull, Moment(level, level), None)
    agree(shaped.velocity, case["st_star"] * away, "scaled velocity")


@pytest.mark.parametrize("case", cases(SET, kind="cfg_zero_loop"))
def test_flow(case: Case) -> None:
    params = case.params
    official = params["implementation"].startswith("official")
    zeroed = params["zero_steps"] + 1 if official else params["zero_steps"]
    if official and not params["use_zero_init"]:
        zeroed = 0
    rule: Rule = CFG(params["scale"])
    if params["use_cfg_zero_star"]:
        rule = rule | CFGZero(zeroed)
    levels = [Flow().level(s) for s in case["sigmas"].tolist()]
    network = Exact(Mixture.read(tensors(SET), f"mixture/{params['mixture']}"), VelocityOutput())
    believe, velocities = guided_by(rule, network, told(params["labels"])), []

    def listen(x: Tensor, at: Moment) -> Guided:
        guided = believe(x, at)
        velocities.append(guided.eps - guided.x0)
        return guided

    states, _ = drive(Euler(), moments(levels), case["x"][0], listen)
    agree(torch.stack(states), case["x"], "states")
    if case.has("v"):
        agree(torch.stack(velocities), case["v"], "velocities")
