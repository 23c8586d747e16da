"""The UNet gives the numbers of openai/guided-diffusion's, for every fixture of its networks that make images."""

from __future__ import annotations

import pytest
import torch
from parity.golden import GOLDEN, settings, tensors, tolerance
from safetensors.torch import load_file
from support.numbers import agree

from guidon.checkpoints.guided_diffusion import unet_config, unet_tensors
from guidon.conditioning import Context, LabelEncoder, Labels
from guidon.conditioning.images import enlarged
from guidon.models import UNet

CLASSES = ("UNetModel", "SuperResModel")
CASES = [path.stem for path in sorted(GOLDEN.glob("adm_*.json")) if settings(path.stem).get("class") in CLASSES]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no ADM fixtures in {GOLDEN}; set GUIDON_GOLDEN")


def load(case: str) -> tuple[UNet, LabelEncoder | None]:
    """Build network and encoder of a case and fill both strictly: every weight used, every parameter set."""
    told = settings(case)
    weights = unet_tensors(load_file(GOLDEN / told["weights"]))
    network = UNet(unet_config(told["config"], super_resolution=told["class"] == "SuperResModel")).eval()
    classes = told["config"].get("num_classes")
    encoder = None
    if classes is not None:
        encoder = LabelEncoder(classes, network.config.embedding_width, null=False)
        encoder.load_state_dict({"embedding.weight": weights.pop("encoder.embedding.weight")})
    network.load_state_dict({name.removeprefix("denoiser.network."): value for name, value in weights.items()})
    return network, encoder


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["int", "float"])
@torch.no_grad()
def test_outputs_agree(case: str, kind: str) -> None:
    network, encoder = load(case)
    golden = tensors(case)
    x = golden["x"]
    vector = encoder(Labels(golden["y"], encoder.classes)).vector if encoder is not None else None
    small = golden.get("low_res")
    context = Context(vector=vector, spatial=None if small is None else enlarged(small, x.shape[2:], len(x)))
    out = network(x, golden[f"t_{kind}"], context)
    agree(out, golden[f"out_{kind}"], f"out_{kind}", rtol=1e-5, atol=tolerance(case, f"out_{kind}"))
