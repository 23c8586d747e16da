"""Guided conditional diffusion: train, steer, measure and serve.

The heart, in reading order: `noise.prediction` (what a network believes), `guidance.rule` and `guidance.cfg` (how beliefs
combine), `solvers.euler` (how to move), `sampling.trajectory` (one conversation), `sampling.engine` (many of them in few forwards).

    import guidon
    model = guidon.load("runs/digits/model")
    model.sample([3, 7], rule="cfg(3)", steps=20, seed=0).pil()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from guidon._version import __version__

if TYPE_CHECKING:
    from guidon.bridges.steer import steer
    from guidon.classifier import Classifier
    from guidon.classifier_request import load_classifier
    from guidon.clip import Clip
    from guidon.errors import GuidonError
    from guidon.guidance import CFG, Interval
    from guidon.model import Model, load
    from guidon.model_config import ModelConfig
    from guidon.solvers import DDIM, DDPM, DPMpp2M, Euler, Heun
    from guidon.tasks.generate import Samples

# Where each public name lives. They are imported when first asked for, so that `guidon --help` need not wait for torch.
_HOME = {
    "CFG": "guidon.guidance",
    "Classifier": "guidon.classifier",
    "Clip": "guidon.clip",
    "DDIM": "guidon.solvers",
    "DDPM": "guidon.solvers",
    "DPMpp2M": "guidon.solvers",
    "Euler": "guidon.solvers",
    "GuidonError": "guidon.errors",
    "Heun": "guidon.solvers",
    "Interval": "guidon.guidance",
    "Model": "guidon.model",
    "ModelConfig": "guidon.model_config",
    "Samples": "guidon.tasks.generate",
    "load": "guidon.model",
    "load_classifier": "guidon.classifier_request",
    "steer": "guidon.bridges.steer",
}

__all__ = [
    "CFG",
    "DDIM",
    "DDPM",
    "Classifier",
    "Clip",
    "DPMpp2M",
    "Euler",
    "GuidonError",
    "Heun",
    "Interval",
    "Model",
    "ModelConfig",
    "Samples",
    "__version__",
    "load",
    "load_classifier",
    "steer",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"guidon has no {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)
