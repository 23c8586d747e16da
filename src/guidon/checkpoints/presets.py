"""Every released checkpoint that guidon converts, by a short name.

The flags of guided-diffusion's are those that its README gives for sampling; what a preset does not say is its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guidon.checkpoints import dit, glide, guided_diffusion, guided_flags
from guidon.checkpoints.foreign import Blueprint, Shapes
from guidon.errors import UnknownName


@dataclass(frozen=True)
class Preset:
    """A kind of checkpoint.

    Args:
        name: to call it.
        family: whose it is.
        file: its name where it was released; empty where only its size is known by name.
        about: what it draws or tells.
        settings: flags of guided-diffusion's scripts, arguments of DiT's constructor, or of `glide.network_blueprint`.
        script: of guided-diffusion's scripts the one whose flags they are.
    """

    name: str
    family: str
    file: str
    about: str
    settings: Mapping[str, Any]
    script: guided_flags.Script = "image"

    def blueprint(self, classes: Sequence[str] | None = None) -> Blueprint:
        """Return what such a checkpoint becomes; ``classes`` are names in place of the 1000 numbers, as many as it knows."""
        family = FAMILIES[self.family]
        origin = {"source": family.source, "preset": self.name, "license": family.license}
        if self.family == "glide":
            return (
                glide.network_blueprint(**self.settings, origin=origin)
                if self.settings
                else glide.clip_blueprint(origin=origin)
            )
        if self.family == "dit":
            count = {"num_classes": len(classes)} if classes else {}
            return dit.dit_blueprint({**self.settings, **count}, classes=classes, origin=origin)
        return guided_flags.blueprint(self.settings, self.script, classes=classes, origin=origin)


@dataclass(frozen=True)
class Family:
    """A project whose checkpoints are alike.

    Args:
        source: the project.
        license: of its released weights.
        sizes: reads sizes off the shapes of a checkpoint.
        presets: by name.
    """

    source: str
    license: str
    sizes: Callable[[Shapes], dict[str, Any]]
    presets: Mapping[str, Preset]

    def __getitem__(self, name: str) -> Preset:
        """Return a preset by name; raises `UnknownName`."""
        if name not in self.presets:
            raise UnknownName("preset", name, self.presets)
        return self.presets[name]


ADM = {
    "attention_resolutions": "32,16,8",
    "num_channels": 256,
    "num_head_channels": 64,
    "learn_sigma": True,
    "resblock_updown": True,
}
CONDITIONAL = {**ADM, "class_cond": True}
LSUN = {**ADM, "image_size": 256, "dropout": 0.1}


def _guided(
    name: str, file: str, about: str, settings: Mapping[str, Any], script: guided_flags.Script = "image"
) -> Preset:
    return Preset(name, "guided-diffusion", file, about, settings, script)


GUIDED_DIFFUSION = (
    _guided(
        "imagenet64",
        "64x64_diffusion.pt",
        "ImageNet 64x64",
        {
            **CONDITIONAL,
            "image_size": 64,
            "num_channels": 192,
            "num_res_blocks": 3,
            "dropout": 0.1,
            "noise_schedule": "cosine",
            "use_new_attention_order": True,
        },
    ),
    _guided(
        "imagenet128",
        "128x128_diffusion.pt",
        "ImageNet 128x128",
        {**CONDITIONAL, "image_size": 128, "num_heads": 4, "num_head_channels": -1},
    ),
    _guided("imagenet256", "256x256_diffusion.pt", "ImageNet 256x256", {**CONDITIONAL, "image_size": 256}),
    _guided(
        "imagenet256-uncond",
        "256x256_diffusion_uncond.pt",
        "ImageNet without classes",
        {**ADM, "image_size": 256},
    ),
    _guided("imagenet512", "512x512_diffusion.pt", "ImageNet 512x512", {**CONDITIONAL, "image_size": 512}),
    _guided(
        "upsample64-256",
        "64_256_upsampler.pt",
        "ImageNet, from 64 to 256",
        {
            **CONDITIONAL,
            "large_size": 256,
            "small_size": 64,
            "num_channels": 192,
            "num_heads": 4,
            "num_head_channels": -1,
        },
        "upsampler",
    ),
    _guided(
        "upsample128-512",
        "128_512_upsampler.pt",
        "ImageNet, from 128 to 512",
        {
            **CONDITIONAL,
            "large_size": 512,
            "small_size": 128,
            "num_channels": 192,
            "attention_resolutions": "32,16",
        },
        "upsampler",
    ),
    _guided(
        "classifier64",
        "64x64_classifier.pt",
        "noisy classifier",
        {"image_size": 64, "classifier_depth": 4, "noise_schedule": "cosine"},
        "classifier",
    ),
    _guided(
        "classifier128",
        "128x128_classifier.pt",
        "noisy classifier",
        {"image_size": 128},
        "classifier",
    ),
    _guided(
        "classifier256",
        "256x256_classifier.pt",
        "noisy classifier",
        {"image_size": 256},
        "classifier",
    ),
    _guided(
        "classifier512",
        "512x512_classifier.pt",
        "noisy classifier",
        {"image_size": 512},
        "classifier",
    ),
    _guided("lsun-bedroom", "lsun_bedroom.pt", "LSUN bedrooms", LSUN),
    _guided("lsun-cat", "lsun_cat.pt", "LSUN cats", LSUN),
    _guided("lsun-horse", "lsun_horse.pt", "LSUN horses", LSUN),
    _guided(
        "lsun-horse-nodropout",
        "lsun_horse_nodropout.pt",
        "LSUN horses, no dropout",
        {**LSUN, "dropout": 0.0},
    ),
)

SIZES = {  # hidden_size, depth, num_heads
    "xl": (1152, 28, 16),
    "l": (1024, 24, 16),
    "b": (768, 12, 12),
    "s": (384, 12, 6),
}


def _dit(size: str, patch: int, side: int) -> Preset:
    width, depth, heads = SIZES[size]
    settings = {
        "input_size": side // 8,  # of latents
        "patch_size": patch,
        "hidden_size": width,
        "depth": depth,
        "num_heads": heads,
    }
    file = f"DiT-XL-2-{side}x{side}.pt" if (size, patch) == ("xl", 2) else ""
    about = f"ImageNet latents of {side}x{side}"
    return Preset(f"{size}-{patch}-{side}", "dit", file, about, settings)


DIT = tuple(_dit(size, patch, side) for size in SIZES for patch in (2, 4, 8) for side in (256, 512))


def _glide(name: str, about: str, kind: str, sample: Mapping[str, Any], enlarges: bool = False) -> Preset:
    settings = {"kind": kind, "sample": sample, "arguments": glide.OF_UPSAMPLER if enlarges else glide.OF_BASE} | (
        {"side": 256, "small": 64, "schedule": "linear"} if enlarges else {"side": 64}
    )
    return Preset(name, "glide", f"{name.replace('-', '_')}.pt", about, settings)


GLIDE = (
    _glide("base", "texts, 64x64", "Text2ImUNet", glide.base_sampling(3)),
    _glide("upsample", "texts, from 64 to 256", "SuperResText2ImUNet", glide.upsampling("ddim"), enlarges=True),
    _glide("base-inpaint", "texts, completes 64x64", "InpaintText2ImUNet", glide.base_sampling(5)),
    _glide(
        "upsample-inpaint",
        "texts, completes from 64 to 256",
        "SuperResInpaintText2ImUnet",
        glide.upsampling(glide.LEARNED),
        enlarges=True,
    ),
    Preset("clip", "glide", "clip_image_enc.pt clip_text_enc.pt", "noise-aware CLIP", {}),
)

FAMILIES = {
    "guided-diffusion": Family(
        "openai/guided-diffusion", "MIT", guided_diffusion.sizes, {preset.name: preset for preset in GUIDED_DIFFUSION}
    ),
    "glide": Family("openai/glide-text2im", "MIT", glide.sizes, {preset.name: preset for preset in GLIDE}),
    "dit": Family("facebookresearch/DiT", "CC BY-NC 4.0", dit.sizes, {preset.name: preset for preset in DIT}),
}
