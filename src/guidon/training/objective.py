"""What training minimises: the squared error of the raw output against what a perfect network would give.

All chance of a step (times, noise, which conditions are dropped) is drawn at once for the whole batch, as a function of the seed
and the step alone. Cutting the batch into parts, for memory or over processes, therefore changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from guidon.conditioning.labels import Labels
from guidon.errors import BadValue, NotSupported
from guidon.model import Model
from guidon.noise import Level, Output, Process
from guidon.training.batches import random_for


class Objective(BaseModel):
    """The ``train.objective:`` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dropout: float = Field(0.1, ge=0, le=1, description="part of the images whose condition is replaced by the null")
    weighting: Literal["none", "min-snr"] = Field(
        "none",
        description="none: every noise level counts the same in the raw output's own space; min-snr: arXiv 2303.09556",
    )
    gamma: float = Field(
        5.0, gt=0, description="min-snr: levels with a signal-to-noise ratio above this count as if at it"
    )
    stratified: bool = Field(True, description="spread the times of a batch evenly over their distribution")
    inner_weight: float = Field(
        0.5, ge=0, description="weight of the inner head's error beside the output's, where the network has such a head"
    )

    def weight(self, output: Output, level: Level) -> Tensor:
        """Return the weight of the squared raw error at every level, float32 (B,).

        Min-SNR weighs the error of the clean image by min(SNR, gamma), with SNR = alpha^2 / sigma^2. An error of the raw output
        shows in the clean image times `Output.x0_gain`, so the raw error is weighed by min(SNR, gamma) x0_gain^2: for eps that
        is min(SNR, gamma) / SNR, for v (where alpha^2 + sigma^2 = 1) min(SNR, gamma) / (SNR + 1).

        Source: Hang et al., arXiv 2303.09556, section 3.4.
        """
        alpha, sigma = torch.as_tensor(level.alpha), torch.as_tensor(level.sigma)
        if self.weighting == "none":
            return torch.ones_like(alpha, dtype=torch.float32)
        gain = torch.as_tensor(output.x0_gain(level))
        return ((alpha / sigma).square().clamp(max=self.gamma) * gain.square()).float()

    def draw(self, process: Process, shape: torch.Size, *, seed: int, step: int, device: torch.device) -> Draw:
        """Draw what chance decides in one step.

        Args:
            process: says which times training visits.
            shape: (B, C, H, W) of the whole batch, over all processes.
            seed, step: what everything here is a function of.
            device: where the noise is drawn; the same seed gives other noise on another kind of device.
        """
        host, there = torch.Generator(), torch.Generator(device)
        host.manual_seed(_number("objective", seed, step))
        there.manual_seed(_number("noise", seed, step))
        times = process.sample_times(shape[0], host, stratified=self.stratified)
        dropped = torch.rand(shape[0], generator=host) < self.dropout
        return Draw(process.level(times), dropped, torch.randn(shape, generator=there, device=device))


@dataclass(frozen=True)
class Draw:
    """What chance decided for a batch.

    Args:
        level: float64 (B,) in every field.
        dropped: (B,) bool, whose condition becomes the null.
        noise: (B, C, H, W).
    """

    level: Level
    dropped: Tensor
    noise: Tensor

    def take(self, rows: slice) -> Draw:
        """Return the draw for some rows of the batch."""
        return Draw(self.level.take(rows), self.dropped[rows], self.noise[rows])


class DenoisingLoss(nn.Module):
    """The loss of a model as a module of its own, so that autocast and data parallelism wrap the whole of it.

    Args:
        model: what is trained.
        objective: how errors are weighed.

    Raises:
        NotSupported: the model learns its variance, which needs another objective.
    """

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        if model.denoiser.learned_variance:
            raise NotSupported("training a learned variance is not supported; set model.learned_variance to false")
        self.model, self.objective = model, objective

    def forward(self, images: Tensor, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return the mean weighted squared error, a float32 scalar; an inner head's own is added with `inner_weight`.

        Args:
            images: (B, C, H, W) in [-1, 1].
            labels: (B,) class ids; not needed by an unconditional model.
            draw: of the same batch.

        Source: the inner head's part is that of Zhou et al., arXiv 2512.24176; its weight is that of the authors' code.
        """
        denoiser, classes = self.model.denoiser, self.model.classes
        given = None
        if classes is not None:
            if labels is None:
                raise BadValue(
                    "the model has classes but the batch has no labels; give labels, or train it unconditionally"
                )
            given = Labels(labels, len(classes)).drop(draw.dropped)
        at = draw.level.like(images)
        x = at.alpha * images + at.sigma * draw.noise  # (B, C, H, W)
        # both (B, C, H, W), bfloat16 under autocast
        raw, inner = denoiser.raw_with_inner(x, draw.level, self.model.encode(given))
        target = denoiser.output.target(images, draw.noise, draw.level)
        weight = self.objective.weight(denoiser.output, draw.level).to(images.device)  # (B,)
        loss = _mean_error(raw, target, weight)
        return loss if inner is None else loss + self.objective.inner_weight * _mean_error(inner, target, weight)


def _mean_error(raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return (weight * (raw.float() - target).square().flatten(1).mean(1)).mean()


def _number(purpose: str, *key: int) -> int:
    """Return a seed for torch that is independent for every purpose and key."""
    return int(random_for(purpose, *key).integers(2**63))
