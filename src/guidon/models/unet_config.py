"""Everything that fixes a UNet's shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from guidon.models.trunk import Count, TrunkConfig


class UNetConfig(TrunkConfig):
    """Everything that fixes a UNet's shape: what `TrunkConfig` does for the way down, and the following.

    Args:
        out_channels: as many as ``in_channels``, or twice as many where the variance is learned.
        decoder_heads: another count of attention heads for the way up; None for the same.
        vector: how ``Context.vector`` enters: added to the time embedding, or by FiLM of its own.
        vector_width: its width for FiLM; in the embedding it is 4 * model_channels.
        tokens: how ``Context.tokens`` enter: cross-attention blocks, or keys and values appended to self-attention's.
        token_width: width of each token.
        spatial_channels: channels of ``Context.spatial``, put beside the image's; 0 for none.
        coordinates: two more channels say in which column and row a pixel stands, from -1 to 1 (arXiv:1807.03247): convolutions
            alone hardly know, and what is told may be "in the top left".
        inner_head: a second, weaker output is read halfway up the decoder, for internal guidance (arXiv:2512.24176).
    """

    out_channels: Count = 3
    decoder_heads: Count | None = None
    vector: Literal["embedding", "film"] | None = "embedding"
    vector_width: Count | None = None
    tokens: Literal["cross", "append"] | None = None
    token_width: Count = 256
    spatial_channels: Annotated[int, Field(ge=0)] = 0
    coordinates: bool = False
    inner_head: bool = False

    @property
    def doors(self) -> dict[str, int]:
        """The parts of a context that this network wants, with the width of each."""
        widths = {
            "vector": (self.vector_width or self.embedding_width) if self.vector else 0,
            "tokens": self.token_width if self.tokens else 0,
            "spatial": self.spatial_channels,
        }
        return {door: width for door, width in widths.items() if width}
