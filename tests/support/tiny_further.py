"""Tiny pipelines that are not of the Stable Diffusion kind: cascades of pixels, priors, video."""

from __future__ import annotations

import functools
import sys
from typing import Any

import diffusers
import transformers

from support.tiny_pipelines import (
    FLOW,
    NEGATIVE,
    PROMPT,
    SMALL,
    Family,
    clip_text,
    clip_tokenizer,
    picture,
    seeded,
    t5_text,
    t5_tokenizer,
    unet,
    vae,
)

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
ADDED = {
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
}
"""The UNet of Imagen: attention sees text and image together."""
PIXELS = {  # those that know of learned variances; the others the pipeline cannot run with
    "DDPMScheduler": COSINE
    | {"variance_type": "learned_range", "thresholding": True, "sample_max_value": 1.5, "clip_sample": False},
    "DPMSolverMultistepScheduler": COSINE | {"thresholding": True, "sample_max_value": 1.5, "lambda_min_clipped": -5.1},
}


def deep_floyd(kind: str = "IFPipeline", **more: Any) -> Any:
    inputs = 6 if kind == "IFSuperResolutionPipeline" else 3
    stage = {"class_embed_type": "timestep"} if inputs == 6 else {}
    network = unet(
        **ADDED,
        **stage,
        in_channels=inputs,
        out_channels=6,
        cross_attention_dim=32,
        encoder_hid_dim=32,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=8,
        act_fn="gelu",
        time_embedding_act_fn="gelu",
        resnet_skip_time_act=True,
        resnet_out_scale_factor=1.414,
        only_cross_attention=False,
        conv_in_kernel=3,
        conv_out_kernel=3,
    )
    return getattr(diffusers, kind)(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        unet=network,
        scheduler=diffusers.DDPMScheduler(**PIXELS["DDPMScheduler"]),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
        **more,
    )


def deep_floyd_larger() -> Any:
    noising = diffusers.DDPMScheduler(**COSINE, clip_sample=False)
    return deep_floyd("IFSuperResolutionPipeline", image_noising_scheduler=noising)


def prior(**more: Any) -> Any:
    return diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=4,
        embedding_dim=32,
        num_embeddings=77,
        additional_embeddings=4,
        **more,
    )


def unclip() -> Any:
    home = sys.modules[diffusers.UnCLIPPipeline.__module__]  # which has moved
    decoder = unet(
        **ADDED,
        in_channels=3,
        out_channels=6,
        class_embed_type="identity",
        cross_attention_dim=32,
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=8,
    )
    larger = [
        diffusers.UNet2DModel(
            sample_size=16,
            layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
            up_block_types=("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
            block_out_channels=(16, 32),
            norm_num_groups=4,
            in_channels=6,
            out_channels=3,
        )
        for _ in range(2)
    ]
    return diffusers.UnCLIPPipeline(
        prior=prior(),
        decoder=decoder,
        text_encoder=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        text_proj=home.UnCLIPTextProjModel(
            clip_extra_context_tokens=4, clip_embeddings_dim=32, time_embed_dim=64, cross_attention_dim=32
        ),
        super_res_first=larger[0],
        super_res_last=larger[1],
        prior_scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        decoder_scheduler=diffusers.UnCLIPScheduler(variance_type="learned_range"),
        super_res_scheduler=diffusers.UnCLIPScheduler(),
    )


def kandinsky() -> Any:
    network = unet(
        **ADDED,
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        encoder_hid_dim=32,
        encoder_hid_dim_type="image_proj",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=8,
    )
    movq = diffusers.VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        num_vq_embeddings=12,
        vq_embed_dim=4,
        norm_num_groups=4,
    )
    settings = KANDINSKY | {"variance_type": "learned_range"}
    return diffusers.KandinskyV22Pipeline(
        unet=network, scheduler=diffusers.DDPMScheduler(clip_sample=False, **settings), movq=movq
    )


