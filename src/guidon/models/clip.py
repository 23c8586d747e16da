"""Two encoders, of noisy images and of texts, whose features agree where a text is about an image (CLIP, told the time).

Layers are named as in openai/glide-text2im's clip/encoders.py. Letters in shape comments: B images or texts, L positions (one for
the time, then the patches; or the tokens), W the width of an encoder, E that of the features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from guidon.conditioning.text import Texts
from guidon.errors import BadValue, ShapeMismatch
from guidon.models.attention import attend
from guidon.models.text import checked
from guidon.models.trunk import Count

MEANS, DEVIATIONS = (122.77093945, 116.74601272, 104.09373519), (68.50053285, 66.63215831, 70.32316309)  # of 0..255


class ClipConfig(BaseModel):
    """Everything that fixes the shapes of both encoders; the defaults are those of the released ones.

    Args:
        size: side of the square images.
        patch: side of a patch, which divides ``size``.
        times: entries of the table of times.
        vocabulary: rows of the table of tokens, at least as many as the tokenizer has.
        context: tokens of a text.
        features: E, of both encoders.
        image_layers, image_heads, text_layers, text_heads: of each transformer.
        head_channels: width of a head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Count = 64
    patch: Count = 4
    times: Count = 1000
    vocabulary: Count = 65536
    context: Count = 77
    features: Count = 512
    image_layers: Count = 12
    image_heads: Count = 12
    text_layers: Count = 12
    text_heads: Count = 8
    head_channels: Count = 64


class ClipAttention(nn.Module):
    """Every position asks those that it may see; (B, L, W) -> (B, L, W), added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln = nn.LayerNorm(width)
        self.f_q, self.f_k = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.f_v, self.f_c = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        h = self.ln(x)
        query, key, value = (
            f(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.f_q, self.f_k, self.f_v)
        )
        return x + self.f_c(attend(query, key, value, visible).transpose(1, 2).flatten(2))


class ClipPerceptron(nn.Module):
    """A perceptron for each position, four times as wide inside, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.f_1, self.f_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f_2(F.gelu(self.f_1(self.ln(x))))


class ClipBlock(nn.Module):
    """Attention, then a perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.f_attn, self.f_mlp = ClipAttention(width, heads), ClipPerceptron(width)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        return self.f_mlp(self.f_attn(x, visible))


class Patches(nn.Module):
    """An image as positions: the time's row first, then the patches; (B, 3, H, W) and (B,) -> (B, L, W)."""

    def __init__(self, width: int, config: ClipConfig) -> None:
        super().__init__()
        deviation = width**-0.5
        self.w_t = nn.Parameter(deviation * torch.randn(config.times, width))
        self.w_pos = nn.Parameter(deviation * torch.randn(1 + (config.size // config.patch) ** 2, width))
        self.patch_proj = nn.Parameter((2**0.5 * deviation / config.patch) * torch.randn(width, 3, *[config.patch] * 2))
        self.ln = nn.LayerNorm(width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        means, deviations = (
            torch.tensor(each, dtype=x.dtype, device=x.device)[:, None, None] for each in (MEANS, DEVIATIONS)
        )
        seen = ((x + 1) * 127.5 - means) / deviations
        patches = F.conv2d(seen, self.patch_proj, stride=self.patch_proj.shape[2:]).flatten(2).transpose(1, 2)
        return self.ln(torch.cat([self.row(time)[:, None], patches], dim=1) + self.w_pos)

    def row(self, time: Tensor) -> Tensor:
        """Return the rows of times (B,), between two entries of the table linear: (B, W)."""
        last = len(self.w_t) - 1
        at = time.to(self.w_t.dtype).clamp(0, last)
        below = at.floor().long()
        return torch.lerp(self.w_t[below], self.w_t[(below + 1).clamp(max=last)], (at - below)[:, None])


class Tokens(nn.Module):
    """A text as positions; (B, L) -> (B, L, W)."""

    def __init__(self, width: int, config: ClipConfig) -> None:
        super().__init__()
        self.w_voc = nn.Parameter(0.02 * torch.randn(config.vocabulary, width))
        self.w_pos = nn.Parameter(0.01 * torch.randn(config.context, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.w_voc) + self.w_pos


class Features(nn.Module):
    """One position as features; (B, W) -> (B, E), each of length 1."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.ln, self.f = nn.LayerNorm(width), nn.Linear(width, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.f(self.ln(x)), dim=1)


class ImageEncoder(nn.Module):
    """Features of images that are noisy, told how noisy; differentiable in the image.

    Args:
        config: its shape.

    Raises:
        BadValue: the side does not divide into patches.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        if config.size % config.patch:
            raise BadValue(
                f"images of side {config.size} do not divide into patches of {config.patch}; change one of them"
            )
        self.config = config
        width = config.image_heads * config.head_channels
        self.blocks = _blocks(Patches(width, config), width, config.image_heads, config.image_layers, config.features)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the features (B, E) of noisy images.

        Args:
            x: (B, 3, size, size).
            time: (B,) entries of the table, 0..times - 1, also between two; what lies outside is taken for the nearest.

        Raises:
            ShapeMismatch: the images are of another size.
        """
        wanted = (3, self.config.size, self.config.size)
        if x.ndim != 4 or x.shape[1:] != wanted or time.shape != x.shape[:1]:
            raise ShapeMismatch(
                f"images (B, {', '.join(map(str, wanted))}) and times (B,) are wanted, not {tuple(x.shape)} and {tuple(time.shape)}"
            )
        first, *between, last = self.blocks.values()
        h = first(x, time)  # (B, L, W)
        for block in between:
            h = block(h)
        return last(h[:, 0])


class TextEncoder(nn.Module):
    """Features of texts; every token sees those before it, and the last real one stands for the text.

    Args:
        config: its shape.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        width = config.text_heads * config.head_channels
        self.blocks = _blocks(Tokens(width, config), width, config.text_heads, config.text_layers, config.features)

    def forward(self, texts: Texts) -> Tensor:
        """Return the features (B, E) of texts; raises as `checked` does."""
        length, device = self.config.context, next(self.parameters()).device
        tokens, mask = checked(texts, length, self.config.vocabulary, device)
        first, *between, last = self.blocks.values()
        h = first(tokens)  # (B, L, W)
        before = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        for block in between:
            h = block(h, before)
        end = mask.sum(1) - 1
        return last(h[torch.arange(len(h), device=device), end])


def _blocks(first: nn.Module, width: int, heads: int, layers: int, features: int) -> nn.ModuleDict:
    between = {f"block_{i}": ClipBlock(width, heads) for i in range(layers)}
    return nn.ModuleDict({"input": first, **between, "output": Features(width, features)})
