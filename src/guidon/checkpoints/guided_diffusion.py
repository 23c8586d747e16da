"""Checkpoints of openai/guided-diffusion: names of tensors, arguments of constructors, flags of scripts.

Source: Dhariwal & Nichol, arXiv 2105.05233; openai/guided-diffusion, whose class, argument and flag names these are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from guidon import registry
from guidon.checkpoints.foreign import Blueprint, Key, KeyTable, Shapes, numbers
from guidon.errors import BadValue
from guidon.models.encoder_unet import EncoderUNetConfig
from guidon.models.unet import UNetConfig
from guidon.noise.tables import VPTable

UNET = KeyTable(
    Key("label_emb.weight", "encoder.embedding.weight"),
    Key("*.qkv.weight", "denoiser.network.*.qkv.weight", linear=True),
    Key("*.proj_out.weight", "denoiser.network.*.proj_out.weight", linear=True),
    Key("*", "denoiser.network.*"),
)
ENCODER = KeyTable(
    Key("*.qkv.weight", "network.*.qkv.weight", linear=True),
    Key("*.proj_out.weight", "network.*.proj_out.weight", linear=True),
    Key("*.qkv_proj.weight", "network.*.qkv_proj.weight", linear=True),
    Key("*.c_proj.weight", "network.*.c_proj.weight", linear=True),
    Key("*", "network.*"),
)

DEFAULTS: dict[str, Any] = {  # of both constructors
    "dropout": 0.0,
    "channel_mult": (1, 2, 4, 8),
    "conv_resample": True,
    "dims": 2,
    "num_heads": 1,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "use_new_attention_order": False,
}
REQUIRED = {"image_size", "in_channels", "model_channels", "out_channels", "num_res_blocks", "attention_resolutions"}
FASTER = {"use_checkpoint", "use_fp16"}  # what they change is not the result
POOLS = {"adaptive": "average", "attention": "attention", "spatial": "spatial", "spatial_v2": "spatial-v2"}


def unet_config(arguments: Mapping[str, Any], super_resolution: bool = False) -> UNetConfig:
    """Return the configuration of a ``UNetModel``.

    Args:
        arguments: of its constructor; ``attention_resolutions`` are downsampling factors, -1 is "not set".
        super_resolution: whether it is a ``SuperResModel``, which sees the enlarged small image beside the noisy one.

    Raises:
        BadValue: an argument is missing, unknown, or asks for what guidon's network does not do.
    """
    given = _complete(arguments, {"num_classes": None})
    return UNetConfig(
        **_shared(given),
        decoder_heads=_set(given["num_heads_upsample"]),
        vector=None if given["num_classes"] is None else "embedding",
        spatial_channels=given["in_channels"] if super_resolution else 0,
    )


def encoder_config(arguments: Mapping[str, Any]) -> EncoderUNetConfig:
    """Return the configuration of an ``EncoderUNetModel``, the noisy classifier; ``arguments`` as in `unet_config`."""
    given = _complete(arguments, {"pool": "adaptive"})
    if given["pool"] not in POOLS:
        raise BadValue(f"there is no pool {given['pool']!r}; there are: {', '.join(POOLS)}")
    return EncoderUNetConfig(**_shared(given), size=given["image_size"], pool=POOLS[given["pool"]])


def unet_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a ``UNetModel`` under the names that they have in a `Model`.

    These are ``denoiser.network.*``, and ``encoder.embedding.weight`` for its ``label_emb``.
    """
    return UNET.translate(state)


def encoder_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an ``EncoderUNetModel`` under the names that they have in a `Classifier`: ``network.*``."""
    return ENCODER.translate(state)


def _complete(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return constructor arguments with every default."""
    known = {**DEFAULTS, **defaults}
    if missing := sorted(REQUIRED - arguments.keys()):
        raise BadValue(f"the constructor's {missing[0]} is not given; it has no default")
    if unknown := sorted(arguments.keys() - known.keys() - REQUIRED - FASTER):
        raise BadValue(f"the constructor has no argument {unknown[0]!r}; leave it out")
    given = {**known, **{name: value for name, value in arguments.items() if value is not None}}
    if given["dims"] != 2:
        raise BadValue(f"images have 2 dimensions, this network is for {given['dims']}; there is no such network here")
    return given


