"""Networks of the published shapes have the published number of parameters, in millions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from guidon.models import DiT, DiTConfig, EncoderUNet, EncoderUNetConfig, UNet, UNetConfig

MULT = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (0.5, 1, 1, 2, 2, 4, 4)}


def millions(network: nn.Module, rows: int = 0, width: int = 0) -> int:
    """Count parameters; ``rows`` of a label table are as many more of the network's own width."""
    return round((sum(p.numel() for p in network.parameters()) + rows * width) / 1e6)


def adm(size: int) -> dict[str, object]:
    """Return what networks for images of that size share: attention where 32, 16 and 8 positions are on a side."""
    return {
        "channel_mult": MULT[size],
        "attention": tuple(size // side for side in (32, 16, 8)),
        "head_channels": 64,
        "resblock_updown": True,
    }


@pytest.mark.parametrize(
    ("size", "width", "blocks", "want"), [(64, 192, 3, 296), (256, 256, 2, 554), (512, 256, 2, 559)]
)
def test_the_denoising_networks_of_adm(size: int, width: int, blocks: int, want: int) -> None:
    config = UNetConfig(**adm(size), model_channels=width, num_res_blocks=blocks, out_channels=6)
    with torch.device("meta"):
        assert millions(UNet(config), 1000, config.embedding_width) == want


@pytest.mark.parametrize(("size", "blocks", "want"), [(64, 4, 65), (128, 2, 43), (256, 2, 54), (512, 2, 54)])
def test_the_classifiers_of_adm(size: int, blocks: int, want: int) -> None:
    config = EncoderUNetConfig(**adm(size), size=size, model_channels=128, num_res_blocks=blocks, out_channels=1000)
    with torch.device("meta"):
        assert millions(EncoderUNet(config)) == want


@pytest.mark.parametrize(
    ("width", "depth", "heads", "want"),
    [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)],
)
def test_the_four_sizes_of_dit(width: int, depth: int, heads: int, want: int) -> None:
    with torch.device("meta"):
        network = DiT(DiTConfig(in_channels=4, out_channels=8, width=width, depth=depth, heads=heads))
    assert millions(network, 1001, width) == want
