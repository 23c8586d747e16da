"""The diffusion transformer with adaptive layer norms (Peebles & Xie, arXiv:2212.09748).

Parameters are named and shaped as in facebookresearch/DiT. What is ``y_embedder`` there is the label encoder here, and the
fixed ``pos_embed`` is computed. Letters in shape comments: B images, H W rows and columns of patches, D the width.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported, UnknownName
from guidon.models.attention import SelfAttention, check_heads, offered
from guidon.models.dit_config import DiTConfig
from guidon.models.inject import TokenListener
from guidon.models.layers import Listener, Signal, Stage, time_embedding
from guidon.models.perturb import Perturbed
from guidon.models.question import check_context, check_images, signal_of
from guidon.registry import register

FREQUENCIES = 256  # width of the sinusoidal embedding of the time


def positions(height: int, width: int, channels: int) -> Tensor:
    """Return the fixed embedding of every position of a grid, (height, width, channels), float64.

    The first half of the channels tells the column, the second the row, each by sines, then cosines.
    """

    def along(count: int) -> Tensor:
        rates = 10000 ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
        angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], 1)  # (count, channels / 2)

    columns, rows = along(width)[None], along(height)[:, None]
    return torch.cat([columns.expand(height, -1, -1), rows.expand(-1, width, -1)], 2)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise every position of ``x`` (B, H, W, D), then scale and shift it as the image is told, (B, 1, 1, D)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class AdaptiveNorm(nn.Sequential):
    """Gives ``parts`` tensors (B, 1, 1, D) for an embedding (B, D) (adaLN, §3.2)."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__(nn.SiLU(), nn.Linear(width, parts * width))
        self.parts = parts

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        return super().forward(embedding)[:, None, None].chunk(self.parts, dim=-1)


class PatchAttention(SelfAttention):
    """Self-attention over patches; (B, H, W, D) -> (B, H, W, D)."""

    skippable = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        joined = self.qkv(x.flatten(1, 2)).unflatten(2, (3, self.heads, -1))  # (B, L, 3, heads, d)
        query, key, value = joined.transpose(1, 3).unbind(2)
        return self.proj(self._answers((query, key, value), x.shape[1:3], signal)).view_as(x)


class PatchCrossAttention(TokenListener):
    """What tokens answer to the patches, behind a norm that nothing modulates; (B, H, W, D) -> (B, H, W, D).

    Source: Chen et al., arXiv 2310.00426, section 2.3: between self-attention and perceptron, zero before training. The norm is not
    theirs; without it the questions grow with the depth.
    """

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        return self._answers(F.layer_norm(x, x.shape[-1:], eps=1e-6).flatten(1, 2), signal).view_as(x)


class DiTBlock(Listener):
    """Attention, cross-attention where there are tokens, then a perceptron; each but the second behind an adaptive norm and a gate."""

    kind = "block"

    def __init__(self, width: int, heads: int, mlp_ratio: float, tokens: int = 0) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attn = PatchAttention(width, heads)
        self.cross_attn = PatchCrossAttention(width, heads, tokens) if tokens else None
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, hidden), act=nn.GELU("tanh"), fc2=nn.Linear(hidden, width))
        )
        self.adaLN_modulation = AdaptiveNorm(width, 6)

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(signal.embedding)
        x = x + gate * self.attn(modulated(x, shift, scale), signal)
        if self.cross_attn is not None:
            x = x + self.cross_attn(x, signal)
        return x + gate_mlp * self.mlp(modulated(x, shift_mlp, scale_mlp))


