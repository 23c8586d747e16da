"""Tiny models of texts, with random weights and a vocabulary of their own."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from guidon.conditioning.tokenizer import Tokenizer, train_tokenizer
from guidon.model import Model, ModelConfig
from guidon.models.text import TextTransformerConfig
from guidon.models.text_encoder import TextConfig

CAPTIONS = [
    "a red circle left of a blue square",
    "two green triangles",
    "a small yellow circle",
    "a big blue square",
    "no red",
]
UNET = {
    "model_channels": 16,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention": (2,),
    "heads": 2,
    "token_width": 12,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "cross": ("unet", UNET | {"tokens": "cross"}),
    "tokens alone": ("unet", UNET | {"tokens": "cross", "vector": None}),
    "append": ("unet", UNET | {"tokens": "append"}),
    "dit": ("dit", {"width": 16, "depth": 2, "heads": 2, "tokens": "cross", "token_width": 12}),
}


@cache
def vocabulary(context: int = 10) -> Tokenizer:
    return train_tokenizer(CAPTIONS, size=300, context=context)


def text_model(
    kind: str = "cross", *, padding: str = "masked", channels: int = 1, seed: int = 0, **changes: Any
) -> Model:
    """Return a model of texts whose every part matters.

    Args:
        kind: one of `ARCHITECTURES`.
        padding: as `TextTransformerConfig` has it.
        channels: of its images, 8 x 8 pixels unless ``changes`` say otherwise.
        seed: of its weights.
        changes: in its `ModelConfig`; an ``architecture`` among them is added to that of the kind.
    """
    torch.manual_seed(seed)
    network, architecture = ARCHITECTURES[kind]
    ends = {"in_channels": channels, "out_channels": channels}
    tokenizer = vocabulary()
    encoder = TextTransformerConfig(width=16, layers=1, heads=2, padding=padding)  # type: ignore[arg-type]
    config = {
        "shape": (channels, 8, 8),
        "network": network,
        "architecture": architecture | ends | changes.pop("architecture", {}),
        "text": TextConfig(tokenizer=tokenizer.config, vocabulary=tokenizer.size, encoder=encoder),
    }
    model = Model(ModelConfig(**(config | changes)), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15)
    return model.eval()
