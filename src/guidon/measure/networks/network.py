"""What all feature networks have in common: full precision, batches of their own, and a fingerprint of what they are.

Figures compare only where they come from the same network, prepared in the same way. So a network is opened in float32 whatever its
file holds, computes without TF32 or autocast, and is named by a digest of its weights and of how it prepares images.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from guidon.errors import DamagedCheckpoint, MissingFile, NotSupported, ShapeMismatch
from guidon.measure.observe import Observer, digest

BATCH = 50  # images in one forward


class FeatureNetwork(ABC):
    """Names a network; frozen dataclasses, registered under the kind "features".

    Attributes:
        name: of its aspects: "inception" of "inception/features".
    """

    name: ClassVar[str]

    @abstractmethod
    def open(self, device: torch.device | str = "cpu") -> Observer:
        """Return the network, ready to look.

        Raises:
            MissingFile, DamagedCheckpoint: its weights are not there, or are not what they should be.
            NotSupported: a library that it needs is not installed.
        """


class NetworkObserver(Observer):
    """Looks at images through a network.

    Args:
        name: of the aspects.
        network: in float32 on the host; it is moved to the device.
        device: where it computes.
        how: whatever else decides what it sees, in words or numbers.
    """

    def __init__(self, name: str, network: nn.Module, device: torch.device | str, *how: Any) -> None:
        self.name, self.device = name, torch.device(device)
        self.fingerprint = digest(weights_digest(network.state_dict()), name, *how)
        self.network = network.eval().to(self.device)

    def look(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode(), full_precision(self.device):
            for start in range(0, len(images), BATCH):
                rows = slice(start, start + BATCH)
                seen = self.see(images[rows], None if captions is None else captions[rows])
                for aspect, values in seen.items():
                    parts.setdefault(f"{self.name}/{aspect}", []).append(values.float().cpu().numpy())
        return {aspect: np.concatenate(values) for aspect, values in parts.items()}

    @abstractmethod
    def see(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, Tensor]:
        """Return "features" (B, D), and whatever else there is to see, of images uint8 (B, C, H, W)."""


def coloured(images: Tensor) -> Tensor:
    """Return images with three channels; grey ones (B, 1, H, W) have the same thing in each."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ShapeMismatch(
            f"images are grey or RGB, (B, 1 or 3, H, W), not {tuple(images.shape)}; decode latents first"
        )
    return images.expand(-1, 3, -1, -1)


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, the same wherever they are and in whatever file they came."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        content = value.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
        total.update(content.numpy().data)
    return total.hexdigest()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in float32 as it stands: neither autocast nor TF32, whatever is set outside."""
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


def pretrained(loader: str, source: str) -> nn.Module:
    """Return a network of `transformers` in float32, on the host.

    Args:
        loader: the class that opens it, such as "AutoModel".
        source: a folder or a hub id.

    Raises:
        NotSupported: `transformers` is not installed.
        MissingFile: the network is not there.
        DamagedCheckpoint: some of its weights are not.
    """
    transformers = need_transformers()
    source = os.path.expanduser(source)  # noqa: PTH111  a hub id is no path
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            network, found = getattr(transformers, loader).from_pretrained(source, output_loading_info=True)
    except Exception as error:  # the library and the hub's client let errors of several kinds through
        raise absent(source, error) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    if lacking := sorted(found["missing_keys"]):
        raise DamagedCheckpoint(
            f"the weights of {source} lack {len(lacking)} tensors, for instance {lacking[0]}; give a complete {loader}, or copy it again"
        )
    whole: nn.Module = network.float()
    return whole


def need_transformers() -> Any:
    """Return the module `transformers`; raises `NotSupported`."""
    try:
        import transformers
    except ImportError as error:
        raise NotSupported("this network needs transformers; pip install 'guidon[text]'") from error
    return transformers


def absent(source: str, error: Exception) -> MissingFile:
    """Return the error of a network that could not be opened."""
    said = " ".join(str(error).split())[:200]
    return MissingFile(
        f"no network could be opened from {source!r} ({type(error).__name__}: {said}); give a folder that holds it,"
        " or a hub id and a connection to the hub"
    )
