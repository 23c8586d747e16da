"""A tiny random model in a folder, and a plan over it: cells in tenths of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from guidon.model import Model, ModelConfig
from guidon.study.plan import SweepPlan

ARCHITECTURE = {
    "in_channels": 1,
    "out_channels": 1,
    "model_channels": 8,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention": (),
}


def tiny_model(
    folder: Path, seed: int = 0, *, shape: tuple[int, int, int] = (1, 8, 8), classes: tuple[str, ...] = ("0", "1", "2")
) -> Path:
    """Save a random model of three classes, 8 x 8 grey pixels, and return its folder."""
    torch.manual_seed(seed)
    model = Model(ModelConfig(shape=shape, architecture=ARCHITECTURE, classes=classes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def tiny_plan(model: Path, **changes: Any) -> SweepPlan:
    """Return a plan of two weights, of twelve images each in three steps."""
    content = {
        "model": str(model),
        "n": 12,
        "steps": 3,
        "solver": "euler",
        "rule": "cfg({w})",
        "metrics": ["saturation", "contrast"],
        "axes": {"w": [1, 3]},
        "resamples": 20,
    }
    return SweepPlan.read({**content, **changes})
