"""The network of the Fréchet Inception distance, through `torch-fidelity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from guidon.errors import MissingFile, NotSupported
from guidon.measure.networks.network import FeatureNetwork, NetworkObserver, coloured
from guidon.registry import register


@register("features", "inception")
@dataclass(frozen=True)
class Inception(FeatureNetwork):
    """TensorFlow's Inception of 2015 in torch-fidelity's translation: the pooled layer (D = 2048), and logits without the bias.

    It resizes images to 299x299 itself, bilinearly and without antialiasing, as TensorFlow 1 did. Source: Heusel et al.,
    arXiv 1706.08500; the logits those of Salimans et al., arXiv 1606.03498.

    Args:
        weights: a file of its weights; empty: torch-fidelity downloads them.
    """

    name: ClassVar[str] = "inception"

    weights: str = ""

    def open(self, device: torch.device | str = "cpu") -> InceptionObserver:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise NotSupported(
                "inception needs torch-fidelity: pip install torch-fidelity; or give torchscript('inception-2015-12-05.pt'),"
                " or compare by auto, a classifier trained on the reference"
            ) from error
        try:
            network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], self.weights or None)
        except (OSError, RuntimeError) as error:  # a download that fails is an OSError, a wrong file a RuntimeError
            raise MissingFile(
                f"the weights of inception could not be read ({' '.join(str(error).split())[:200]}); download"
                " weights-inception-2015-12-05-6726825d.pth of torch-fidelity's releases and give inception('FILE')"
            ) from error
        return InceptionObserver(network.float(), device)


class InceptionObserver(NetworkObserver):
    """Sees "inception/features" (B, 2048) and "inception/logits" (B, 1008).

    Args:
        network: gives both of images uint8 (B, 3, H, W).
        device: where it computes.
    """

    def __init__(self, network: nn.Module, device: torch.device | str = "cpu") -> None:
        super().__init__(Inception.name, network, device)

    def see(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, Tensor]:
        features, logits = self.network(coloured(images).to(self.device))
        return {"features": features, "logits": logits}
