"""Which flags of guided-diffusion's scripts the shapes of a checkpoint tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from guidon.checkpoints.foreign import Shapes
from guidon.checkpoints.guided_diffusion import sizes
from guidon.checkpoints.guided_flags import Script

OF_A_CLASSIFIER = {  # what the flags of a model of images are called there
    "num_channels": "classifier_width",
    "num_res_blocks": "classifier_depth",
    "attention_resolutions": "classifier_attention_resolutions",
    "use_scale_shift_norm": "classifier_use_scale_shift_norm",
    "resblock_updown": "classifier_resblock_updown",
}


def script_of(shapes: Shapes) -> Script:
    """Return whose flags a checkpoint was trained with."""
    if not any(name.startswith("output_blocks.") for name in shapes):
        return "classifier"
    return "upsampler" if shapes["input_blocks.0.0.weight"][1] == 6 else "image"


def told_flags(shapes: Shapes, side: int) -> Iterator[dict[str, Any]]:
    """Return the flags that shapes tell, once for every number of levels that the stages could be divided into.

    Args:
        shapes: of a checkpoint.
        side: of its images; no shape tells it but a classifier's attention pool.
    """
    script, seen = script_of(shapes), sizes(shapes)
    for stages in range(2, seen["input_blocks"] + 1):  # of a level: its blocks and what changes the resolution
        firsts = [f"input_blocks.{first}" for first in range(1, seen["input_blocks"], stages)]
        convolutions = [f"{first}.0.in_layers.2.weight" for first in firsts]
        if seen["input_blocks"] % stages or not shapes.keys() >= set(convolutions):
            continue
        if positions := seen["positions of the pool"]:
            side = math.isqrt(positions - 1) << (len(firsts) - 1)
        attention = [side >> level for level, first in enumerate(firsts) if f"{first}.1.qkv.weight" in shapes]
        told = {
            "num_channels": seen["model_channels"],
            "num_res_blocks": stages - 1,
            "channel_mult": ",".join(f"{shapes[name][0] / seen['model_channels']:g}" for name in convolutions),
            "attention_resolutions": ",".join(map(str, attention)) or "1",
            "use_scale_shift_norm": seen["use_scale_shift_norm"],
            "resblock_updown": seen["resblock_updown"],
        }
        if script == "classifier":
            named = {OF_A_CLASSIFIER.get(name, name): value for name, value in told.items()}
            yield {"image_size": side, **named, "classifier_pool": _pool(shapes)}
        else:
            yield {**told, "learn_sigma": seen["out_channels"] == 6, "class_cond": seen["num_classes"] is not None}


def _pool(shapes: Shapes) -> str:
    if "out.2.positional_embedding" in shapes:
        return "attention"
    if "out.3.weight" not in shapes:
        return "spatial"
    return "adaptive" if len(shapes["out.3.weight"]) == 4 else "spatial_v2"
