"""CFG++ and its plain twins in the authors' samplers, on exact denoisers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from parity.golden import Case, cases, tensors
from support.drive import Believe, drive, no_noise, turned
from support.mixtures import Mixture, told
from support.numbers import agree
from torch import Tensor

from guidon.guidance import CFG, CFGpp, Guided, Moment, Rule
from guidon.noise import EDM, Level, Prediction
from guidon.sampling import RecordedNoise
from guidon.solvers import DPMpp2M, DPMpp2SAncestral, Euler, EulerAncestral, Solver

SET = "sampling/e_cfgpp"
SOLVERS: dict[str, Solver] = {
    "ddim": Euler(),
    "euler": Euler(),
    "euler_a": EulerAncestral(),
    "dpm++_2m": DPMpp2M(),
    "dpm++_2s_a": DPMpp2SAncestral(),
}


def rule_of(case: Case) -> Rule:
    weight = case.params["cfg_guidance"]
    return CFGpp(weight) if case.params["solver"].endswith("_cfg++") else CFG(weight)


def believer(case: Case, rule: Rule) -> Believe:
    """Return what the rule makes of the mixture, asked where the original asks its network: at a level of its own."""
    mixture, contexts = Mixture.read(tensors(SET), f"mixture/{case.params['mixture']}"), told(case.params["labels"])
    shown = iter(zip(case["model_alpha"].tolist(), case["model_sigma"].tolist(), strict=True))

    def believe(x: Tensor, at: Moment) -> Guided:
        alpha, sigma = next(shown)
        preserving = x / math.hypot(at.here.alpha, at.here.sigma)
        answers = {}
        for branch in rule.branches(at, rule.init()):
            label = contexts[branch.condition].vector[:, 0].long()  # type: ignore[index]
            eps = mixture.believe(preserving, alpha, sigma, label)[1]
            answers[branch] = Prediction.from_eps(x, eps, at.here)
        return rule.combine(answers, at, rule.init())[0]

    return believe


def preserving(alpha_bars: Sequence[float]) -> list[Level]:
    return [Level(0.0, math.sqrt(bar), math.sqrt(1 - bar)) for bar in alpha_bars]


def steps_of(case: Case) -> list[Moment]:
    if case.has("sigmas"):
        levels = [EDM().level(sigma) if sigma else EDM().clean for sigma in case["sigmas"].tolist()]
        here, there = levels[:-1], levels[1:]
    else:
        here, there = preserving(case["abar_t"].tolist()), preserving(case["abar_prev"].tolist())
    return [Moment(a, b, i, len(here)) for i, (a, b) in enumerate(zip(here, there, strict=True))]


@pytest.mark.parametrize("case", cases(SET, kind="cfgpp_solver"))
def test_sampler(case: Case) -> None:
    name = case.params["solver"].removesuffix("_cfg++")
    believe, heard = believer(case, rule_of(case)), []

    def listen(x: Tensor, at: Moment) -> Guided:
        guided = believe(x, at)
        if at.began is None:
            heard.append(guided.x0)
        return guided

    if name == "dpm++_2m" and isinstance(rule_of(case), CFGpp) and case.params["cfg_guidance"] != 0:
        step_by_step(case, believe)
        return
    noise = RecordedNoise(list(case["noise"])) if case.has("noise") else no_noise
    states, _ = drive(SOLVERS[name], steps_of(case), case["x_init"], listen, noise)
    agree(torch.stack(states[1:]), case["zt"], "states")
    agree(torch.stack(heard), case["z0t"], "clean images")
    # DDIM's last step there has equal levels, so that the clean image is the result and not the state
    agree(heard[-1] if name == "ddim" else states[-1], case["x_final"], "result")


def step_by_step(case: Case, believe: Believe) -> None:
    """The Stable Diffusion 1.5 code of 2M takes D_lambda - D_u of the step before where the paper's appendix, the SDXL code and
    guidon take D_u - D_u of the step before: the two differ by (1 - e^-h) / (2r) (D_lambda - D_u), added here by hand."""
    solver, steps = DPMpp2M(), steps_of(case)
    carry, before = solver.init(), case["x_init"]
    for at, want in zip(steps, case["zt"], strict=True):
        guided = believe(before, at)
        step = solver.step(before, at, carry, no_noise)
        next(step)
        with pytest.raises(StopIteration) as end:
            step.send(guided)
        got, carry = end.value.value
        if 0 < at.index < len(steps) - 1:
            h, h_before = (math.log(a.noise_level / a.there.noise_level) for a in (at, steps[at.index - 1]))
            difference = (1 - math.exp(-h)) * h / (2 * h_before) * (guided.x0 - guided.noise_x0)
            assert difference.abs().max() > 1e-6
            got = got + difference
        agree(got, want, f"state after step {at.index}")
        agree(guided.x0, case["z0t"][at.index], f"clean image of step {at.index}")
        before = want
    agree(before, case["x_final"], "result")


@pytest.mark.parametrize("case", cases(SET, kind="cfgpp_inversion"))
def test_inversion(case: Case) -> None:
    """On the way up CFG++ takes the clean image of the null branch and the guided noise: its two halves, turned round."""
    believe = believer(case, rule_of(case))
    there = preserving((case["model_alpha"] ** 2).tolist())
    here = [there[0], *there[:-1]]  # below the first index the original stays at the first
    steps = [Moment(a, b, i, len(here)) for i, (a, b) in enumerate(zip(here, there, strict=True))]
    states, _ = drive(Euler(), steps, case["z0"], lambda x, at: turned(believe(x, at), x, at))
    agree(states[-1], case["zT"], "noise")
