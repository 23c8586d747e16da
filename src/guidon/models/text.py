"""A transformer over the tokens of a text, trained along with the network that it tells about them.

Parameters are named as in openai/glide-text2im, so that released weights fit. Letters in shape comments: B texts, L tokens of a
text, W the width of the transformer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from guidon.conditioning import Context, Texts
from guidon.errors import BadValue, ShapeMismatch
from guidon.models.attention import attend, check_heads
from guidon.models.trunk import Count


class TextTransformerConfig(BaseModel):
    """What fixes a text transformer's shape, but for vocabulary and length.

    Args:
        width: of every token, W.
        layers: number of blocks.
        heads: of attention.
        padding: what stands where a text has ended: "learned", a row of its own for every position, which others attend to, as in
            GLIDE; "plain", the padding token, as any other; "masked", nothing that anything attends to.
        pool: which position becomes the vector: "last" (GLIDE; of those that are not masked), or "first".
        final_norm: whether a norm follows the last block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["transformer"] = "transformer"
    width: Count = 256
    layers: Count = 4
    heads: Count = 4
    padding: Literal["learned", "plain", "masked"] = "masked"
    pool: Literal["last", "first"] = "first"
    final_norm: bool = True


class TokenAttention(nn.Module):
    """Every token asks every other; (B, L, W) -> (B, L, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.c_qkv, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        query, key, value = self.c_qkv(x).unflatten(2, (self.heads, 3, -1)).transpose(1, 2).unbind(3)
        return self.c_proj(attend(query, key, value, visible).transpose(1, 2).flatten(2))


class TextBlock(nn.Module):
    """Attention, then a perceptron, each behind a norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = TokenAttention(width, heads)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=nn.GELU(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), visible)
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    """Blocks one after the other."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        for block in self.resblocks:
            x = block(x, visible)
        return x


class TextTransformer(nn.Module):
    """Turns texts into a vector, a row for every token, or both: whatever doors a network has.

    Args:
        config: its shape.
        vocabulary: how many tokens there are.
        length: tokens of a text, L.
        doors: widths that the network expects, by door: "vector", "tokens".

    Raises:
        BadValue: the numbers do not fit each other, or there is a door that no text goes through.

    Source: Nichol et al., arXiv 2112.10741, section 2.1 and appendix on the architecture.
    """

    # what touches words and other widths: no hidden matrices
    ends = ("token_embedding.", "positional_embedding", "padding_embedding", "transformer_proj.", "tokens_proj.")

    def __init__(self, config: TextTransformerConfig, vocabulary: int, length: int, doors: Mapping[str, int]) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.5 * torch.randn(length, width))
        self.padding_embedding = (
            nn.Parameter(0.01 * torch.randn(length, width)) if config.padding == "learned" else None
        )
        self.transformer = Blocks(width, config.heads, config.layers)
        self.final_ln = nn.LayerNorm(width) if config.final_norm else nn.Identity()
        self.transformer_proj = nn.Linear(width, doors["vector"]) if "vector" in doors else None
        tokens = doors.get("tokens", width)
        self.tokens_proj = nn.Linear(width, tokens) if tokens != width else nn.Identity()
        self._told_tokens = "tokens" in doors

    def forward(self, texts: Texts) -> Context:
        """Return the context of a batch of texts; its mask is that of the texts where padding is masked.

        Raises:
            ShapeMismatch: they are of another length.
            BadValue: a token is none of the vocabulary.
        """
        length = len(self.positional_embedding)
        tokens, mask = checked(texts, length, self.token_embedding.num_embeddings, self.device)
        x = self.token_embedding(tokens) + self.positional_embedding  # (B, L, W)
        visible = None
        if self.padding_embedding is not None:
            x = torch.where(mask[..., None], x, self.padding_embedding)
        elif self.config.padding == "masked":
            visible = (mask | ~mask.any(1, keepdim=True))[:, None, None, :]  # a softmax over nothing would be NaN
        x = self.final_ln(self.transformer(x, visible))
        return Context(
            vector=None if self.transformer_proj is None else self.transformer_proj(self._pooled(x, mask)),
            tokens=self.tokens_proj(x) if self._told_tokens else None,
            mask=mask if self._told_tokens and self.config.padding == "masked" else None,
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.positional_embedding.device

    def _pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return one position (B, W) of each text."""
        if self.config.pool == "first":
            return x[:, 0]
        if self.config.padding != "masked":
            return x[:, -1]
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
        return x[torch.arange(len(x), device=x.device), last]


def checked(texts: Texts, length: int, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tokens and mask (B, L) on a device.

    Raises:
        ShapeMismatch: the texts are of another length.
        BadValue: a token is none of the vocabulary.
    """
    tokens, mask = texts.tokens.to(device), texts.mask.to(device)
    if tokens.shape[1] != length:
        raise ShapeMismatch(
            f"texts of {tokens.shape[1]} tokens for an encoder of {length}; make them with the model's own tokenizer"
        )
    if tokens.is_meta or not len(tokens):
        return tokens, mask
    if strange := [token for token in (int(tokens.min()), int(tokens.max())) if not 0 <= token < vocabulary]:
        raise BadValue(
            f"tokens go from 0 to {vocabulary - 1}, and there is {strange[0]}; use the model's own tokenizer"
        )
    return tokens, mask
