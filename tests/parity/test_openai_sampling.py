"""Whole sampling loops of openai/guided-diffusion, with its UNet and weights, through the engine."""

from __future__ import annotations

from typing import Any

import pytest
from parity.golden import settings, tensors, tolerance
from parity.test_adm_classifier import load as load_classifier
from parity.test_adm_unet import load
from parity.test_openai_process import chain, table
from support.numbers import agree

from guidon.classifier import Classifier, ClassifierConfig
from guidon.conditioning import Context, Labels
from guidon.guidance import CFG, ClassifierGuidance, Rule, Threshold
from guidon.models.denoiser import Denoiser
from guidon.noise import EpsOutput, Process, X0Output
from guidon.registry import to_text
from guidon.sampling import Engine, RecordedNoise, Trajectory
from guidon.solvers import DDIM, DDPM, Solver

OUTPUTS = {"epsilon": EpsOutput(), "start_x": X0Output()}
VARIANCES = {"learned_range": "learned", "fixed_small": "small", "fixed_large": "large"}
CASES = [
    pytest.param(name, case, id=case["key"])
    for name in ("sampling_ddpm", "sampling_ddim")
    for case in settings(name).get("cases", [])
]


def classifier_of(case: str, process: Process) -> Classifier:
    """Return the bundle of a classifier and the process that it is asked at."""
    network = load_classifier(case)
    shape = (network.config.in_channels, network.config.size, network.config.size)
    classes = tuple(str(i) for i in range(network.config.out_channels))
    config = ClassifierConfig(
        shape=shape, architecture=network.config.model_dump(), process=to_text(process), classes=classes
    )
    classifier = Classifier(config).eval()
    classifier.network.load_state_dict(network.state_dict())
    return classifier


@pytest.mark.parametrize(("name", "case"), CASES)
def test_loop(name: str, case: dict[str, Any]) -> None:
    told, stored = settings(name), tensors(name)
    process_told = told["diffusion"]
    if process_told["mean_type"] not in OUTPUTS or process_told["var_type"] not in VARIANCES:
        pytest.skip(f"no output {process_told['mean_type']} with variance {process_told['var_type']}")
    process = table(process_told, rescale_clock=process_told["rescale_timesteps"])
    levels = chain(process_told, process)[::-1]
    assert [process.clock(level.t) for level in levels[:-1]] == told["t_shown_to_model_in_call_order"]
    variance = VARIANCES[process_told["var_type"]]
    solver: Solver = DDPM(variance) if case["sampler"] == "ddpm" else DDIM(case["eta"])

    network, encoder = load(told["unet"])
    learned = network.config.out_channels == 2 * network.config.in_channels
    denoiser = Denoiser(network, process, OUTPUTS[process_told["mean_type"]], learned).eval()
    given = encoder(Labels(stored["y"], encoder.classes)) if encoder is not None else Context()
    rule: Rule = CFG(1.0) | Threshold() if case["clip_denoised"] else CFG(1.0)
    networks: dict[str, Any] = {"main": denoiser}
    told_to = {"given": given}
    if case["classifier_scale"] is not None:
        form = "mean" if case["sampler"] == "ddpm" else "eps"
        rule = rule | ClassifierGuidance(case["classifier_scale"], form=form)
        networks["classifier"] = classifier_of(told["classifier"], process)
        told_to["classifier:given"] = Context(vector=stored["y"][:, None].float())
    run = Trajectory(stored["x_T"], levels, solver, rule, told_to, RecordedNoise(list(stored["noise"])))
    engine, states, x0 = Engine(networks), [], []
    engine.join(run)
    while not run.done:
        engine.round()
        states.append(run.x)
        x0.append(run.x0)
    got = {"sample": [run.x], "steps": states, "pred_xstart_steps": x0}
    for key, value in got.items():
        if f"{case['key']}/{key}" in stored:
            want = stored[f"{case['key']}/{key}"]
            for i, state in enumerate(value):
                expected = want if key == "sample" else want[i]
                agree(state, expected, f"{key} {i}", rtol=1e-5, atol=tolerance(name, f"{case['key']}/{key}"))
