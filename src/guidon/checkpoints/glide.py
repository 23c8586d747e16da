"""Checkpoints of openai/glide-text2im: names of tensors, arguments of constructors, what was released.

Source: Nichol et al., arXiv 2112.10741; openai/glide-text2im, whose class and argument names these are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guidon.checkpoints import guided_diffusion
from guidon.checkpoints.foreign import Blueprint, Key, KeyTable, Shapes
from guidon.checkpoints.reading import State
from guidon.errors import BadValue
from guidon.models.unet_config import UNetConfig

TEXT_PARTS = ("transformer.*", "transformer_proj.*", "final_ln.*", "token_embedding.*")
GLIDE = KeyTable(
    *(Key(part, f"encoder.{part}") for part in (*TEXT_PARTS, "positional_embedding", "padding_embedding")),
    Key("*.qkv.weight", "denoiser.network.*.qkv.weight", linear=True),
    Key("*.encoder_kv.weight", "denoiser.network.*.encoder_kv.weight", linear=True),
    Key("*.proj_out.weight", "denoiser.network.*.proj_out.weight", linear=True),
    Key("*", "denoiser.network.*"),
)
CLIP = KeyTable(
    Key("*.ln.g", "*.ln.weight"),
    Key("*.ln.b", "*.ln.bias"),
    Key("*.w", "*.weight"),
    Key("*.b", "*.bias"),
    Key("*", "*"),
)

CLASSES = {  # whether it completes images, whether it enlarges them
    "Text2ImUNet": (False, False),
    "SuperResText2ImUNet": (False, True),
    "InpaintText2ImUNet": (True, False),
    "SuperResInpaintText2ImUnet": (True, True),
}
TEXT = {"text_ctx", "xf_width", "xf_layers", "xf_heads", "xf_final_ln"}  # of every constructor, without a default
FASTER = {"cache_text_emb"}  # what it changes is not the result
SCHEDULES = {"squaredcos_cap_v2": "vp-table('cosine')", "linear": "vp-table"}
VOCABULARY = 50257  # of GPT-2

RELEASED: dict[str, Any] = {  # arguments that all four released networks share
    "text_ctx": 128,
    "xf_width": 512,
    "xf_layers": 16,
    "xf_heads": 8,
    "xf_final_ln": True,
    "xf_padding": True,
    "in_channels": 3,
    "model_channels": 192,
    "out_channels": 6,
    "dropout": 0.1,
    "num_heads": 1,
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
OF_BASE = {**RELEASED, "num_res_blocks": 3, "attention_resolutions": (2, 4, 8), "channel_mult": (1, 2, 3, 4)}
OF_UPSAMPLER = {
    **RELEASED,
    "num_res_blocks": 2,
    "attention_resolutions": (8, 16, 32),
    "channel_mult": (1, 1, 2, 2, 4, 4),
}
LEARNED = "ddpm(variance='learned')"


def base_sampling(weight: float) -> dict[str, Any]:
    """Return how the authors' notebooks sample the base models."""
    return {"rule": f"cfg({weight:g}) | threshold", "solver": LEARNED, "grid": "respaced('100')", "steps": 100}


def upsampling(solver: str) -> dict[str, Any]:
    """Return how the authors' notebooks sample the upsamplers."""
    return {
        "rule": "cfg(1) | threshold",
        "solver": solver,
        "grid": "respaced('fast27')",
        "steps": 27,
        "temperature": 0.997,
    }


def network_config(arguments: Mapping[str, Any], *, side: int, kind: str = "Text2ImUNet") -> UNetConfig:
    """Return the configuration of the UNet of a text-to-image network.

    Args:
        arguments: of its constructor, ``in_channels`` those of an image.
        side: of its images.
        kind: its class.

    Raises:
        BadValue: an argument is missing, unknown, or asks for what guidon's network does not do.
    """
    given = _complete(arguments)
    completes, enlarges = CLASSES[kind]
    channels = given["in_channels"]
    own = {"image_size": side, **{name: value for name, value in given.items() if name not in _OF_TEXT}}
    return UNetConfig(
        **{
            **guided_diffusion.unet_config(own).model_dump(),
            "vector": "embedding",
            "tokens": "append",
            "token_width": given["xf_width"],
            "spatial_channels": (channels + 1) * completes + channels * enlarges,
        }
    )


