"""The way down of an ADM UNet: what the denoising network and the noisy classifier have in common.

Parameters are named as in openai/guided-diffusion wherever the structure is the same. The only changes of shape are 1-wide
convolutions (C', C, 1) there, which are linear maps (C', C) here: the attention's ``qkv`` and ``proj_out``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from guidon.errors import BadValue
from guidon.models.attention import Attention, AttentionOrder
from guidon.models.layers import (
    Downsample,
    Groups,
    ResBlock,
    Signal,
    Stage,
    Upsample,
    time_embedding,
)

Count = Annotated[int, Field(ge=1)]


class TrunkConfig(BaseModel):
    """Everything that fixes the shape of a UNet's way down.

    Args:
        in_channels: image channels.
        model_channels, channel_mult: the width, and what it is multiplied by level by level; each level halves the resolution.
        num_res_blocks: residual blocks per level (one more on the way up); one number, or one per level.
        attention: downsampling factors (1, 2, 4, ...) with self-attention after each block; the middle always has it.
        heads, head_channels: attention heads, by count or (if set) as many as hold at least so many channels each.
        attention_order: layout of the qkv outputs; "qkv-first" is guided-diffusion's ``use_new_attention_order``.
        scale_shift: the embedding scales and shifts (AdaGN) or is added.
        resblock_updown: residual blocks change the resolution.
        conv_resample: else strided and plain convolutions do; false: averages and repeats.
        dropout: share of the features that residual blocks drop in training.
        groups, group_channels: groups of a group norm (or the largest such divisor), or (if set) channels to a group.
            On CPU in bf16 and channels-last, groups of 16 or 32 are up to twenty times faster than narrow ones.
        patch: squares of patch x patch pixels become channels before the first convolution.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Count = 3
    model_channels: Count = 64
    channel_mult: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1, 2, 2)
    num_res_blocks: Count | tuple[Count, ...] = 2
    attention: tuple[Count, ...] = (2, 4)
    heads: Count = 4
    head_channels: Count | None = None
    attention_order: AttentionOrder = "heads-first"
    scale_shift: bool = True
    resblock_updown: bool = False
    conv_resample: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    groups: Count = 32
    group_channels: Count | None = None
    patch: Count = 1

    @property
    def embedding_width(self) -> int:
        """Width of the time embedding."""
        return 4 * self.model_channels

    @property
    def multiple(self) -> int:
        """What image height and width must be divisible by."""
        return self.patch * 2 ** (len(self.channel_mult) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(int(m * self.model_channels) for m in self.channel_mult)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Residual blocks of every level on the way down; raises `BadValue` where the numbers do not fit."""
        if isinstance(self.num_res_blocks, int):
            return (self.num_res_blocks,) * len(self.channel_mult)
        if len(self.num_res_blocks) != len(self.channel_mult):
            raise BadValue(
                f"num_res_blocks {self.num_res_blocks} and channel_mult {self.channel_mult} "
                "differ in length; give one per level"
            )
        return self.num_res_blocks


class Trunk(nn.Module):
    """Time embedding, residual blocks and attention level by level, and the middle.

    Args:
        config: its shape.
        image_channels: what comes in, condition channels included.

    Attributes:
        skips: channels of what each stage of ``input_blocks`` gives.

    Raises:
        BadValue: the numbers of the config do not fit each other.
    """

    config: TrunkConfig

    def __init__(self, config: TrunkConfig, image_channels: int) -> None:
        super().__init__()
        self.config = config
        if unknown := [f for f in config.attention if f not in [2**i for i in range(len(config.channel_mult))]]:
            raise BadValue(
                f"attention at downsampling {unknown}, but {len(config.channel_mult)} levels reach "
                f"1..{config.multiple // config.patch}; leave it out, or add levels"
            )
        blocks, widths = config.blocks, config.widths
        self._groups = Groups(config.groups, config.group_channels)
        embedding = config.embedding_width

        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )

        channels = widths[0]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(image_channels * config.patch**2, channels, 3, padding=1))])
        self.skips = [channels]
        for level, width in enumerate(widths):
            for _ in range(blocks[level]):
                self.input_blocks.append(Stage(self._res(channels, width), *self._attend(level, width)))
                channels = width
                self.skips.append(channels)
            if level < len(widths) - 1:
                self.input_blocks.append(Stage(self._resize("down", channels)))
                self.skips.append(channels)

        self.middle_block = Stage(
            self._res(channels, channels),
            *self._attend(None, channels),
            self._res(channels, channels),
        )

    def _embed(self, time: Tensor, x: Tensor) -> Tensor:
        """Return the embedding (B, E) of times (B,), of the type of ``x``."""
        return self.time_embed(time_embedding(time, self.config.model_channels).to(x.dtype))

    def _descend(self, x: Tensor, signal: Signal) -> tuple[Tensor, list[Tensor]]:
        """Return what the middle gives for images (B, C, H, W), and what every stage before it gave."""
        h = F.pixel_unshuffle(x, self.config.patch)  # (B, C p², H/p, W/p)
        stages: list[Tensor] = []
        for stage in self.input_blocks:
            h = stage(h, signal)
            stages.append(h)
        return self.middle_block(h, signal), stages

    def _res(self, channels: int, width: int, resample: Literal["up", "down"] | None = None) -> ResBlock:
        return ResBlock(
            channels,
            width,
            self.config.embedding_width,
            scale_shift=self.config.scale_shift,
            dropout=self.config.dropout,
            groups=self._groups,
            resample=resample,
            film=self._film(width),
        )

    def _resize(self, direction: Literal["up", "down"], channels: int) -> nn.Module:
        if self.config.resblock_updown:
            return self._res(channels, channels, direction)
        return (Upsample if direction == "up" else Downsample)(channels, self.config.conv_resample)

    def _attend(self, level: int | None, width: int, heads: int | None = None) -> list[nn.Module]:
        """Return the attention layers after a block of a level; None is the middle. ``heads``: another count of them."""
        if level is not None and 2**level not in self.config.attention:
            return []
        return self._attention(width, self._heads(width, heads))

    def _heads(self, width: int, heads: int | None = None) -> int:
        by_channels = self.config.head_channels
        return (heads or self.config.heads) if by_channels is None else max(width // by_channels, 1)

    def _film(self, width: int) -> nn.Module | None:
        """Return what modulates a block of so many channels by the condition alone."""
        return None

    def _attention(self, width: int, heads: int) -> list[nn.Module]:
        """Return the layers with which positions ask each other, or what else a network listens to."""
        return [Attention(width, heads, order=self.config.attention_order, groups=self._groups)]
