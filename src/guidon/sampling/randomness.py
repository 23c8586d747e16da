"""Noise with one seed per image.

The noise of an image is a function of its seed alone: not of the batch it is in, of its neighbours, or of the device. So the
generators live on the host, and each image draws from its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guidon.errors import BadValue


class PerImageNoise:
    """Draws standard normal noise for a batch, each row from its image's own generator.

    Args:
        seeds: one per image, 0 <= seed < 2**32 (all that the host's generator tells apart).
        shape: shape of one image, (C, H, W).
        device, dtype: of the noise returned; it is always drawn on the host in float32 (float64 if asked for).
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not all(0 <= seed < 2**32 for seed in seeds):
            raise BadValue("a seed is a whole number from 0 to 2**32 - 1")
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device, self._dtype = tuple(shape), device, dtype

    def __call__(self) -> Tensor:
        """Return the next noise, (B, *shape)."""
        return self.of_shape(self._shape)

    def of_shape(self, shape: Sequence[int]) -> Tensor:
        """Return the next noise in another shape, (B, *shape)."""
        dtype = torch.float64 if self._dtype == torch.float64 else torch.float32
        rows = torch.empty(len(self._generators), *shape, dtype=dtype)
        for row, generator in zip(rows, self._generators, strict=True):
            row.normal_(generator=generator)
        return rows.to(self._device, self._dtype)


class RecordingNoise:
    """Hands on noise and keeps it, for a `RecordedNoise` to replay.

    Args:
        noise: where it comes from, a `PerImageNoise` for instance.

    Attributes:
        draws: what was handed out, in order.
    """

    def __init__(self, noise: Callable[[], Tensor]) -> None:
        self._noise = noise
        self.draws: list[Tensor] = []

    def __call__(self) -> Tensor:
        """Return the next noise."""
        self.draws.append(self._noise())
        return self.draws[-1]


class RecordedNoise:
    """Hands out recorded noise in order: to replay a run, or to share noise between solvers.

    Args:
        draws: what each call returns.
    """

    def __init__(self, draws: Sequence[Tensor]) -> None:
        self._draws = iter(draws)

    def __call__(self) -> Tensor:
        """Return the next recorded noise."""
        try:
            return next(self._draws)
        except StopIteration:
            raise BadValue(
                "the run draws more noise than was recorded; record it with the same solver and steps"
            ) from None
