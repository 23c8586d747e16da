"""A model of texts, and recipes that fine-tune it in milliseconds a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import pictures

from guidon.training.finetune_recipe import FinetuneRecipe
from guidon.training.loop import train
from guidon.training.recipe import read_recipe

ARCHITECTURE = {
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention": [2],
    "head_channels": 8,
    "vector": "embedding",
    "tokens": "cross",
    "token_width": 16,
}
TEXT = {"vocabulary": 300, "context": 8, "encoder": {"width": 16, "layers": 1, "heads": 2}}
TRAIN = {"batch_size": 16, "warmup": 2, "threads": 1, "trackers": [], "sample_every": None, "average": "half-life(200)"}


def base_of_texts(root: Path, *, steps: int = 30, **architecture: Any) -> Path:
    """Train a model of the first twelve digits and their captions, and return its run."""
    source = pictures.parquet(root / "base-data", 12)
    recipe = read_recipe(
        {
            "data": {"source": str(source)},
            "model": {"architecture": ARCHITECTURE | architecture, "text": TEXT},
            "train": TRAIN | {"steps": steps},
        }
    )
    train(recipe, root / "base", progress=False)
    return root / "base"


def tiny_finetune(
    base: Path,
    source: Path,
    *,
    adapt: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **settings: Any,
) -> FinetuneRecipe:
    return FinetuneRecipe.read(
        {
            "kind": "finetune",
            "base": str(base),
            "data": {"source": str(source), "hold_out": 0.2} | (data or {}),
            "adapt": adapt or {},
            "train": TRAIN | {"steps": 10, "lr": 1e-3} | settings,
        }
    )
