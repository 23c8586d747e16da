"""A denoiser: a network, the process it was trained on, and what its raw output means."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from guidon.conditioning.condition import Context
from guidon.noise.level import Level
from guidon.noise.prediction import Output, Prediction
from guidon.noise.process import Process


class Denoiser(nn.Module):
    """Maps (x, level, context) to a `Prediction`.

    Args:
        network: maps (x (B, C, H, W), time (B,), context) to raw (B, C or 2C, H, W).
        process: the process it was trained on; its clock is what the network is shown as time.
        output: what the raw tensor means.
        learned_variance: the second half of the raw channels is the learned variance, -1 for the smallest, 1 for the largest.
    """

    def __init__(self, network: nn.Module, process: Process, output: Output, learned_variance: bool = False) -> None:
        super().__init__()
        self.network, self.process, self.output, self.learned_variance = network, process, output, learned_variance

    def raw(self, x: Tensor, level: Level, context: Context) -> Tensor:
        """Return what the network says at ``x`` (B, C, H, W) of ``level``, before it is read: (B, C or 2C, H, W)."""
        scale = self.output.input_scale(level.like(x))
        shown = self.process.clock(level.t)
        if isinstance(shown, Tensor):
            time = shown.to(x.device, torch.float32)  # (B,)
        else:
            time = torch.full((x.shape[0],), shown, dtype=torch.float32, device=x.device)
        return self.network(x if isinstance(scale, float) and scale == 1.0 else x * scale, time, context)

    def forward(self, x: Tensor, level: Level, context: Context) -> Prediction:
        """Return what is believed at ``x`` (B, C, H, W) of ``level``."""
        raw = self.raw(x, level, context).to(x.dtype)
        if not self.learned_variance:
            return self.output.read(x, raw, level)
        raw, variance = raw.chunk(2, dim=1)
        return self.output.read(x, raw, level, (variance + 1) / 2)
