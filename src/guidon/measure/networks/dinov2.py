"""DINOv2, the network of FD-DINOv2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import NotSupported
from guidon.measure.networks.network import FeatureNetwork, NetworkObserver, coloured, pretrained
from guidon.measure.networks.resizing import normalised, squeezed
from guidon.registry import register

SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@register("features", "dinov2")
@dataclass(frozen=True)
class DinoV2(FeatureNetwork):
    """A DINOv2 of the hub: its class token after the last norm (D = 1024 of the large one).

    Images are resized to 224x224 by PIL's bicubic filter, whatever their proportions, as dgm-eval does, which published FD-DINOv2.
    `transformers` brings the table of positions to 16x16 without the small offset of the authors' own code, so features differ from
    theirs slightly. Source: Stein et al., arXiv 2306.04675.

    Args:
        source: a hub id, or a folder.
    """

    name: ClassVar[str] = "dinov2"

    source: str = "facebook/dinov2-large"

    def open(self, device: torch.device | str = "cpu") -> DinoV2Observer:
        network = pretrained("AutoModel", self.source)
        kind = getattr(network.config, "model_type", "")
        if not kind.startswith("dinov2"):
            raise NotSupported(f"{self.source} is a {kind}, not a DINOv2; give one, such as facebook/dinov2-large")
        return DinoV2Observer(network, device)


class DinoV2Observer(NetworkObserver):
    """Sees "dinov2/features" (B, D)."""

    def __init__(self, network: torch.nn.Module, device: torch.device | str = "cpu") -> None:
        super().__init__(DinoV2.name, network, device, "PIL bicubic", SIDE, MEAN, DEVIATION)

    def see(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, Tensor]:
        shown = normalised(squeezed(coloured(images), SIDE), MEAN, DEVIATION, self.device)
        return {"features": self.network(pixel_values=shown).last_hidden_state[:, 0]}
