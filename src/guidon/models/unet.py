"""The ADM UNet (Dhariwal & Nichol, arXiv:2105.05233), with a door for every part of a context.

Parameters are named as in openai/guided-diffusion wherever the structure is the same. The only changes of shape are
the attention's ``qkv`` and ``proj_out``: linear maps (C', C) here, 1-wide convolutions (C', C, 1) there. What is
``label_emb`` there is the label encoder's embedding here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported, ShapeMismatch
from guidon.models.inject import CrossAttention, FiLM, beside
from guidon.models.layers import (
    Attention,
    AttentionOrder,
    Downsample,
    GroupNorm,
    Groups,
    ResBlock,
    Signal,
    Stage,
    Upsample,
    time_embedding,
    zeroed,
)
from guidon.registry import register

Count = Annotated[int, Field(ge=1)]


class UNetConfig(BaseModel):
    """Everything that fixes a UNet's shape.

    Args:
        in_channels: image channels; ``out_channels`` is the same, or twice as many where the variance is learned.
        model_channels: the width that ``channel_mult`` multiplies, level by level; each level halves the resolution.
        num_res_blocks: residual blocks per level (one more on the way up); one number, or one per level.
        attention: downsampling factors (1, 2, 4, ...) with self-attention after each block; the middle always has it.
        heads, head_channels: attention heads, by count or (if set) as many as hold at least so many channels each.
        decoder_heads: another count for the way up; None for the same.
        attention_order: layout of the qkv outputs; "qkv-first" is guided-diffusion's ``use_new_attention_order``.
        scale_shift: the embedding scales and shifts (AdaGN) or is added.
        resblock_updown: residual blocks change the resolution.
        conv_resample: else strided and plain convolutions do; false: averages and repeats.
        groups, group_channels: groups of a group norm (or the largest such divisor), or (if set) channels to a group.
            On CPU in bf16 and channels-last, groups of 16 or 32 are up to twenty times faster than narrow ones.
        patch: squares of patch x patch pixels become channels before the first convolution and pixels again at the end.
        vector: how ``Context.vector`` enters: added to the time embedding, or by FiLM of its own.
        vector_width: its width for FiLM; in the embedding it is 4 * model_channels.
        tokens: how ``Context.tokens`` enter: cross-attention blocks, or keys and values appended to self-attention's.
        spatial_channels: channels of ``Context.spatial``, put beside the image's; 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Count = 3
    out_channels: Count = 3
    model_channels: Count = 64
    channel_mult: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1, 2, 2)
    num_res_blocks: Count | tuple[Count, ...] = 2
    attention: tuple[Count, ...] = (2, 4)
    heads: Count = 4
    head_channels: Count | None = None
    decoder_heads: Count | None = None
    attention_order: AttentionOrder = "heads-first"
    scale_shift: bool = True
    resblock_updown: bool = False
    conv_resample: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    groups: Count = 32
    group_channels: Count | None = None
    patch: Count = 1
    vector: Literal["embedding", "film"] | None = "embedding"
    vector_width: Count | None = None
    tokens: Literal["cross", "append"] | None = None
    token_width: Count = 256
    spatial_channels: Annotated[int, Field(ge=0)] = 0

    @property
    def embedding_width(self) -> int:
        """Width of the time embedding."""
        return 4 * self.model_channels

    @property
    def multiple(self) -> int:
        """What image height and width must be divisible by."""
        return self.patch * 2 ** (len(self.channel_mult) - 1)

    @property
    def doors(self) -> dict[str, int]:
        """The parts of a context that this network wants, with the width of each."""
        widths = {
            "vector": (self.vector_width or self.embedding_width) if self.vector else 0,
            "tokens": self.token_width if self.tokens else 0,
            "spatial": self.spatial_channels,
        }
        return {door: width for door, width in widths.items() if width}