def _shared(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that both networks have."""
    mult, blocks = tuple(given["channel_mult"]), given["num_res_blocks"]
    factors = [2**level for level in range(len(mult))]
    return {
        "in_channels": given["in_channels"],
        "out_channels": given["out_channels"],
        "model_channels": given["model_channels"],
        "channel_mult": mult,
        "num_res_blocks": blocks if isinstance(blocks, int) else tuple(blocks),
        "attention": tuple(f for f in factors if f in given["attention_resolutions"]),  # others never come about
        "heads": _set(given["num_heads"]) or 1,
        "head_channels": _set(given["num_head_channels"]),
        "attention_order": "qkv-first" if given["use_new_attention_order"] else "heads-first",
        "scale_shift": given["use_scale_shift_norm"],
        "resblock_updown": given["resblock_updown"],
        "conv_resample": given["conv_resample"],
        "dropout": given["dropout"],
    }


def _set(value: int) -> int | None:
    """Return a number, or None where -1 says that it is not set."""
    return None if value == -1 else value


def model_blueprint(
    arguments: Mapping[str, Any],
    *,
    process: VPTable | None = None,
    output: str = "eps",
    classes: Sequence[str] | None = None,
    small: int | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Blueprint:
    """Return what a ``UNetModel`` or ``SuperResModel`` becomes.

    Args:
        arguments: of its constructor.
        process: what it was trained on; left out: the linear table.
        output: what its raw output means, in text form.
        classes: names of its classes, where it has any; left out: numbers.
        small: side of the images that it enlarges; None where it is no ``SuperResModel``.
        origin: what to remember of where it comes from.
    """
    config = unet_config(arguments, super_resolution=small is not None)
    count, side, table = arguments.get("num_classes"), arguments["image_size"], process or VPTable()
    return Blueprint(
        kind="model",
        config={
            "shape": (config.in_channels, side, side),
            "network": "unet",
            "architecture": config.model_dump(),
            "process": registry.to_text(table),
            "output": output,
            "learned_variance": config.out_channels == 2 * config.in_channels,
            "classes": None if count is None else tuple(classes or numbers(count)),
            "null": count is None,  # its label_emb has a row for each class and no more
            "low_res": None if small is None else (small, small),
            "sample": {
                "rule": "cfg(1) | threshold",
                "solver": "ddim",
                "grid": "leading",
                "steps": min(25, table.steps),
            },
            "training": dict(origin or {}),
        },
        keys=UNET,
    )


def classifier_blueprint(
    arguments: Mapping[str, Any],
    *,
    process: VPTable | None = None,
    classes: Sequence[str] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Blueprint:
    """Return what an ``EncoderUNetModel`` becomes; the arguments are those of `model_blueprint`."""
    config = encoder_config(arguments)
    return Blueprint(
        kind="classifier",
        config={
            "shape": (config.in_channels, config.size, config.size),
            "architecture": config.model_dump(),
            "process": registry.to_text(process or VPTable()),
            "classes": tuple(classes or numbers(config.out_channels)),
            "training": dict(origin or {}),
        },
        keys=ENCODER,
    )


def sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the sizes that can be read off a checkpoint's shapes, by guided-diffusion's names where it has one."""
    stages = Counter(name.split(".")[1] for name in shapes if name.startswith("input_blocks."))
    attention = [stage for stage in stages if f"input_blocks.{stage}.1.qkv.weight" in shapes]

    def side(name: str, axis: int) -> int | None:
        return shapes[name][axis] if name in shapes else None

    return {
        "model_channels": side("time_embed.0.weight", 1),
        "in_channels": side("input_blocks.0.0.weight", 1),
        "out_channels": side("out.2.weight", 0) or side("out.2.c_proj.weight", 0),
        "num_classes": side("label_emb.weight", 0),
        "input_blocks": len(stages),
        "output_blocks": len({name.split(".")[1] for name in shapes if name.startswith("output_blocks.")}),
        "attention after input_blocks": sorted(map(int, attention)),
        "channels of the middle": side("middle_block.0.out_layers.3.weight", 0),
        "resblock_updown": not any(name.endswith((".op.weight", ".conv.weight")) for name in shapes),
        "use_scale_shift_norm": side("middle_block.0.emb_layers.1.weight", 0)
        != side("middle_block.0.out_layers.3.weight", 0),
        "positions of the pool": side("out.2.positional_embedding", 1),
    }
