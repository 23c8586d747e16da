"""Networks whose features sets of images are compared by: importing this registers them all under the kind "features"."""

from guidon.measure.networks.classifier import Classifier
from guidon.measure.networks.clip import Clip
from guidon.measure.networks.dinov2 import DinoV2
from guidon.measure.networks.inception import Inception
from guidon.measure.networks.network import FeatureNetwork, NetworkObserver, weights_digest
from guidon.measure.networks.torchscript import TorchScript

__all__ = [
    "Classifier",
    "Clip",
    "DinoV2",
    "FeatureNetwork",
    "Inception",
    "NetworkObserver",
    "TorchScript",
    "weights_digest",
]
