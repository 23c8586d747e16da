"""A denoiser: a network, the process it was trained on, and what its raw output means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from guidon.conditioning.condition import Context
from guidon.models.perturb import Perturbed, layers_of
from guidon.noise.level import Level
from guidon.noise.prediction import Output, Prediction
from guidon.noise.process import Process
from guidon.perturbation import Perturbation


class Denoiser(nn.Module):
    """Maps (x, level, context) to a `Prediction`.

    Args:
        network: maps (x (B, C, H, W), time (B,), context) to raw (B, C or 2C, H, W); may offer ``perturbations`` and an inner
            head, see `UNet`.
        process: the process it was trained on; its clock is what the network is shown as time.
        output: what the raw tensor means.
        learned_variance: the second half of the raw channels is the learned variance, -1 for the smallest, 1 for the largest.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        output: Output,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.process, self.output, self.learned_variance = network, process, output, learned_variance

    @property
    def has_inner(self) -> bool:
        """Whether the network has an inner head, whose belief goes into `Prediction.inner`."""
        return getattr(self.network, "has_inner", False)

    def check(self, perturbation: Perturbation) -> None:
        """Refuse a perturbation that the network cannot do.

        Raises:
            NotSupported: the network does not offer it, or not in these layers; says what it offers.
            BadValue: the amount does not fit.
        """
        layers_of(self.network, perturbation)

    def raw(self, x: Tensor, level: Level, context: Context, perturbed: Perturbed = ()) -> Tensor:
        """Return what the network says at ``x`` (B, C, H, W) of ``level``, before it is read: (B, C or 2C, H, W).

        Args:
            x, level, context: what it is asked.
            perturbed: which rows of the batch are weakened, and how.

        Raises:
            NotSupported: the network does not offer a perturbation.
        """
        return self._ask(x, level, context, **({"perturbed": perturbed} if perturbed else {}))

    def raw_with_inner(
        self, x: Tensor, level: Level, context: Context, perturbed: Perturbed = ()
    ) -> tuple[Tensor, Tensor | None]:
        """Return as `raw` does, and what the inner head says of the same shape, None without one; both from one forward."""
        if not self.has_inner:
            return self.raw(x, level, context, perturbed), None
        return self._ask(x, level, context, perturbed=perturbed, inner=True)

    def forward(self, x: Tensor, level: Level, context: Context, perturbed: Perturbed = ()) -> Prediction:
        """Return what is believed at ``x`` (B, C, H, W) of ``level``; ``perturbed`` as in `raw`."""
        raw, inner = self.raw_with_inner(x, level, context, perturbed)
        prediction = self._read(x, raw, level)
        return prediction if inner is None else replace(prediction, inner=self._read(x, inner, level))

    def _ask(self, x: Tensor, level: Level, context: Context, **more: Any) -> Any:
        scale = self.output.input_scale(level.like(x))
        shown = self.process.clock(level.t)
        if isinstance(shown, Tensor):
            time = shown.to(x.device, torch.float32)  # (B,)
        else:
            time = torch.full((x.shape[0],), shown, dtype=torch.float32, device=x.device)
        return self.network(x if isinstance(scale, float) and scale == 1.0 else x * scale, time, context, **more)

    def _read(self, x: Tensor, raw: Tensor, level: Level) -> Prediction:
        raw = raw.to(x.dtype)
        if not self.learned_variance:
            return self.output.read(x, raw, level)
        raw, variance = raw.chunk(2, dim=1)
        return self.output.read(x, raw, level, (variance + 1) / 2)