def network_blueprint(
    arguments: Mapping[str, Any],
    *,
    side: int,
    kind: str = "Text2ImUNet",
    vocabulary: int = VOCABULARY,
    small: int | None = None,
    schedule: str = "squaredcos_cap_v2",
    sample: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Blueprint:
    """Return what a text-to-image network becomes.

    Args:
        arguments: of its constructor, ``in_channels`` those of an image, without ``tokenizer``.
        side: of its images.
        kind: its class.
        vocabulary: tokens of its tokenizer, of which the last one is the padding.
        small: side of the images that it enlarges; None where it enlarges none.
        schedule: of the betas that it was trained with, a thousand.
        sample: how to sample it by default; left out: as the released one of its class.
        origin: what to remember of where it comes from.

    Raises:
        BadValue: an argument is missing or unknown, or there is no such class or schedule.
    """
    for what, name, known in (("class", kind, CLASSES), ("schedule", schedule, SCHEDULES)):
        if name not in known:
            raise BadValue(f"there is no {what} {name!r} in glide-text2im; there are: {', '.join(known)}")
    completes, enlarges = CLASSES[kind]
    if enlarges != (small is not None):
        raise BadValue(
            f"a {kind} enlarges {'images: say their side, small' if enlarges else 'no image: leave small out'}"
        )
    given, config = _complete(arguments), network_config(arguments, side=side, kind=kind)
    return Blueprint(
        kind="model",
        config={
            "shape": (config.in_channels, side, side),
            "network": "unet",
            "architecture": config.model_dump(),
            "process": SCHEDULES[schedule],
            "output": "eps",
            "learned_variance": config.out_channels == 2 * config.in_channels,
            "text": {
                "tokenizer": {"context": given["text_ctx"], "padding": vocabulary - 1},
                "vocabulary": vocabulary,
                "encoder": {
                    "kind": "transformer",
                    "width": given["xf_width"],
                    "layers": given["xf_layers"],
                    "heads": given["xf_heads"],
                    "padding": "learned" if given["xf_padding"] else "plain",
                    "pool": "last",
                    "final_norm": given["xf_final_ln"],
                },
            },
            "low_res": None if small is None else (small, small),
            "inpaint": completes,
            "sample": dict(sample or (upsampling("ddim") if enlarges else base_sampling(3))),
            "training": dict(origin or {}),
        },
        keys=GLIDE,
    )


def clip_blueprint(
    architecture: Mapping[str, Any] | None = None, *, origin: Mapping[str, Any] | None = None
) -> Blueprint:
    """Return what both encoders of GLIDE's noise-aware CLIP become; ``architecture`` as in `ClipConfig`, left out: the released one."""
    tokenizer = {"context": 77, "padding": 0, "start": 49406, "end": 49407, "clean": "clip"}
    return Blueprint(
        kind="clip",
        config={"architecture": dict(architecture or {}), "tokenizer": tokenizer, "training": dict(origin or {})},
        keys=CLIP,
    )


def together(states: Sequence[State]) -> State:
    """Return the tensors of several files as one: those of CLIP's encoders under ``image.*`` and ``text.*``.

    Raises:
        BadValue: the files are not two encoders of CLIP, one of each kind, and not a single file of another network either.
    """
    encoders = [_encoder(state.shapes) for state in states]
    if len(states) == 1 and encoders[0] is None:
        return states[0]
    if sorted(map(str, encoders)) != ["image", "text"]:
        found = " and ".join(f"the {encoder} encoder" if encoder else "another network" for encoder in encoders)
        raise BadValue(
            f"GLIDE's CLIP comes in two files, clip_image_enc.pt and clip_text_enc.pt; what is given is {found}"
        )
    tensors = {
        f"{encoder}.{name}": value
        for encoder, state in zip(encoders, states, strict=True)
        for name, value in state.tensors.items()
    }
    return State(tensors)


def sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the sizes that can be read off a checkpoint's shapes, by GLIDE's names where it has one."""

    def side(name: str, axis: int) -> int | None:
        return shapes[name][axis] if name in shapes else None

    def layers(prefix: str, at: int) -> int:
        return len({name.split(".")[at] for name in shapes if name.startswith(prefix)})

    if any(name.startswith("image.") for name in shapes):
        return {
            "n_timesteps": side("image.blocks.input.w_t", 0),
            "n_vocab": side("text.blocks.input.w_voc", 0),
            "max_text_len": side("text.blocks.input.w_pos", 0),
            "n_embd": side("image.blocks.output.f.w", 0),
            "n_xf_blocks_image": layers("image.blocks.block_", 2),
            "n_xf_blocks_text": layers("text.blocks.block_", 2),
        }
    return {
        **{name: size for name, size in guided_diffusion.sizes(shapes).items() if name != "num_classes"},
        "n_vocab": side("token_embedding.weight", 0),
        "text_ctx": side("positional_embedding", 0),
        "xf_width": side("positional_embedding", 1),
        "xf_layers": layers("transformer.resblocks.", 2),
        "xf_padding": "padding_embedding" in shapes,
    }


_OF_TEXT = TEXT | FASTER | {"xf_padding", "xf_ar", "share_unemb"}


def _encoder(shapes: Shapes) -> str | None:
    """Return which encoder of CLIP a file holds, or None."""
    known = {"blocks.input.w_t": "image", "blocks.input.w_voc": "text"}
    return next((encoder for name, encoder in known.items() if name in shapes), None)


def _complete(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return constructor arguments with the defaults of those about text."""
    if missing := sorted(TEXT - arguments.keys()):
        raise BadValue(f"the constructor's {missing[0]} is not given; it has no default")
    given = {"xf_padding": False, "xf_ar": 0.0, **arguments}
    if not given["xf_width"] or given["xf_ar"] or given.get("num_classes") is not None:
        raise BadValue(
            "networks without text (xf_width 0), that predict tokens (xf_ar) or are told classes (num_classes) were never "
            "released; there is no such network here"
        )
    return given
