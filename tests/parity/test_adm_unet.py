"""The UNet gives the numbers of openai/guided-diffusion's, for every ADM fixture in the golden folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from guidon.conditioning import LabelEncoder, Labels
from guidon.models import UNet, UNetConfig

GOLDEN = Path(os.environ.get("GUIDON_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
CASES = sorted(path.stem for path in GOLDEN.glob("adm_unet_*.json"))

pytestmark = pytest.mark.skipif(not CASES, reason=f"no ADM fixtures in {GOLDEN}; set GUIDON_GOLDEN")


def from_adm(config: dict[str, Any]) -> UNetConfig:
    """Read a guided-diffusion constructor's arguments; it counts -1 as "not set" and defaults as its signature does."""
    blocks, levels = config["num_res_blocks"], len(config.get("channel_mult", (1, 2, 4, 8)))
    return UNetConfig(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        model_channels=config["model_channels"],
        channel_mult=tuple(config.get("channel_mult", (1, 2, 4, 8))),
        num_res_blocks=blocks if isinstance(blocks, int) else tuple(blocks),
        attention=tuple(factor for factor in config["attention_resolutions"] if factor < 2**levels),
        heads=max(config.get("num_heads", 1), 1),
        head_channels=None if config.get("num_head_channels", -1) == -1 else config["num_head_channels"],
        decoder_heads=None if config.get("num_heads_upsample", -1) == -1 else config["num_heads_upsample"],
        attention_order="qkv-first" if config.get("use_new_attention_order") else "heads-first",
        scale_shift=bool(config.get("use_scale_shift_norm")),
        resblock_updown=bool(config.get("resblock_updown")),
        conv_resample=bool(config.get("conv_resample", True)),
        vector=None if config.get("num_classes") is None else "embedding",
    )


def load(case: str) -> tuple[UNet, LabelEncoder | None]:
    """Build network and encoder of a case and fill both strictly: every weight used, every parameter set."""
    told = json.loads((GOLDEN / f"{case}.json").read_text())
    weights = load_file(GOLDEN / told["weights"])
    network, classes = UNet(from_adm(told["config"])).eval(), told["config"].get("num_classes")
    encoder = None
    if classes is not None:
        encoder = LabelEncoder(classes, network.config.embedding_width)
        rows = weights.pop("label_emb.weight")
        encoder.load_state_dict({"embedding.weight": torch.cat([rows, torch.zeros_like(rows[:1])])})
    network.load_state_dict({name: _flat(name, value) for name, value in weights.items()})
    return network, encoder


def _flat(name: str, value: Tensor) -> Tensor:
    attention = name.endswith(("qkv.weight", "proj_out.weight"))
    return value.squeeze(-1) if attention else value


@pytest.mark.parametrize("case", CASES)
def test_outputs_agree(case: str) -> None:
    network, encoder = load(case)
    golden = load_file(GOLDEN / f"{case}.safetensors")
    tolerances = json.loads((GOLDEN / "tolerances.json").read_text()).get(case, {})
    context = encoder(Labels(golden["y"], encoder.classes)) if encoder is not None else None
    for kind in ("int", "float"):
        with torch.no_grad():
            out = network(golden["x"], golden[f"t_{kind}"], context)
        error = (out - golden[f"out_{kind}"]).abs().max().item()
        assert error <= tolerances.get(f"out_{kind}", 3e-5), f"{case} out_{kind} is off by {error:.1e}"
