"""The network of a classifier of noisy images: a UNet's way down, and a head that pools (arXiv:2105.05233 §4.3).

Parameters are named as in openai/guided-diffusion's EncoderUNetModel; for their shapes see `Trunk`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.models.layers import Signal
from guidon.models.pooling import Pool, pooling
from guidon.models.question import check_images
from guidon.models.trunk import Count, Trunk, TrunkConfig


class EncoderUNetConfig(TrunkConfig):
    """Everything that fixes its shape: what `TrunkConfig` does for the way down, and the following.

    Args:
        size: side of the square images that it takes.
        out_channels: the number of classes.
        pool: how feature maps become logits: the mean position attends to all (the released classifiers), the average over
            positions, or the means of every stage, without or with a norm between.
    """

    size: Count = 32
    out_channels: Count = 10
    head_channels: Count | None = 64
    pool: Pool = "attention"


class EncoderUNet(Trunk):
    """Gives logits of noisy images, differentiable in the image.

    Args:
        config: its shape.

    Raises:
        BadValue: the numbers of the config do not fit each other.
    """

    Config = EncoderUNetConfig
    config: EncoderUNetConfig
    ends = ("time_embed.0.", "input_blocks.0.", "out.")

    def __init__(self, config: EncoderUNetConfig) -> None:
        if config.size % config.multiple:
            raise BadValue(
                f"images of {config.size}x{config.size} do not divide by {config.multiple}; "
                "use a smaller patch or fewer levels, or another size"
            )
        if config.pool == "attention" and config.head_channels is None:
            raise BadValue(
                'attention pooling counts its heads by head_channels; set it, or choose pool="average", "spatial" or "spatial-v2"'
            )
        super().__init__(config, config.in_channels)
        self._by_stage = config.pool.startswith("spatial")
        width = config.widths[-1]
        self.out = pooling(
            config.pool,
            sum(self.skips) + width if self._by_stage else width,
            config.out_channels,
            positions=(config.size // config.multiple) ** 2,
            heads=self._heads(width),
            groups=self._groups,
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the logits (B, classes).

        Args:
            x: (B, in_channels, H, W), H and W divisible by ``config.multiple``; with attention pooling of ``config.size``.
            time: (B,) the process's clock, about 0..1000; fractions are fine.

        Raises:
            ShapeMismatch: a size does not fit.
        """
        check_images(self.config, x, time)
        h, stages = self._descend(x, Signal(self._embed(time, x)))
        if self._by_stage:
            h = torch.cat([stage.mean(dim=(2, 3)) for stage in (*stages, h)], dim=1)  # (B, all channels)
        return self.out(h)
