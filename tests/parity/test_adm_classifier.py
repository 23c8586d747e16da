"""The noisy classifier gives the numbers of openai/guided-diffusion's, its gradients too, for every fixture of one."""

from __future__ import annotations

import re

import pytest
import torch
from parity.golden import GOLDEN, settings, tensors, tolerance
from safetensors.torch import load_file
from support.numbers import agree

from guidon.checkpoints.guided_diffusion import encoder_config, encoder_tensors
from guidon.models import EncoderUNet

CASES = [p.stem for p in sorted(GOLDEN.glob("adm_*.json")) if settings(p.stem).get("class") == "EncoderUNetModel"]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no noisy classifier in {GOLDEN}; set GUIDON_GOLDEN")


def load(case: str) -> EncoderUNet:
    """Build the network of a case and fill it strictly: every weight used, every parameter set."""
    told = settings(case)
    network = EncoderUNet(encoder_config(told["config"])).eval()
    weights = encoder_tensors(load_file(GOLDEN / told["weights"]))
    network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    return network.requires_grad_(False)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["int", "float"])
@torch.no_grad()
def test_logits_agree(case: str, kind: str) -> None:
    network, golden = load(case), tensors(case)
    logits = network(golden["x"], golden[f"t_{kind}"])
    got = {f"logits_{kind}": logits, f"log_probs_{kind}": logits.log_softmax(1)}
    for key in got.keys() & golden.keys():
        agree(got[key], golden[key], key, rtol=1e-5, atol=tolerance(case, key))


@pytest.mark.parametrize("case", CASES)
def test_gradients_agree(case: str) -> None:
    network, golden = load(case), tensors(case)
    found = [match for key in golden if (match := re.fullmatch(r"cond_grad_(int|float)_scale(.+)", key))]
    assert found
    for match in found:
        x = golden["x"].clone().requires_grad_()
        chosen = network(x, golden[f"t_{match[1]}"]).log_softmax(1).gather(1, golden["y"][:, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), x)
        want, atol = golden[match[0]], tolerance(case, match[0])
        agree(float(match[2]) * gradient, want, match[0], rtol=1e-5, atol=atol)
