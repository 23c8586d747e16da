"""Checkpoints of facebookresearch/DiT: names of tensors, arguments of the constructor.

Source: Peebles & Xie, arXiv 2212.09748; facebookresearch/DiT, whose class and argument names these are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from guidon.checkpoints.foreign import Blueprint, Key, KeyTable, Shapes, numbers
from guidon.errors import BadValue
from guidon.models.dit import DiTConfig, positions

DIT = KeyTable(
    Key("y_embedder.embedding_table.weight", "encoder.embedding.weight"),
    Key("*", "denoiser.network.*"),
)
POSITIONS = "pos_embed"

DEFAULTS: dict[str, Any] = {  # of the constructor
    "input_size": 32,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 1152,
    "depth": 28,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "class_dropout_prob": 0.1,
    "num_classes": 1000,
    "learn_sigma": True,
}


def dit_config(arguments: Mapping[str, Any]) -> DiTConfig:
    """Return the configuration of a ``DiT``; ``arguments`` are those of its constructor. Raises `BadValue`."""
    given = _complete(arguments)
    return DiTConfig(
        in_channels=given["in_channels"],
        out_channels=given["in_channels"] * (2 if given["learn_sigma"] else 1),
        patch=given["patch_size"],
        width=given["hidden_size"],
        depth=given["depth"],
        heads=given["num_heads"],
        mlp_ratio=given["mlp_ratio"],
    )


def dit_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a ``DiT`` under the names that they have in a `Model`, without its positions, which are computed."""
    return DIT.translate({name: value for name, value in state.items() if name != POSITIONS})


def dit_blueprint(
    arguments: Mapping[str, Any], *, classes: Sequence[str] | None = None, origin: Mapping[str, Any] | None = None
) -> Blueprint:
    """Return what a ``DiT`` becomes.

    Args:
        arguments: of its constructor.
        classes: names of its classes; left out: numbers.
        origin: what to remember of where it comes from.
    """
    given, config = _complete(arguments), dit_config(arguments)
    side, patches = given["input_size"], given["input_size"] // given["patch_size"]
    return Blueprint(
        kind="model",
        config={
            "shape": (config.in_channels, side, side),
            "network": "dit",
            "architecture": config.model_dump(),
            "process": "vp-table",
            "output": "eps",
            "learned_variance": given["learn_sigma"],
            "classes": tuple(classes or numbers(given["num_classes"])),
            "null": given["class_dropout_prob"] > 0,  # then the table has one row more than classes
            "sample": {"rule": "cfg(4)", "solver": "dpmpp-2m", "grid": "leading", "steps": 25},
            "training": dict(origin or {}),
        },
        keys=DIT,
        computed={POSITIONS: positions(patches, patches, config.width).flatten(0, 1)[None].float()},
    )


def read_arguments(shapes: Shapes, heads: int, size: int | None = None) -> dict[str, Any]:
    """Return the arguments of the constructor for a checkpoint, of which the shapes tell all but the heads.

    Args:
        shapes: of the checkpoint.
        heads: of attention, > 0.
        size: side of its latents; left out: as its positions tell.

    Raises:
        BadValue: a number is not positive or does not divide, or nothing tells the side.
    """
    seen = sizes(shapes)
    width, patch, rows, hidden = (
        seen["hidden_size"],
        seen["patch_size"],
        seen["rows of y_embedder"],
        shapes.get("blocks.0.mlp.fc1.weight"),
    )
    if heads < 1 or width % heads:
        raise BadValue(
            f"the width {width} of the file does not divide into {heads} heads; give --heads of the training"
        )
    if size is None and seen["positions"] is None:
        raise BadValue(f"the file has no {POSITIONS} that tells the size of its latents; give their side, --size N")
    side = math.isqrt(seen["positions"]) * patch if size is None else size
    if side < 1 or side % patch:
        raise BadValue(f"the side of the latents is a multiple of the file's patch {patch}, not {side}; mend --size")
    told = {
        "patch_size": patch,
        "in_channels": seen["in_channels"],
        "hidden_size": width,
        "depth": seen["depth"],
        "mlp_ratio": hidden and _ratio(hidden[0], width),
        "num_classes": rows and rows - 1,  # the last is the null
        "learn_sigma": seen["out_channels"] and seen["out_channels"] != seen["in_channels"],
    }
    return {
        **{name: value for name, value in told.items() if value is not None},
        "input_size": side,
        "num_heads": heads,
    }


def sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the sizes that can be read off a checkpoint's shapes, by DiT's names where it has one."""

    def side(name: str, axis: int) -> int | None:
        return shapes[name][axis] if name in shapes else None

    patch = side("x_embedder.proj.weight", 2)
    pixels = side("final_layer.linear.weight", 0)
    return {
        "hidden_size": side("x_embedder.proj.weight", 0),
        "depth": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        "patch_size": patch,
        "in_channels": side("x_embedder.proj.weight", 1),
        "out_channels": pixels // patch**2 if pixels and patch else None,
        "rows of y_embedder": side("y_embedder.embedding_table.weight", 0),
        "positions": side(POSITIONS, 1),
    }


def _ratio(hidden: int, width: int) -> float:
    """Return the number that times ``width`` is ``hidden``, also where it is cut off after rounding."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _complete(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return constructor arguments with every default."""
    if unknown := sorted(arguments.keys() - DEFAULTS.keys()):
        raise BadValue(f"the constructor of DiT has no argument {unknown[0]!r}; there are: {', '.join(DEFAULTS)}")
    return {**DEFAULTS, **arguments}
