"""Networks: what maps a noisy image, a time and a context to a raw output."""

from __future__ import annotations

from guidon.models.unet import UNet, UNetConfig

__all__ = ["UNet", "UNetConfig"]