@register("network", "unet")
class UNet(nn.Module):
    """UNet with residual blocks, attention, and conditions through any of three doors.

    Args:
        config: its shape.

    Raises:
        BadValue: the numbers of the config do not fit each other.
    """

    Config = UNetConfig
    ends = ("time_embed.0.", "input_blocks.0.", "out.")  # what touches time and pixels: no hidden matrices

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        blocks = _blocks_per_level(config)
        if config.vector == "embedding" and config.vector_width not in (
            None,
            config.embedding_width,
        ):
            raise BadValue(
                f"a vector added to the embedding is {config.embedding_width} wide "
                f"(4 * model_channels), not {config.vector_width}; "
                'leave vector_width out, or choose vector="film"'
            )
        if unknown := [f for f in config.attention if f not in [2**i for i in range(len(config.channel_mult))]]:
            raise BadValue(
                f"attention at downsampling {unknown}, but {len(config.channel_mult)} levels reach "
                f"1..{config.multiple // config.patch}; leave it out, or add levels"
            )
        widths = [int(m * config.model_channels) for m in config.channel_mult]
        self._groups = Groups(config.groups, config.group_channels)
        embedding, square = config.embedding_width, config.patch**2
        image_channels = (config.in_channels + config.spatial_channels) * square

        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )

        channels = widths[0]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(image_channels, channels, 3, padding=1))])
        skips = [channels]
        for level, width in enumerate(widths):
            for _ in range(blocks[level]):
                self.input_blocks.append(Stage(self._res(channels, width), *self._attend(level, width)))
                channels = width
                skips.append(channels)
            if level < len(widths) - 1:
                self.input_blocks.append(Stage(self._resize("down", channels)))
                skips.append(channels)

        self.middle_block = Stage(
            self._res(channels, channels),
            *self._attend(None, channels),
            self._res(channels, channels),
        )

        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(blocks[level] + 1):
                layers = [
                    self._res(channels + skips.pop(), width),
                    *self._attend(level, width, decoder=True),
                ]
                channels = width
                if level and i == blocks[level]:
                    layers.append(self._resize("up", channels))
                self.output_blocks.append(Stage(*layers))

        self.out = nn.Sequential(
            GroupNorm(channels, self._groups),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels, config.out_channels * square, 3, padding=1)),
        )

    def forward(self, x: Tensor, time: Tensor, context: Context | None = None) -> Tensor:
        """Return the raw output.

        Args:
            x: (B, in_channels, H, W), H and W divisible by ``config.multiple``.
            time: (B,) the process's clock, about 0..1000; fractions are fine.
            context: the condition, with exactly the parts that ``config.doors`` names.

        Raises:
            ShapeMismatch: a size or a width does not fit.
            NotSupported: the context lacks a part, or has one that the network has no door for.
        """
        context = context if context is not None else Context()
        self._check(x, time, context)
        if context.spatial is not None:
            x = beside(x, context.spatial, self.config.spatial_channels)

        embedding = self.time_embed(time_embedding(time, self.config.model_channels))  # (B, E)
        if self.config.vector == "embedding":
            embedding = embedding + context.vector
        signal = Signal(embedding, context.vector, context.tokens, context.mask)

        h = F.pixel_unshuffle(x, self.config.patch)  # (B, C p², H/p, W/p)
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            h = stage(h, signal)
            skips.append(h)
        h = self.middle_block(h, signal)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), signal)
        return F.pixel_shuffle(self.out(h), self.config.patch)  # (B, out_channels, H, W)

    def _res(self, channels: int, width: int, resample: Literal["up", "down"] | None = None) -> ResBlock:
        c = self.config
        film = FiLM(c.doors["vector"], width) if c.vector == "film" else None
        return ResBlock(
            channels,
            width,
            c.embedding_width,
            scale_shift=c.scale_shift,
            dropout=c.dropout,
            groups=self._groups,
            resample=resample,
            film=film,
        )

    def _resize(self, direction: Literal["up", "down"], channels: int) -> nn.Module:
        if self.config.resblock_updown:
            return self._res(channels, channels, direction)
        return (Upsample if direction == "up" else Downsample)(channels, self.config.conv_resample)

    def _attend(self, level: int | None, width: int, decoder: bool = False) -> list[nn.Module]:
        """Return the attention layers after a block of a level; None is the middle."""
        c = self.config
        if level is not None and 2**level not in c.attention:
            return []
        heads = (
            (c.decoder_heads if decoder and c.decoder_heads else c.heads)
            if c.head_channels is None
            else max(width // c.head_channels, 1)
        )
        appended = c.token_width if c.tokens == "append" else 0
        layers: list[nn.Module] = [
            Attention(width, heads, order=c.attention_order, groups=self._groups, tokens=appended)
        ]
        if c.tokens == "cross":
            layers.append(CrossAttention(width, heads, c.token_width, self._groups))
        return layers

    def _check(self, x: Tensor, time: Tensor, context: Context) -> None:
        c = self.config
        if x.ndim != 4 or x.shape[1] != c.in_channels:
            raise ShapeMismatch(
                f"the network takes images (B, {c.in_channels}, H, W), not {tuple(x.shape)}; convert them"
            )
        if x.shape[2] % c.multiple or x.shape[3] % c.multiple:
            fitting = tuple(-(-side // c.multiple) * c.multiple for side in x.shape[2:])
            raise ShapeMismatch(
                f"images of {x.shape[2]}x{x.shape[3]} do not divide by {c.multiple} "
                f"(patch {c.patch}, {len(c.channel_mult)} levels); "
                f"resize or pad them to {fitting[0]}x{fitting[1]}, or use fewer levels"
            )
        if time.shape != x.shape[:1]:
            raise ShapeMismatch(f"one time per image: {tuple(time.shape)} times for {len(x)} images")
        if context.batch not in (None, len(x)):
            raise ShapeMismatch(f"a context for {context.batch} images goes with {len(x)}; give one row per image")
        for door in ("vector", "tokens", "spatial"):
            part: Tensor | None = getattr(context, door)
            if (part is None) == (door in c.doors):
                raise NotSupported(
                    f"the network wants {sorted(c.doors) or 'no condition'}, "
                    f"and the context {'lacks' if part is None else 'brings'} {door}; "
                    "use the encoder the network was built with"
                )
            if part is not None and door != "spatial" and part.shape[-1] != c.doors[door]:
                raise ShapeMismatch(
                    f"the {door} are {part.shape[-1]} wide where the network takes {c.doors[door]}; "
                    "set the encoder's width"
                )


def _blocks_per_level(config: UNetConfig) -> tuple[int, ...]:
    if isinstance(config.num_res_blocks, int):
        return (config.num_res_blocks,) * len(config.channel_mult)
    if len(config.num_res_blocks) != len(config.channel_mult):
        raise BadValue(
            f"num_res_blocks {config.num_res_blocks} and channel_mult {config.channel_mult} "
            "differ in length; give one per level"
        )
    return config.num_res_blocks
