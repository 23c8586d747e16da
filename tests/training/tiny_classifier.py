"""A classifier's recipe that trains in milliseconds a step."""

from __future__ import annotations

from typing import Any

from guidon.training.classifier_recipe import ClassifierRecipe

ARCHITECTURE = {
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention": [],
    "head_channels": 8,
    "dropout": 0.1,
}


def tiny_classifier_recipe(
    model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **train: Any
) -> ClassifierRecipe:
    settings = {"steps": 10, "batch_size": 16, "warmup": 2, "threads": 1, "trackers": [], "average": "half-life(200)"}
    return ClassifierRecipe.read(
        {
            "kind": "classifier",
            "data": {"source": "digits", "limit": 200, "hold_out": 0.1} | (data or {}),
            "model": {"architecture": ARCHITECTURE} | (model or {"process": "cosine"}),
            "train": settings | train,
        }
    )
