"""Self-attention over the positions of an image, and where it can be weakened.

Letters in shape comments: B images, C channels, H W rows and columns, L = H * W positions, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidon.errors import BadValue
from guidon.models.layers import ADM_GROUPS, GroupNorm, Groups, Listener, Signal, zeroed
from guidon.models.perturb import blur, with_rows

AttentionOrder = Literal["heads-first", "qkv-first"]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend from (B, heads, L, d) to (B, heads, T, d); ``mask`` is true where a key may be seen.

    Short sequences in half precision on CPU are multiplied out: torch 2.13's fused kernel is five times slower there.
    """
    if query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16) and key.shape[2] <= 128:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, heads, L, T)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1, dtype=query.dtype) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def check_heads(channels: int, heads: int) -> None:
    """Raise `BadValue` unless channels split into that many heads."""
    if channels % heads:
        raise BadValue(
            f"{channels} channels do not split into {heads} heads; choose heads or head_channels that divide them"
        )


class SelfAttention(Listener):
    """Base of the layers in which the positions of an image ask each other.

    Two perturbations act here: "attention-identity" lets a position attend to itself alone (PAG, arXiv:2403.17377),
    "query-blur" blurs the queries (SEG, arXiv:2408.00760).
    """

    kind = "attention"

    def _answers(
        self,
        queries: tuple[Tensor, ...],
        size: Sequence[int],
        signal: Signal,
        appended: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Return what every position is told: (B, L, C).

        Args:
            queries: query, key and value, each (B, heads, L, d).
            size: (H, W), rows and columns of positions.
            signal: which rows of the batch are weakened; its mask says which appended tokens are real.
            appended: keys and values of tokens, (B, heads, T, d).
        """
        query, key, value = queries
        own, mask, weakened = value, None, self.weakened(signal)
        for perturbation, rows in weakened:
            if perturbation.name == "query-blur":
                query = with_rows(query, rows, blur(query[rows], size, perturbation.amount))
        if appended:
            key, value = torch.cat([appended[0], key], dim=2), torch.cat([appended[1], value], dim=2)
            if signal.mask is not None:
                mask = F.pad(signal.mask, (0, query.shape[2]), value=True)[:, None, None, :]
        h = attend(query, key, value, mask)
        for perturbation, rows in weakened:
            if perturbation.name == "attention-identity":
                h = with_rows(h, rows, own[rows])
        return h.transpose(1, 2).flatten(2)


class Attention(SelfAttention):
    """Self-attention over positions; token keys and values may join the image's own (GLIDE, arXiv:2112.10741 §2.1).

    Args:
        channels: C, split over ``heads``.
        order: how the 3C outputs of ``qkv`` are laid out: heads outermost (the original) or q, k, v outermost.
        tokens: width of the tokens whose keys and values are put before the image's; 0 for none.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        order: AttentionOrder = "heads-first",
        groups: Groups = ADM_GROUPS,
        tokens: int = 0,
    ) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads, self.order = heads, order
        self.norm = GroupNorm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.encoder_kv = nn.Linear(tokens, 2 * channels) if tokens else None
        self.proj_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        flat = self.norm(x).flatten(2).transpose(1, 2)  # (B, L, C)
        appended: tuple[Tensor, ...] = ()
        if (said := self.told(signal)) is not None:
            appended = self._split(said, 2)
        h = self._answers(self._split(self.qkv(flat), 3), x.shape[2:], signal, appended)
        return x + self.proj_out(h).transpose(1, 2).reshape(x.shape)

    def keys_values(self, tokens: Tensor) -> Tensor | None:
        return None if self.encoder_kv is None else self.encoder_kv(tokens)

    def _split(self, joined: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, L, parts * C) -> ``parts`` tensors (B, heads, L, C/heads)."""
        if self.order == "heads-first":
            return joined.unflatten(2, (self.heads, parts, -1)).transpose(1, 2).unbind(3)
        return joined.unflatten(2, (parts, self.heads, -1)).transpose(1, 3).unbind(2)


def offered(layers: Mapping[str, Listener]) -> dict[str, tuple[str, ...]]:
    """Return for every perturbation the layers, by name, that it can act on; "time-noise" acts on the time embedding."""
    attention = tuple(name for name, layer in layers.items() if isinstance(layer, SelfAttention))
    skippable = tuple(name for name, layer in layers.items() if layer.skippable)
    return {"attention-identity": attention, "query-blur": attention, "skip": skippable, "time-noise": ()}