def kandinsky_prior() -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        image_size=8,
        patch_size=4,
        projection_dim=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    processor = transformers.CLIPImageProcessorPil(size=8, crop_size=8)
    return diffusers.KandinskyV22PriorPipeline(
        prior=prior(),
        image_encoder=transformers.CLIPVisionModelWithProjection(vision),
        text_encoder=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0
        ),
        image_processor=processor,
    )


def umt5_text() -> Any:
    config = transformers.UMT5Config(
        vocab_size=len(t5_tokenizer()), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4
    )
    return transformers.UMT5EncoderModel(config)


def aura_flow() -> Any:
    return diffusers.AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5_text(),
        vae=vae(sample_size=32),
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_mmdit_layers=2,
            num_single_dit_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            out_channels=4,
            pos_embed_max_size=64,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def wan_network() -> Any:
    return diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=16,
        ffn_dim=32,
        num_layers=4,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )


def wan(two: bool = False) -> Any:
    return diffusers.WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=umt5_text(),
        vae=diffusers.AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=wan_network(),
        transformer_2=wan_network() if two else None,
        boundary_ratio=0.875 if two else None,
    )


def ltx() -> Any:
    return diffusers.LTXPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
        ),
        text_encoder=t5_text(),
        tokenizer=t5_tokenizer(),
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=16,
            cross_attention_dim=32,
            num_layers=4,
            caption_channels=32,
        ),
    )


VIDEO = {"num_frames": 9, "max_sequence_length": 16}
EMBEDS = {name: (picture(seed, 1, 32) * 2 - 1) for seed, name in enumerate(("image_embeds", "negative_image_embeds"))}
KANDINSKY = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012}
TEXT = {"prompt": "a red apple", "num_inference_steps": 4}

FURTHER: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "if",
            seeded(deep_floyd),
            TEXT | {"output_type": "pt", "clean_caption": False, "height": 8, "width": 8},
            negative=NEGATIVE,
            schedulers=PIXELS,
        ),
        Family(
            "if-sr",
            seeded(deep_floyd_larger),
            TEXT
            | {"output_type": "pt", "clean_caption": False, "image": picture(1, 1, 3, 8, 8), "height": 16, "width": 16},
            negative=NEGATIVE,
            schedulers=PIXELS,
        ),
        Family(
            "unclip",
            seeded(unclip),
            {
                "prompt": "a red apple",
                "prior_num_inference_steps": 4,
                "decoder_num_inference_steps": 4,
                "super_res_num_inference_steps": 2,
                "output_type": "np",
            },
            weight=("prior_guidance_scale", "decoder_guidance_scale"),
        ),
        Family(
            "kandinsky22",
            seeded(kandinsky),
            EMBEDS | SMALL | {"num_inference_steps": 4, "output_type": "latent"},
            schedulers={
                name: KANDINSKY | more
                for name, more in (
                    ("DDPMScheduler", {"variance_type": "learned_range", "clip_sample": False}),
                    ("DDIMScheduler", {"clip_sample": False}),
                )
            },
        ),
        Family("kandinsky22-prior", seeded(kandinsky_prior), TEXT | {"output_type": "pt"}, negative=NEGATIVE),
        Family(
            "auraflow",
            seeded(aura_flow),
            PROMPT | {"height": 16, "width": 16, "max_sequence_length": 16},
            negative=NEGATIVE,
            schedulers={"FlowMatchEulerDiscreteScheduler": {}},
        ),
        Family("wan", seeded(wan), PROMPT | SMALL | VIDEO, negative=NEGATIVE, schedulers=FLOW),
        Family(
            "wan-2.2",
            seeded(functools.partial(wan, True)),
            PROMPT | SMALL | VIDEO,
            negative=NEGATIVE,
            schedulers=FLOW,
        ),
        Family(
            "ltx",
            seeded(ltx),
            PROMPT | {"height": 32, "width": 32} | VIDEO,
            negative=NEGATIVE,
            schedulers={"FlowMatchEulerDiscreteScheduler": {}},
        ),
    )
}
