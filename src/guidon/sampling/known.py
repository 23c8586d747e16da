"""Pixels that are known beforehand: whatever networks and rules believe of them, they stay what they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from guidon.guidance.rule import Guided
from guidon.noise.level import Level


@dataclass(frozen=True, eq=False)
class Known:
    """The known pixels of a batch of images.

    Args:
        pixels: (B, C, H, W), zero where nothing is known.
        mask: (B, 1, H, W), 1 where a pixel is known, 0 where it is not; between, it is known in part.
    """

    pixels: Tensor
    mask: Tensor

    @classmethod
    def among(cls, shown: Tensor, channels: int) -> Known:
        """Return what an inpainting network is shown (B, ..., H, W): first the pixels, of so many channels, then the mask."""
        return cls(shown[:, :channels], shown[:, channels : channels + 1])

    def kept(self, guided: Guided, level: Level) -> Guided:
        """Return what is believed at a level with the known pixels in the clean image, and the noise that goes with it.

        Source: Nichol et al., arXiv 2112.10741, section 2.4; ``denoised_fn`` in the notebook inpaint of openai/glide-text2im.
        """
        change = self._change(guided.x0)
        at = level.like(change)
        noise_change = change if guided.noise_x0 is None else self._change(guided.noise_x0)
        return replace(
            guided,
            x0=guided.x0 + change,
            eps=guided.eps - (at.alpha / at.sigma) * noise_change,
            noise_x0=None if guided.noise_x0 is None else guided.noise_x0 + noise_change,
            given=None if guided.given is None else guided.given.moved("x0", self._change(guided.given.x0)),
        )

    def _change(self, x0: Tensor) -> Tensor:
        return self.pixels - self.mask * x0
