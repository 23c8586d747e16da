"""The building blocks of the UNet, named as in openai/guided-diffusion so that released weights fit.

Letters in shape comments: B images, C channels, H W rows and columns, L = H * W positions, E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from guidon.conditioning.condition import Projected
from guidon.models.perturb import with_rows
from guidon.perturbation import Perturbation

M = TypeVar("M", bound=nn.Module)


class Signal(NamedTuple):
    """What every block of a network may listen to besides the image."""

    embedding: Tensor  # (B, E) time, with the vector condition added where it enters there
    vector: Tensor | None = None  # (B, D) for FiLM
    tokens: Tensor | None = None  # (B, T, D)
    mask: Tensor | None = None  # (B, T) bool, true = real token
    projected: Projected | None = None  # keys and values of the tokens, where they were made beforehand
    weak: Mapping[str, Sequence[tuple[Perturbation, slice]]] | None = None  # by layer: which rows are weakened, and how


class Stage(nn.Sequential):
    """Layers in a row; those that listen get the signal as well.

    Attributes:
        checkpointing: whether what a listening layer computes is forgotten, and computed again for its gradient.
    """

    checkpointing = False

    def forward(self, x: Tensor, signal: Signal) -> Tensor:  # type: ignore[override]
        forgetful = self.checkpointing and torch.is_grad_enabled()
        for layer in self:
            if not isinstance(layer, Listener):
                x = layer(x)
                continue
            before, x = x, checkpoint(layer, x, signal, use_reentrant=False) if forgetful else layer(x, signal)
            for perturbation, rows in layer.weakened(signal):
                if perturbation.name == "skip":
                    x = with_rows(x, rows, before[rows])
        return x


def checkpoint_stages(network: nn.Module) -> None:
    """Let all stages of a network compute again for the gradient what they computed for the output."""
    for stage in network.modules():
        if isinstance(stage, Stage):
            stage.checkpointing = True


class Listener(nn.Module):
    """Base of the layers called as ``layer(x, signal)``.

    Attributes:
        kind: what it is, for its name.
        name: where it stands in its network; given by the network.
        skippable: whether it can be left out, that is, adds to its input.
    """

    kind = "layer"
    name = ""
    skippable = True

    def keys_values(self, tokens: Tensor) -> Tensor | None:
        """Return the keys and values (B, T, 2C) of tokens (B, T, D); None for a layer that does not listen to tokens."""
        return None

    def told(self, signal: Signal) -> Tensor | None:
        """Return the keys and values of what is said, made now or beforehand; None where no tokens are heard."""
        if signal.tokens is None:
            return None
        if signal.projected is not None and self.name in signal.projected.layers:
            return signal.projected.of(self.name)
        return self.keys_values(signal.tokens)

    def weakened(self, signal: Signal) -> Sequence[tuple[Perturbation, slice]]:
        """Return which rows of the batch are weakened in this layer, and how."""
        return () if signal.weak is None else signal.weak.get(self.name, ())


class Groups(NamedTuple):
    """How channels are grouped for normalisation: in ``most`` groups or fewer, or (if set) ``channels`` to a group."""

    most: int = 32
    channels: int | None = None

    def of(self, width: int) -> int:
        """Return the number of groups for that many channels: always a divisor of ``width``."""
        return math.gcd(self.most, width) if self.channels is None else width // math.gcd(self.channels, width)


ADM_GROUPS = Groups()


class GroupNorm(nn.GroupNorm):
    """Group normalisation with eps 1e-5."""

    def __init__(self, channels: int, groups: Groups = ADM_GROUPS) -> None:
        super().__init__(groups.of(channels), channels)

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad and self.weight.requires_grad and torch.is_grad_enabled():
            x = x.contiguous()  # torch 2.13 crashes in the CPU channels-last backward when x itself needs no gradient
        return super().forward(x)


def time_embedding(time: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding, cosines first; time (B,) -> (B, width). Frequencies exp(-ln(10000) i / (width / 2))."""
    half = width // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angles = time.float()[:, None] * rates  # (B, half)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


def zeroed(module: M) -> M:
    """Set every parameter of a module to zero, so that its branch starts by adding nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def half_size(x: Tensor) -> Tensor:
    """Average 2x2; (B, C, H, W) -> (B, C, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


def double_size(x: Tensor) -> Tensor:
    """Repeat 2x2; (B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Downsample(nn.Module):
    """Halve the resolution by a strided 3x3 convolution, or by averaging."""

    def __init__(self, channels: int, learned: bool = True) -> None:
        super().__init__()
        self.op: nn.Module = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if learned else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Double the resolution by repetition, then (if learned) a 3x3 convolution."""

    def __init__(self, channels: int, learned: bool = True) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(channels, channels, 3, padding=1) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(double_size(x))


class ResBlock(Listener):
    """Two 3x3 convolutions with a skip path, modulated by the embedding.

    Args:
        channels, out_channels: before and after.
        embedding: width E of the embedding.
        scale_shift: the embedding scales and shifts the second norm's output (AdaGN, arXiv:2105.05233 eq. 1);
            false: it is added before that norm.
        resample: change the size by 2 between the first activation and the first convolution, on the skip path too.
        film: what modulates the block's output by the condition vector alone; None for nothing.
    """

    kind = "block"

    def __init__(
        self,
        channels: int,
        out_channels: int,
        embedding: int,
        *,
        scale_shift: bool = True,
        dropout: float = 0.0,
        groups: Groups = ADM_GROUPS,
        resample: Literal["up", "down"] | None = None,
        film: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = {"up": double_size, "down": half_size, None: None}[resample]
        self.in_layers = nn.Sequential(
            GroupNorm(channels, groups),
            nn.SiLU(),
            nn.Conv2d(channels, out_channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(),
            nn.Linear(embedding, 2 * out_channels if scale_shift else out_channels),
        )
        self.out_layers = nn.Sequential(
            GroupNorm(out_channels, groups),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        self.film = film
        self.skippable = channels == out_channels and resample is None

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        norm_in, activation, conv_in = self.in_layers
        norm_out, _, dropout, conv_out = self.out_layers
        h = activation(norm_in(x))  # (B, C, H, W)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv_in(h)  # (B, C', H, W)
        emb = self.emb_layers(signal.embedding)[:, :, None, None]  # (B, C' or 2C', 1, 1)
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = torch.addcmul(shift, norm_out(h), 1 + scale)
        else:
            h = norm_out(h + emb)
        h = self.skip_connection(x) + conv_out(dropout(activation(h)))
        return h if self.film is None else self.film(h, signal.vector)
