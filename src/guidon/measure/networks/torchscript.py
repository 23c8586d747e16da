"""Any network in a TorchScript file, among them the Inception that NVIDIA published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from guidon.errors import BadValue, DamagedCheckpoint, MissingFile, NotSupported, ShapeMismatch
from guidon.measure.networks.network import FeatureNetwork, NetworkObserver, coloured
from guidon.measure.networks.resizing import squeezed
from guidon.measure.observe import digest
from guidon.registry import register

Pixels = Literal["uint8", "unit", "signed"]
OF_NVIDIA = {"return_features", "no_output_bias"}


@register("features", "torchscript")
@dataclass(frozen=True)
class TorchScript(FeatureNetwork):
    """A TorchScript file that turns RGB images (B, 3, H, W) into features (B, D), such as NVIDIA's inception-2015-12-05.pt.

    A file whose forward takes ``return_features`` and ``no_output_bias``, as NVIDIA's does, is asked for its features (2048) and, as
    logits, for the logarithm of its class probabilities. Such a file runs whatever its author put into it: take it from its publisher.

    Args:
        file: written by ``torch.jit.save``.
        pixels: what it is given: "uint8" of 0 to 255 (NVIDIA's), or float32 of [0, 1] ("unit") or [-1, 1] ("signed").
        size: side to resize images to first, bicubically; 0: the file takes any (NVIDIA's does).
    """

    name: ClassVar[str] = "torchscript"

    file: str
    pixels: str = "uint8"
    size: int = 0

    def __post_init__(self) -> None:
        if self.pixels not in get_args(Pixels):
            raise BadValue(f"a TorchScript file is given pixels as {', '.join(get_args(Pixels))}, not {self.pixels!r}")
        if self.size < 0:
            raise BadValue(f"size is that of the images to show, or 0 for theirs, not {self.size}")

    def open(self, device: torch.device | str = "cpu") -> TorchScriptObserver:
        path = Path(self.file).expanduser()
        if not path.is_file():
            raise MissingFile(f"there is no TorchScript file {path}; download it, and give its path")
        try:
            network = torch.jit.load(path, map_location="cpu")
        except (RuntimeError, torch.jit.Error) as error:
            raise DamagedCheckpoint(
                f"{path} is no TorchScript file ({str(error).splitlines()[0]}); a file of weights alone cannot be run: save the network"
                " with torch.jit.save, or download the file again"
            ) from error
        return TorchScriptObserver(network, device, self.pixels, self.size, digest(path.read_bytes()))


class TorchScriptObserver(NetworkObserver):
    """Sees "torchscript/features" (B, D) and, of a file like NVIDIA's, "torchscript/logits" (B, K).

    Args:
        network: the file's.
        device: where it computes.
        pixels, size: as of `TorchScript`.
        content: fingerprint of the file.
    """

    def __init__(self, network: nn.Module, device: torch.device | str, pixels: str, size: int, content: str) -> None:
        super().__init__(TorchScript.name, network, device, content, pixels, size)
        self.pixels, self.size = pixels, size
        forward: Any = network.forward
        self.of_nvidia = {argument.name for argument in forward.schema.arguments} >= OF_NVIDIA

    def see(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, Tensor]:
        shown = coloured(images) if not self.size else squeezed(coloured(images), self.size)
        shown = shown.to(self.device)
        if self.pixels != "uint8":
            shown = shown.float() / 255 if self.pixels == "unit" else shown.float() / 127.5 - 1
        try:
            if self.of_nvidia:
                seen = {
                    "features": self.network(shown, return_features=True),
                    "logits": self.network(shown, no_output_bias=True).double().clamp_min(1e-300).log(),
                }
            else:
                seen = {"features": self.network(shown)}
        except (RuntimeError, torch.jit.Error) as error:
            raise NotSupported(
                f"the TorchScript file cannot look at images {tuple(shown.shape[1:])} given as {self.pixels}"
                f" ({str(error).strip().splitlines()[-1]}); say what it takes: torchscript('FILE', pixels='unit', size=224)"
            ) from error
        features = seen["features"]
        if not isinstance(features, Tensor) or features.shape[:1] != images.shape[:1]:
            raise ShapeMismatch(
                "the TorchScript file does not give one tensor with a row for each image; wrap it so that it does"
            )
        return seen | {"features": features.flatten(1)}
