"""The diffusion transformer gives the numbers of facebookresearch/DiT's, and its guidance is a chain."""

from __future__ import annotations

import pytest
import torch
from parity.golden import GOLDEN, settings, tensors, tolerance
from safetensors.torch import load_file
from support.numbers import agree
from torch import Tensor

from guidon.checkpoints.dit import dit_config, dit_tensors
from guidon.conditioning import LabelEncoder, Labels
from guidon.guidance import GIVEN, NULL, Moment
from guidon.models import DiT
from guidon.models.dit import positions
from guidon.noise import Cosine, Prediction
from guidon.registry import parse

CASES = [path.stem for path in sorted(GOLDEN.glob("dit*.json")) if settings(path.stem).get("class") == "DiT"]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no diffusion transformer in {GOLDEN}; set GUIDON_GOLDEN")


def load(case: str) -> tuple[DiT, LabelEncoder]:
    """Build network and encoder of a case and fill both strictly: every weight used, every parameter set."""
    told = settings(case)["config"]
    weights = dit_tensors(load_file(GOLDEN / settings(case)["weights"]))
    network = DiT(dit_config(told)).eval()
    rows = weights.pop("encoder.embedding.weight")
    classes = told["num_classes"]
    encoder = LabelEncoder(classes, network.config.width, null=len(rows) > classes)
    encoder.load_state_dict({"embedding.weight": rows})
    network.load_state_dict({name.removeprefix("denoiser.network."): value for name, value in weights.items()})
    return network, encoder


@torch.no_grad()
def ask(case: str, x: Tensor, time: Tensor, ids: Tensor) -> Tensor:
    network, encoder = load(case)
    return network(x, time, encoder(Labels(ids, encoder.classes)))


def agree_with(case: str, key: str, got: Tensor, rows: slice = slice(None)) -> None:
    agree(got, tensors(case)[key][rows], key, rtol=1e-5, atol=tolerance(case, key))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("key", "later"), [("out", 0.0), ("out_t_float", 0.5)])
def test_outputs_agree(case: str, key: str, later: float) -> None:
    golden = tensors(case)
    agree_with(case, key, ask(case, golden["x"], golden["t_int"] + later, golden["y"]))


@pytest.mark.parametrize("case", CASES)
def test_positions_agree_with_the_fixed_table(case: str) -> None:
    told = settings(case)["config"]
    side = told["input_size"] // told["patch_size"]
    agree_with(case, "pos_embed_expected", positions(side, side, told["hidden_size"]).flatten(0, 1)[None])


@pytest.mark.parametrize("case", CASES)
def test_guidance_of_three_channels_is_a_chain(case: str) -> None:
    golden, scale = tensors(case), settings(case)["cfg_scale"]
    asked = len(golden["cfg/x"]) // 2  # the second half is the same images without a class
    x = golden["cfg/x"][:asked]
    raw = ask(case, x.repeat(2, 1, 1, 1), golden["cfg/t"], golden["cfg/y"]).double()
    given, null = raw.split(asked)
    level, channels = Cosine().level(0.5), x.shape[1]  # the space does not matter: eps is guided as it is
    told = {
        branch: Prediction.from_eps(x.double(), half[:, :channels], level)
        for branch, half in ((GIVEN, given), (NULL, null))
    }
    rule = parse("rule", f"cfg({scale})" + (" | channels(3)" if channels > 3 else ""))
    guided, _ = rule.combine(told, Moment(level, Cosine().level(0.4)), rule.init())
    assert guided.eps is not None
    for half, rows in ((given, slice(asked)), (null, slice(asked, None))):
        agree_with(case, "cfg/out", torch.cat([guided.eps[:, :3], half[:, 3:]], 1), rows)
    assert torch.equal(guided.eps[:, 3:], given[:, 3:channels]), "what is not guided stays as the class has it"
