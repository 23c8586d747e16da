"""Dynamic thresholding of diffusers: the function, and whole DDIM trajectories."""

from __future__ import annotations

import pytest
import torch
from parity.diffusers_levels import indices, table
from parity.golden import Case, cases, tensors
from support.drive import drive, guided_by
from support.mixtures import Exact, Mixture, told
from support.numbers import agree, f64

from guidon.guidance import CFG, DynamicThreshold, Moment
from guidon.noise import EpsOutput, Level, Prediction
from guidon.solvers import DDIM

SET = "sampling/f_dynamic_threshold"


@pytest.mark.parametrize("case", cases(SET, kind="inputs"))
def test_inputs(case: Case) -> None:
    """What the cases below start from."""
    assert case["x"].shape == torch.Size(case.params["shape"])


@pytest.mark.parametrize("case", cases(SET, kind="threshold"))
def test_function(case: Case) -> None:
    x0, level = tensors(SET)[case.params["input"]], Level(0.0, 0.6, 0.8)
    for rederive in (True, False):
        stage = DynamicThreshold(case.params["dynamic_thresholding_ratio"], case.params["sample_max_value"], rederive)
        before = Prediction.from_x0(0.3 * x0, x0, level)
        after, _ = stage.reshape(before, before, Moment(level, level), None)
        agree(after.x0, case["out"], "clean image")
        want = (0.3 * x0 - 0.6 * case["out"]) / 0.8 if rederive else before.eps
        agree(after.eps, want, "noise")


@pytest.mark.parametrize("case", cases(SET, kind="ddim_threshold"))
def test_ddim(case: Case) -> None:
    params, config = case.params, case.params["config"]
    process, n = table(config), params["n"]
    times = indices("DDIM", config).times(process, n)
    agree(f64(times), case["timesteps"], "timesteps")
    down = process.steps // n
    there = [process.level(t - down) if t >= down else process.clean for t in times]
    steps = [Moment(process.level(t), s, i, n) for i, (t, s) in enumerate(zip(times, there, strict=True))]
    stage = DynamicThreshold(
        config["dynamic_thresholding_ratio"], config["sample_max_value"], params["use_clipped_model_output"]
    )
    network = Exact(Mixture.read(tensors(SET), f"mixture/{params['mixture']}"), EpsOutput())
    believe = guided_by(CFG(params["scale"]) | stage, network, told(params["labels"]))
    states, _ = drive(DDIM(), steps, case["x"][0], believe)
    agree(torch.stack(states), case["x"], "states")
