"""What a model that is told texts needs beside its network: how texts become tokens, and tokens a context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Tag
from torch import nn

from guidon.conditioning.tokenizer import TokenizerConfig
from guidon.models.frozen_text import FrozenText, FrozenTextConfig
from guidon.models.text import TextTransformer, TextTransformerConfig
from guidon.models.trunk import Count


def _kind(encoder: Any) -> Any:
    """Return which of the encoders is meant; one that does not say is a transformer."""
    return encoder.get("kind", "transformer") if isinstance(encoder, Mapping) else getattr(encoder, "kind", None)


TextEncoderConfig = Annotated[
    Annotated[TextTransformerConfig, Tag("transformer")] | Annotated[FrozenTextConfig, Tag("frozen")],
    Discriminator(_kind),
]
"""What makes a context of tokens: a transformer that is trained along, or an encoder that stays as it is."""


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
    encoder: TextEncoderConfig


def text_encoder(config: TextConfig, doors: Mapping[str, int]) -> nn.Module:
    """Return the module that turns `Texts` into the context of a network with these doors."""
    length = config.tokenizer.context
    if isinstance(config.encoder, FrozenTextConfig):
        return FrozenText(config.encoder, length, doors)
    return TextTransformer(config.encoder, config.vocabulary, length, doors)
