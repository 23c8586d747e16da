"""What a model that is told texts needs beside its network: how texts become tokens, and tokens a context."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from torch import nn

from guidon.conditioning.tokenizer import TokenizerConfig
from guidon.models.text import TextTransformer, TextTransformerConfig
from guidon.models.trunk import Count


class TextConfig(BaseModel):
    """What a model of texts is told by.

    Args:
        tokenizer: how a text becomes a row of tokens.
        vocabulary: how many tokens there are.
        encoder: what makes a context of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer: TokenizerConfig
    vocabulary: Count
    encoder: TextTransformerConfig


def text_encoder(config: TextConfig, doors: Mapping[str, int]) -> nn.Module:
    """Return the module that turns `Texts` into the context of a network with these doors."""
    return TextTransformer(config.encoder, config.vocabulary, config.tokenizer.context, doors)