class PatchEmbedder(nn.Module):
    """A linear map of every patch; (B, C, H p, W p) -> (B, H, W, D)."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class TimeEmbedder(nn.Module):
    """A perceptron over sines and cosines of the time; (B,) -> (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(time_embedding(time, FREQUENCIES).to(dtype))


class FinalLayer(nn.Module):
    """Turns every position into the pixels of its patch; (B, H, W, D) -> (B, C, H p, W p)."""

    def __init__(self, width: int, patch: int, channels: int) -> None:
        super().__init__()
        self.patch = patch
        self.linear = nn.Linear(width, patch**2 * channels)
        self.adaLN_modulation = AdaptiveNorm(width, 2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        pixels = self.linear(modulated(x, *self.adaLN_modulation(embedding)))
        grid = pixels.unflatten(3, (self.patch, self.patch, -1))  # (B, H, W, p, p, C)
        return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


@register("network", "dit")
class DiT(nn.Module):
    """Transformer over patches, conditioned on time and a vector by adaptive layer norms, on tokens by cross-attention.

    Args:
        config: its shape.

    Attributes:
        perturbations: for each perturbation that it offers (see `Perturbation`), the layers where it can act: blocks
            ("block.3") are skipped, their attention ("block.3.attention") is weakened.

    Raises:
        BadValue: the numbers of the config do not fit each other.
    """

    Config = DiTConfig
    # what touches time and pixels: no hidden matrices
    ends = ("x_embedder.", "t_embedder.mlp.0.", "final_layer.")
    label_deviation = 0.02  # of the label encoder's rows before training, as in the authors' code

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if config.width % 4:
            raise BadValue(
                f"the width is a multiple of 4, for sines and cosines of rows and columns; it is {config.width}"
            )
        self.config = config
        self.x_embedder = PatchEmbedder(config.in_channels, config.patch, config.width)
        self.t_embedder = TimeEmbedder(config.width)
        tokens = config.doors.get("tokens", 0)
        self.blocks = Stage(
            *(DiTBlock(config.width, config.heads, config.mlp_ratio, tokens) for _ in range(config.depth))
        )
        self.final_layer = FinalLayer(config.width, config.patch, config.out_channels)
        self._initialise()

        layers: dict[str, Listener] = {}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, DiTBlock)
            block.name, block.attn.name = f"block.{i}", f"block.{i}.attention"
            layers |= {block.name: block, block.attn.name: block.attn}
            if block.cross_attn is not None:
                block.cross_attn.name = f"block.{i}.cross"
        self.perturbations = offered(layers)

    def suggested(self, perturbation: str) -> tuple[str, ...]:
        """Return the layers that a perturbation of this name weakens where none are named.

        Of attention that of the middle block, as with the papers' UNets. What is skipped is an eighth of the blocks, from 7/24 of
        the depth on: of 24 blocks 7 to 9, as the authors of SD3.5 do. Raises `UnknownName`.
        """
        if perturbation not in self.perturbations:
            raise UnknownName("perturbation", perturbation, self.perturbations)
        depth = self.config.depth
        first, count = (7 * depth // 24, max(depth // 8, 1)) if perturbation == "skip" else (depth // 2, 1)
        return self.perturbations[perturbation][first : first + count]

    def forward(
        self, x: Tensor, time: Tensor, context: Context | None = None, perturbed: Perturbed = (), inner: bool = False
    ) -> Tensor:
        """Return the raw output.

        Args:
            x: (B, in_channels, H, W), H and W divisible by ``config.patch``.
            time: (B,) the process's clock, about 0..1000; fractions are fine.
            context: the condition, with exactly the parts that ``config.doors`` names.
            perturbed: which rows of the batch are weakened, and how; the others are not touched.
            inner: refused; there is no inner head.

        Raises:
            ShapeMismatch: a size or a width does not fit.
            NotSupported: the context lacks a part, or has one that the network has no door for; a perturbation is not offered.
        """
        if inner:
            raise NotSupported("a dit has no inner head; use a unet with architecture.inner_head: true")
        context = context if context is not None else Context()
        check_images(self.config, x, time)
        check_context(self.config.doors, context, len(x))
        embedding = self.t_embedder(time, x.dtype)  # (B, D)
        signal = signal_of(self, embedding, context, perturbed, added=self.config.vector == "embedding")
        h = self.x_embedder(x)  # (B, H, W, D)
        h = self.blocks(h + positions(*h.shape[1:]).to(x), signal)
        return self.final_layer(h, signal.embedding)

    def _initialise(self) -> None:
        """Draw the weights as the paper does: uniform by fan-in and fan-out, small in the time embedding.

        Every gate is zero, and so is every answer of tokens.
        """
        for name, parameter in self.named_parameters():
            if ".norm_tokens." in name:
                continue
            if name.endswith("bias") or "adaLN" in name or "proj_out" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
            elif name.startswith("t_embedder"):
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.xavier_uniform_(parameter.view(len(parameter), -1))
