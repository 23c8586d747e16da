"""Pipelines of diffusers with tiny networks of random numbers, one for each family."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor, nn

from support.vocabularies import LETTERS

SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    "DDPMScheduler": {"clip_sample": False},
    "EulerDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {
    "FlowMatchEulerDiscreteScheduler": {},
    "UniPCMultistepScheduler": {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
}
STEPS = 4


@dataclass(frozen=True)
class Family:
    """A family of pipelines.

    Args:
        name: of the family.
        make: returns a pipeline with the same numbers every time.
        call: what it is called with.
        weight: the arguments with which it guides by itself.
        negative: what tells it what not to show; empty where nothing does.
        schedulers: that it runs with, and their settings.
        scheduler: the component that is exchanged.
    """

    name: str
    make: Callable[[], Any]
    call: Mapping[str, Any]
    weight: tuple[str, ...] = ("guidance_scale",)
    negative: Mapping[str, Any] | None = None
    schedulers: Mapping[str, Mapping[str, Any]] | None = None
    scheduler: str = "scheduler"


def run(pipe: Any, family: Family, seed: int = 0, **more: Any) -> Tensor:
    """Return what a call gives, from noise of one seed."""
    pipe.set_progress_bar_config(disable=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # some pipelines leave their generator out of a step
        output = pipe(**{"generator": torch.Generator().manual_seed(seed), **family.call, **more})
    return torch.as_tensor(output[0]).double()


def with_scheduler(pipe: Any, family: Family, name: str) -> Any:
    """Give a pipeline another scheduler and return it."""
    settings = (family.schedulers or {})[name]
    setattr(pipe, family.scheduler, getattr(diffusers, name)(**settings))
    return pipe


def seeded(make: Callable[[], Any]) -> Callable[[], Any]:
    """Let a function make the same numbers every time, and none of them zero."""

    @functools.wraps(make)
    def made() -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pipe = make()
            for component in pipe.components.values():
                if isinstance(component, nn.Module):
                    stir(component.eval())
        return pipe

    return made


def stir(network: nn.Module) -> None:
    """Give every parameter that is zero all over, or one all over, small random numbers besides."""
    for parameter in network.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            parameter.data += 0.1 * torch.randn_like(parameter)


# -------------------------------------------------------------------------------------------------------- components


@functools.cache
def clip_tokenizer(length: int = 77) -> Any:
    folder = Path(tempfile.mkdtemp())
    pieces = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=length)


@functools.cache
def t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(ord("!"), ord("~") + 1)]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=64)


def clip_text(width: int = 32, projected: bool = False, length: int = 77) -> Any:
    tokenizer = clip_tokenizer(length)
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=1,
    )
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return kind(config)


def t5_text(width: int = 32) -> Any:
    config = transformers.T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=width,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    )
    return transformers.T5EncoderModel(config)


def vae(channels: int = 4, **more: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=channels,
        **more,
    )


def unet(**more: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 32,
            "attention_head_dim": 4,
            "norm_num_groups": 4,
        }
        | more
    )


def vp() -> dict[str, dict[str, Any]]:
    """Return the schedulers of a discrete process, as Stable Diffusion has it."""
    return {name: {**NOISE, **more} for name, more in SCHEDULERS.items()}


def ddim() -> Any:
    return diffusers.DDIMScheduler(**vp()["DDIMScheduler"])


# ---------------------------------------------------------------------------------------------------------- families


def stable_diffusion(kind: str = "StableDiffusionPipeline", **more: Any) -> Any:
    return getattr(diffusers, kind)(
        **{
            "vae": vae(),
            "text_encoder": clip_text(),
            "tokenizer": clip_tokenizer(),
            "unet": unet(),
            "scheduler": ddim(),
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        | more
    )


def stable_diffusion_inpaint() -> Any:
    return stable_diffusion("StableDiffusionInpaintPipeline", unet=unet(in_channels=9))


def control_net() -> Any:
    return diffusers.ControlNetModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(8, 16),
    )


def stable_diffusion_control() -> Any:
    return stable_diffusion("StableDiffusionControlNetPipeline", controlnet=control_net())


def stable_diffusion_xl(kind: str = "StableDiffusionXLPipeline") -> Any:
    network = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )
    return getattr(diffusers, kind)(
        vae=vae(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=network,
        scheduler=ddim(),
        add_watermarker=False,
    )


def stable_diffusion_3() -> Any:
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=4,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=64,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            pos_embed_max_size=8,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.06),
        text_encoder=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text(64),
        tokenizer_3=t5_tokenizer(),
    )


def flux() -> Any:
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.06),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(),
        tokenizer_2=t5_tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def pixart(kind: str = "PixArtAlphaPipeline") -> Any:
    return getattr(diffusers, kind)(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        vae=vae(),
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=8,
            num_layers=4,
            attention_head_dim=8,
            num_attention_heads=4,
            cross_attention_dim=32,
            caption_channels=32,
            attention_bias=True,
            use_additional_conditions=False,
        ),
        scheduler=ddim(),
    )


def dit() -> Any:
    return diffusers.DiTPipeline(
        transformer=diffusers.DiTTransformer2DModel(
            sample_size=8,
            num_layers=4,
            attention_head_dim=8,
            num_attention_heads=4,
            in_channels=4,
            out_channels=8,
            num_embeds_ada_norm=1000,
            attention_bias=True,
        ),
        vae=vae(),
        scheduler=ddim(),
        id2label={i: f"class {i}" for i in range(1000)},
    )


PROMPT = {"prompt": "a red apple", "num_inference_steps": STEPS, "output_type": "latent"}
SMALL = {"height": 16, "width": 16}
PIXART = {"use_resolution_binning": False, "max_sequence_length": 32, "clean_caption": False}
NEGATIVE = {"negative_prompt": "a blue cube"}


def picture(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("sd", seeded(stable_diffusion), PROMPT | SMALL, negative=NEGATIVE, schedulers=vp()),
        Family("sdxl", seeded(stable_diffusion_xl), PROMPT | SMALL, negative=NEGATIVE, schedulers=vp()),
        Family("sd3", seeded(stable_diffusion_3), PROMPT | SMALL, negative=NEGATIVE, schedulers=FLOW),
        Family(
            "flux",
            seeded(flux),
            PROMPT | SMALL | {"negative_prompt": "", "max_sequence_length": 32, "guidance_scale": 3.5},
            weight=("true_cfg_scale",),
            negative=NEGATIVE,
            schedulers=FLOW,
        ),
        Family("pixart-alpha", seeded(pixart), PROMPT | SMALL | PIXART, negative=NEGATIVE, schedulers=vp()),
        Family(
            "pixart-sigma",
            seeded(functools.partial(pixart, "PixArtSigmaPipeline")),
            PROMPT | SMALL | PIXART,
            negative=NEGATIVE,
            schedulers=vp(),
        ),
        Family(
            "dit",
            seeded(dit),
            {"class_labels": [3, 7], "num_inference_steps": STEPS, "output_type": "np"},
            schedulers=vp(),
        ),
        Family(
            "sd-img2img",
            seeded(functools.partial(stable_diffusion, "StableDiffusionImg2ImgPipeline")),
            PROMPT | {"image": picture(1, 1, 3, 16, 16), "strength": 0.75, "num_inference_steps": 6},
            negative=NEGATIVE,
            schedulers=vp(),
        ),
        Family(
            "sd-inpaint",
            seeded(stable_diffusion_inpaint),
            PROMPT | SMALL | {"image": picture(1, 1, 3, 16, 16), "mask_image": picture(2, 1, 1, 16, 16).round()},
            negative=NEGATIVE,
            schedulers=vp(),
        ),
        Family(
            "sd-controlnet",
            seeded(stable_diffusion_control),
            PROMPT | SMALL | {"image": picture(1, 1, 3, 16, 16)},
            negative=NEGATIVE,
            schedulers=vp(),
        ),
    )
}
