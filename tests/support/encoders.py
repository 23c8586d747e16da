"""Tiny text encoders of others, with random weights, as folders that `transformers` reads."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import pre_tokenizers

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
PAIRS = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>")]
ENDS = ("<|startoftext|>", "<|endoftext|>")


def tiny_clip(folder: Path, context: int = 12, whole: bool = False) -> Path:
    """Write a CLIP text model of that many positions, or with ``whole`` a CLIP with its image model."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), *(a + b for a, b in PAIRS), *ENDS]
    ids = {token: number for number, token in enumerate(tokens)}
    CLIPTokenizer(vocab=ids, merges=PAIRS).save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPTextConfig(
        vocab_size=len(ids),
        max_position_embeddings=context,
        bos_token_id=ids[ENDS[0]],
        eos_token_id=ids[ENDS[1]],
        pad_token_id=ids[ENDS[1]],
        **shape,
    )
    torch.manual_seed(3)
    if whole:
        vision = CLIPVisionConfig(image_size=8, patch_size=4, **shape)
        network = CLIPModel(CLIPConfig(text_config=config.to_dict(), vision_config=vision.to_dict(), projection_dim=8))
    else:
        network = CLIPTextModel(config)
    _spread(network)
    network.save_pretrained(folder)
    return folder


def tiny_t5(folder: Path) -> Path:
    """Write a T5 with pieces of letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁cat", -1.0), ("▁red", -1.5), ("s", -3.0)]
    pieces += [(letter, -5.0) for letter in "abcdefghijklmnopqrtuvwxyz"]
    T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder)
    config = T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    torch.manual_seed(4)
    network = T5EncoderModel(config)
    _spread(network)
    network.save_pretrained(folder)
    return folder


def _spread(network: torch.nn.Module) -> None:
    """Make the weights large enough that every token matters."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
