"""Everything that fixes a UNet's shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from guidon.errors import BadValue
from guidon.models.layers import AttentionOrder

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
        inner_head: a second, weaker output is read halfway up the decoder, for internal guidance (arXiv:2512.24176).
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
    inner_head: bool = False

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
