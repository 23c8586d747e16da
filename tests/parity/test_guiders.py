"""Guiders of diffusers: classifier-free guidance, given the predictions of the branches."""

from __future__ import annotations

import pytest
from parity.golden import Case, cases, tensors
from support.numbers import agree

from guidon.guidance import CFG, GIVEN, NULL, Interval, Moment, from_ho_salimans
from guidon.noise import Level, Prediction

SET = "sampling/d_guiders"


@pytest.mark.parametrize("case", cases(SET, kind="guider"))
def test_guider(case: Case) -> None:
    params, args = case.params, case.params["args"]
    if params["guider"] != "ClassifierFreeGuidance":
        pytest.skip(f"no rule like {params['guider']}")
    if args.get("guidance_rescale", 0.0) != 0:
        pytest.skip("guidance_rescale: no rule that rescales")
    scale, steps = args["guidance_scale"], params["num_inference_steps"]
    weight = from_ho_salimans(scale) if args.get("use_original_formulation") else scale
    # step i stands at noise level steps - i, so that a range of steps is an interval of noise levels
    start, stop = (int(args.get(key, default) * steps) for key, default in (("start", 0.0), ("stop", 1.0)))
    rule = CFG(weight, when=Interval(steps - stop, steps - start)) if args.get("enabled", True) else CFG(1.0)
    given, null = (tensors(SET)[f"inputs/{params['input']}/pred_{end}"] for end in ("cond", "uncond"))
    for call, step in enumerate(case["step"].tolist()):
        here, there = (Level(0.0, 1.0, float(steps - i)) for i in (step, step + 1))
        at, answers = Moment(here, there, step, steps), {GIVEN: given[call], NULL: null[call]}
        told = {
            b: Prediction(raw, at.here, raw, -raw) for b, raw in answers.items() if b in rule.branches(at, rule.init())
        }
        guided, _ = rule.combine(told, at, rule.init())
        agree(guided.x0, case["pred"][call], f"x0 at {step}")
        agree(guided.eps, -case["pred"][call], f"eps at {step}")
        if weight != 0:  # with weight 0 the original asks the conditional branch too, in vain
            assert len(told) == int(case["num_conditions"].reshape(-1)[min(call, case["num_conditions"].numel() - 1)])


@pytest.mark.parametrize("case", cases(SET, kind="rescale_noise_cfg"))
def test_rescale(case: Case) -> None:
    pytest.skip("guidance_rescale: no rule that rescales")
