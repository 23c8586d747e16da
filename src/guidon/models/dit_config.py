"""Everything that fixes a DiT's shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from guidon.models.trunk import Count


class DiTConfig(BaseModel):
    """Everything that fixes a DiT's shape.

    Args:
        in_channels: image channels.
        out_channels: as many, or twice as many where the variance is learned.
        patch: squares of patch x patch pixels are one position.
        width: of every position, a multiple of 4 and of ``heads``.
        depth: number of blocks.
        heads: of attention.
        mlp_ratio: hidden units of a block's perceptron for each unit of ``width``.
        vector: how ``Context.vector`` enters: added to the time embedding.
        tokens: how ``Context.tokens`` enter: by cross-attention in every block.
        token_width: width of each token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Count = 3
    out_channels: Count = 3
    patch: Count = 2
    width: Count = 384
    depth: Count = 12
    heads: Count = 6
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    vector: Literal["embedding"] | None = "embedding"
    tokens: Literal["cross"] | None = None
    token_width: Count = 256

    @property
    def multiple(self) -> int:
        """What image height and width must be divisible by."""
        return self.patch

    @property
    def doors(self) -> dict[str, int]:
        """The parts of a context that this network wants, with the width of each."""
        vector = {"vector": self.width} if self.vector else {}
        return vector | ({"tokens": self.token_width} if self.tokens else {})
