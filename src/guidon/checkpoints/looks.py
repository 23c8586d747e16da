"""Which architecture the names in a checkpoint belong to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from guidon.checkpoints.foreign import Shapes


@dataclass(frozen=True)
class Look:
    """An architecture that is known by the names of its tensors.

    Args:
        what: to call it.
        fits: whether names and shapes are its.
        family: the `guidon convert` command that takes it; None where there is none.
    """

    what: str
    fits: Callable[[Shapes], bool]
    family: str | None = None


def look(shapes: Shapes) -> Look | None:
    """Return what a checkpoint looks like, or None where nothing known does."""
    return next((known for known in LOOKS if known.fits(shapes)), None)


def named(*patterns: str) -> Callable[[Shapes], bool]:
    """Return whether each pattern, a regular expression, is found in some name."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda shapes: all(any(pattern.search(name) for name in shapes) for pattern in compiled)


_adm = named(r"^time_embed\.0\.", r"^input_blocks\.0\.0\.weight$", r"^middle_block\.1\.qkv\.")


def _classifier(shapes: Shapes) -> bool:
    return _adm(shapes) and not any(name.startswith("output_blocks.") for name in shapes)


def _upsampler(shapes: Shapes) -> bool:
    return _adm(shapes) and shapes["input_blocks.0.0.weight"][1] == 6


LOOKS = (  # from the special to the general
    Look("a model of guidon's own, which needs no conversion", named(r"^(denoiser\.)?network\.")),
    Look("a Stable Diffusion checkpoint (latent-diffusion)", named(r"^model\.diffusion_model\.")),
    Look("the UNet of Stable Diffusion (latent-diffusion)", named(r"^input_blocks\.\d+\.1\.transformer_blocks\.")),
    Look(
        "a text-to-image network of GLIDE", named(r"^(transformer\.resblocks|middle_block\.1\.encoder_kv)\."), "glide"
    ),
    Look("the CLIP of GLIDE", named(r"^((image|text)\.)?blocks\.input\.(w_t|w_voc)$"), "glide"),
    Look("a network of EDM", named(r"(^|\.)enc\.\d+x\d+_", r"(^|\.)map_layer0\.")),
    Look("a UNet of diffusers", named(r"^down_blocks\.\d", r"^up_blocks\.\d", r"^conv_in\.")),
    Look("a Stable Diffusion 3 transformer", named(r"joint_(transformer_)?blocks\.\d")),
    Look("a transformer of diffusers", named(r"^transformer_blocks\.\d")),
    Look("a U-ViT", named(r"^in_blocks\.\d", r"^out_blocks\.\d")),
    Look("an autoencoder of latents, not a denoiser", named(r"^(first_stage_model\.)?(encoder|decoder)\.conv_in\.")),
    Look("a CLIP", named(r"(^|\.)(visual|vision_model|text_model)\.")),
    Look("DiT", named(r"^x_embedder\.proj\.weight$", r"^blocks\.0\.adaLN_modulation\.", r"^final_layer\."), "dit"),
    Look("a classifier of guided-diffusion", _classifier, "guided-diffusion"),
    Look("an upsampler of guided-diffusion", _upsampler, "guided-diffusion"),
    Look(
        "a UNet of improved-diffusion, or of guided-diffusion without residual up- and downsampling",
        lambda shapes: _adm(shapes) and named(r"^input_blocks\.\d+\.0\.op\.")(shapes),
        "guided-diffusion",
    ),
    Look("a UNet of guided-diffusion", _adm, "guided-diffusion"),
)
