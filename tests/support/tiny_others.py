"""Tiny pipelines of further families, among them those that guide in ways of their own."""

from __future__ import annotations

import functools
import sys
from typing import Any

import diffusers
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from support.tiny_further import ADDED, EMBEDS, KANDINSKY
from support.tiny_pipelines import (
    FLOW,
    NEGATIVE,
    PROMPT,
    SMALL,
    Family,
    ddim,
    seeded,
    t5_text,
    t5_tokenizer,
    unet,
    vae,
    vp,
)

PRINTABLE = [chr(code) for code in range(ord("!"), ord("~") + 1)]


def numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}


# -------------------------------------------------------------------------------------------------------- components


@functools.cache
def qwen_tokenizer() -> Any:
    pieces = [*bytes_to_unicode().values(), "<|endoftext|>"]
    return transformers.Qwen2Tokenizer(vocab=numbered(pieces), merges=[])


def qwen_text(width: int = 32) -> Any:
    size = {"hidden_size": width, "intermediate_size": 37}
    text = {
        **size,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": len(qwen_tokenizer()),
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_parameters": {"mrope_section": [2, 3, 3], "rope_type": "default", "rope_theta": 1e6},
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text, vision_config={**size, "depth": 1, "num_heads": 2, "out_hidden_size": width}
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


@functools.cache
def gemma_tokenizer() -> Any:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *PRINTABLE]
    tokenizer = transformers.GemmaTokenizer(vocab=numbered(pieces), merges=[], model_max_length=64)
    tokenizer.add_bos_token = True  # nothing is one token, not none
    tokenizer.padding_side = "right"
    return tokenizer


def gemma_text(kind: str = "Gemma2", width: int = 32) -> Any:
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(gemma_tokenizer()),
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.3,
    )
    return getattr(transformers, f"{kind}Model")(config)


@functools.cache
def bert_tokenizer() -> Any:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return transformers.BertTokenizer(vocab=numbered(pieces), model_max_length=77)


@functools.cache
def roberta_tokenizer() -> Any:
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(piece, -3.0) for piece in PRINTABLE]
    return transformers.XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=77)


BERT = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}


def bert_text() -> Any:
    config = transformers.BertConfig(vocab_size=len(bert_tokenizer()), **BERT, initializer_range=0.3)
    return transformers.BertModel(config)


# ---------------------------------------------------------------------------------------------------------- families


def qwen_image() -> Any:
    return diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=qwen_text(),
        tokenizer=qwen_tokenizer(),
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(8, 4, 4),
        ),
    )


def sana() -> Any:
    return diffusers.SanaPipeline(
        tokenizer=gemma_tokenizer(),
        text_encoder=gemma_text(),
        vae=diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
        ),
        transformer=diffusers.SanaTransformer2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=32,
            caption_channels=32,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def cog_video() -> Any:
    return diffusers.CogVideoXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        vae=diffusers.AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
        ),
        transformer=diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=32,
            num_layers=2,
            sample_width=4,
            sample_height=4,
            sample_frames=9,
            max_text_seq_length=16,
        ),
        scheduler=diffusers.CogVideoXDDIMScheduler(**COG["CogVideoXDDIMScheduler"]),
    )


def hunyuan_dit() -> Any:
    return diffusers.HunyuanDiTPipeline(
        vae=vae(),
        text_encoder=bert_text(),
        tokenizer=bert_tokenizer(),
        transformer=diffusers.HunyuanDiT2DModel(
            sample_size=8,
            num_layers=4,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=4,
            in_channels=4,
            hidden_size=32,
            cross_attention_dim=32,
            cross_attention_dim_t5=32,
            pooled_projection_dim=16,
        ),
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=t5_text(),
        tokenizer_2=t5_tokenizer(),
    )


def kandinsky_1() -> Any:
    home = sys.modules[diffusers.KandinskyPipeline.__module__]
    texts = sys.modules[home.MultilingualCLIP.__module__]
    config = texts.MCLIPConfig(
        transformerDimSize=32,
        imageDimSize=32,
        vocab_size=len(roberta_tokenizer()),
        max_position_embeddings=80,
        initializer_range=0.3,
        **BERT,
    )
    return diffusers.KandinskyPipeline(
        text_encoder=texts.MultilingualCLIP(config),
        tokenizer=roberta_tokenizer(),
        unet=unet(
            **ADDED,
            in_channels=4,
            out_channels=8,
            addition_embed_type="text_image",
            encoder_hid_dim=32,
            encoder_hid_dim_type="text_image_proj",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=8,
        ),
        scheduler=diffusers.DDIMScheduler(**KANDINSKY, clip_sample=False),
        movq=diffusers.VQModel(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            num_vq_embeddings=12,
            norm_num_groups=4,
        ),
    )


def latte() -> Any:
    return diffusers.LattePipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        vae=vae(),
        transformer=diffusers.LatteTransformer3DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=32,
            out_channels=8,
            attention_bias=True,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            video_length=2,
        ),
        scheduler=ddim(),
    )


def chroma() -> Any:
    return diffusers.ChromaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.06),
        text_encoder=t5_text(),
        tokenizer=t5_tokenizer(),
        transformer=diffusers.ChromaTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=16,
            approximator_hidden_dim=32,
            approximator_layers=1,
        ),
    )


COG = {
    "CogVideoXDDIMScheduler": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "CogVideoXDPMScheduler": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}
EULER = {"FlowMatchEulerDiscreteScheduler": FLOW["FlowMatchEulerDiscreteScheduler"]}
BRIEF = {"max_sequence_length": 16}

OTHERS: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "qwen-image",
            seeded(qwen_image),
            PROMPT | SMALL | {"negative_prompt": " ", "max_sequence_length": 256},
            weight=("true_cfg_scale",),
            negative=NEGATIVE,
            schedulers=EULER,
        ),
        Family(
            "sana",
            seeded(sana),
            PROMPT
            | BRIEF
            | {"height": 32, "width": 32, "use_resolution_binning": False, "complex_human_instruction": None},
            negative=NEGATIVE,
            schedulers=FLOW,
        ),
        Family(
            "cogvideox",
            seeded(cog_video),
            PROMPT | {"height": 32, "width": 32, "num_frames": 9} | BRIEF,
            negative=NEGATIVE,
            schedulers=COG,
        ),
        Family(
            "hunyuan-dit",
            seeded(hunyuan_dit),
            PROMPT | SMALL | {"use_resolution_binning": False},
            negative=NEGATIVE,
            schedulers=vp(),
        ),
        Family(
            "kandinsky",
            seeded(kandinsky_1),
            {"prompt": "a red apple", "num_inference_steps": 4, "output_type": "pt"} | EMBEDS | SMALL,
            negative=NEGATIVE,
            schedulers={"DDIMScheduler": KANDINSKY | {"clip_sample": False}},
        ),
        Family(
            "latte",
            seeded(latte),
            PROMPT | SMALL | {"video_length": 2, "clean_caption": False},
            negative=NEGATIVE,
            schedulers=vp(),
        ),
        Family("chroma", seeded(chroma), PROMPT | SMALL | BRIEF, negative=NEGATIVE, schedulers=EULER),
    )
}
