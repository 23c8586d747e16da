"""Networks: what maps a noisy image, a time and a context to a raw output, and what maps it to logits."""

from __future__ import annotations

from guidon.models.dit import DiT, DiTConfig
from guidon.models.encoder_unet import EncoderUNet, EncoderUNetConfig
from guidon.models.unet import UNet, UNetConfig

__all__ = ["DiT", "DiTConfig", "EncoderUNet", "EncoderUNetConfig", "UNet", "UNetConfig"]
