"""How a classifier turns feature maps into logits: the four heads of openai/guided-diffusion's EncoderUNetModel.

Parameters are named and shaped as there, but for the 1-wide convolutions of attention, which are linear maps (C', C) here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from guidon.errors import ShapeMismatch
from guidon.models.attention import attend
from guidon.models.layers import GroupNorm, Groups, zeroed

Pool = Literal["attention", "average", "spatial", "spatial-v2"]
HIDDEN = 2048  # units between the features and the logits of the spatial heads


class AttentionPool(nn.Module):
    """The mean of all positions asks them, and itself, what class it is (Radford et al., arXiv:2103.00020 §2.4).

    Args:
        channels: C, split over ``heads``.
        classes: K.
        positions: L, of the feature maps; each has a learned embedding.
    """

    def __init__(self, channels: int, classes: int, positions: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, positions + 1) / channels**0.5)
        self.qkv_proj = nn.Linear(channels, 3 * channels)
        self.c_proj = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K); raises `ShapeMismatch` for maps of another size than was learned."""
        flat = x.flatten(2)  # (B, C, L)
        tokens = torch.cat([flat.mean(2, keepdim=True), flat], 2)
        if tokens.shape[2] != self.positional_embedding.shape[1]:
            raise ShapeMismatch(
                f"attention pooling over {flat.shape[2]} positions where {self.positional_embedding.shape[1] - 1} were "
                "learned; give images of the size that the classifier was built for"
            )
        tokens = (tokens + self.positional_embedding).transpose(1, 2)  # (B, L + 1, C), the mean first
        query, key, value = self.qkv_proj(tokens).unflatten(2, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        answer = attend(query[:, :, :1], key, value)  # (B, heads, 1, C/heads)
        return self.c_proj(answer.flatten(1))


def pooling(pool: Pool, channels: int, classes: int, *, positions: int, heads: int, groups: Groups) -> nn.Sequential:
    """Return the head of a classifier.

    Args:
        pool: "attention" and "average" take the last feature map (B, C, H, W), the spatial ones the means of all (B, C).
        channels: C.
        classes: K, of the logits (B, K) that it gives.
        positions, heads: for attention.
        groups: of the group norm.

    Source: guided-diffusion, EncoderUNetModel; "average" is ``adaptive`` there, "spatial-v2" is ``spatial_v2``.
    """
    match pool:
        case "attention":
            asked = AttentionPool(channels, classes, positions, heads)
            return nn.Sequential(GroupNorm(channels, groups), nn.SiLU(), asked)
        case "average":
            linear = zeroed(nn.Conv2d(channels, classes, 1))
            return nn.Sequential(GroupNorm(channels, groups), nn.SiLU(), nn.AdaptiveAvgPool2d(1), linear, nn.Flatten())
        case "spatial":
            return nn.Sequential(nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
        case _:
            hidden, norm = nn.Linear(channels, HIDDEN), GroupNorm(HIDDEN, groups)
            return nn.Sequential(hidden, norm, nn.SiLU(), nn.Linear(HIDDEN, classes))
