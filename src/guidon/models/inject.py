"""Where a context enters a network: FiLM for a vector, cross-attention for tokens, channels beside an image.

Every way starts as doing nothing (zero-initialised), so a condition can be added to a network without disturbing it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from guidon.errors import ShapeMismatch
from guidon.models.attention import attend, check_heads
from guidon.models.layers import ADM_GROUPS, GroupNorm, Groups, Listener, Signal, zeroed


class FiLM(nn.Module):
    """Feature-wise affine map from a condition vector, ``x (1 + scale) + shift`` (arXiv:1709.07871 eq. 1).

    Args:
        width: D of the vector (B, D).
        channels: C of the features (B, C, H, W).
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.affine = zeroed(nn.Linear(width, 2 * channels))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.affine(vector)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


class TokenListener(Listener):
    """Base of the layers in which positions of the image ask and tokens answer (arXiv:2112.10752 §3.3).

    Masked tokens have no influence at all; an image whose tokens are all masked is told nothing.

    Args:
        channels: C, split over ``heads``.
        tokens: width D of the tokens (B, T, D).
    """

    kind = "cross"

    def __init__(self, channels: int, heads: int, tokens: int) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.norm_tokens = nn.LayerNorm(tokens)
        self.query, self.key_value = (
            nn.Linear(channels, channels),
            nn.Linear(tokens, 2 * channels),
        )
        self.proj_out = zeroed(nn.Linear(channels, channels))

    def keys_values(self, tokens: Tensor) -> Tensor:
        return self.key_value(self.norm_tokens(tokens))

    def _answers(self, x: Tensor, signal: Signal) -> Tensor:
        """Return what every position of ``x`` (B, L, C) is told, (B, L, C)."""
        mask, said = signal.mask, self.told(signal)  # (B, T) bool, (B, T, 2C)
        assert said is not None
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, C/heads)
        key, value = said.unflatten(2, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        if mask is None:
            return self.proj_out(attend(query, key, value).transpose(1, 2).flatten(2))
        told = mask.any(dim=1)[
            :, None, None
        ]  # (B, 1, 1): a softmax over nothing is NaN, so such rows see all and keep none
        h = attend(query, key, value, mask[:, None, None, :] | ~told[..., None])
        return self.proj_out(h.transpose(1, 2).flatten(2)) * told


class CrossAttention(TokenListener):
    """What tokens answer to the positions of an image, behind a group norm; (B, C, H, W) -> (B, C, H, W).

    Args:
        channels, heads, tokens: as `TokenListener` has them.
    """

    def __init__(self, channels: int, heads: int, tokens: int, groups: Groups = ADM_GROUPS) -> None:
        super().__init__(channels, heads, tokens)
        self.norm = GroupNorm(channels, groups)

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        h = self._answers(self.norm(x).flatten(2).transpose(1, 2), signal)  # (B, L, C)
        return x + h.transpose(1, 2).reshape(x.shape)


def beside(x: Tensor, spatial: Tensor, channels: int) -> Tensor:
    """Put condition channels after the image's own.

    Args:
        x: (B, C, H, W).
        spatial: (B, channels, H, W), or (B, channels, 1, 1) to be repeated over the image.

    Raises:
        ShapeMismatch: the channels or the size do not fit.
    """
    if spatial.shape[1] != channels:
        raise ShapeMismatch(
            f"the condition has {spatial.shape[1]} channels where the network takes {channels}; "
            f"encode it to {channels}, or build the network with spatial_channels={spatial.shape[1]}"
        )
    if spatial.shape[2:] != x.shape[2:] and tuple(spatial.shape[2:]) != (1, 1):
        raise ShapeMismatch(
            f"a condition image of {tuple(spatial.shape[2:])} beside an image of {tuple(x.shape[2:])}; "
            "resize it, or give (B, C, 1, 1)"
        )
    return torch.cat([x, spatial.to(x.dtype).expand(-1, -1, *x.shape[2:])], dim=1)


def coordinates(x: Tensor) -> Tensor:
    """Return the column and the row of every pixel of images (B, C, H, W), each from -1 to 1: (B, 2, H, W)."""
    height, width = x.shape[2:]
    columns = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device).expand(height, width)
    rows = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)[:, None].expand(height, width)
    return torch.stack([columns, rows]).expand(len(x), -1, -1, -1)
