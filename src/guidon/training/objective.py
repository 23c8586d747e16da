"""What training minimises: the squared error of the raw output against what a perfect network would give, or the variational bound.

All chance of a step (times, noise, which conditions are dropped) is drawn at once for the whole batch, as a function of the seed
and the step alone. Cutting the batch into parts, for memory or over processes, therefore changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from guidon.conditioning import Condition, Context, Labels, Texts
from guidon.errors import BadValue
from guidon.model import Model
from guidon.noise import Level, Output, Process, VPTable
from guidon.noise.bound import bound_term
from guidon.noise.grids import Respaced
from guidon.noise.posterior import Steps
from guidon.training.batches import Batch, random_for
from guidon.training.run_recipe import Loss
from guidon.training.times import ImportanceTimes


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
    loss: Literal["mse", "rescaled-mse", "kl", "rescaled-kl"] = Field(
        "mse",
        description="mse: squared error, and where the variance is learned the bound for it alone (rescaled-mse: times steps / 1000);"
        " kl: the variational bound in bits per dimension (rescaled-kl: times steps)",
    )
    variance: Literal["small", "large"] = Field(
        "small", description="kl losses: the variance of a step where none is learned, as of the solver ddpm"
    )
    times: Literal["uniform", "importance"] = Field(
        "uniform", description="importance: visit times with a large loss more often and weigh them less, same mean"
    )
    stratified: bool = Field(True, description="spread the times of a batch evenly over their distribution")
    inner_weight: float = Field(
        0.5, ge=0, description="weight of the inner head's error beside the output's, where the network has such a head"
    )

    def check(self, process: Process, learned_variance: bool) -> None:
        """Refuse settings that would change nothing, and a process without the steps that the objective needs; raises `BadValue`."""
        bound_alone = self.loss.endswith("kl")
        idle = {
            "weighting: min-snr": (self.weighting != "none" and bound_alone, "it weighs a squared error"),
            "variance: large": (
                self.variance == "large" and (learned_variance or not bound_alone),
                "it is for kl losses without a learned variance",
            ),
            "loss: rescaled-mse": (
                self.loss == "rescaled-mse" and not learned_variance,
                "it rescales what teaches a learned variance",
            ),
        }
        for setting, (useless, why) in idle.items():
            if useless:
                raise BadValue(f"{setting} would change nothing here, for {why}; leave it out")
        needs = {
            "a learned variance": learned_variance,
            f"the loss {self.loss}": bound_alone,
            "importance sampling of times": self.times == "importance",
        }
        if any(needs.values()) and not isinstance(process, VPTable):
            raise BadValue(
                f"{next(what for what, needed in needs.items() if needed)} needs a process with a table of steps;"
                " set model.process: vp-table('cosine')"
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
        weight: float64 (B,), what each image's loss counts where times are not equally likely; None: all the same.
    """

    level: Level
    dropped: Tensor
    noise: Tensor
    weight: Tensor | None = None

    def take(self, rows: slice) -> Draw:
        """Return the draw for some rows of the batch."""
        weight = None if self.weight is None else self.weight[rows]
        return Draw(self.level.take(rows), self.dropped[rows], self.noise[rows], weight)


class DenoisingLoss(Loss):
    """The loss of a model as a module of its own, so that autocast and data parallelism wrap the whole of it.

    Args:
        model: what is trained.
        objective: how errors are weighed.
        levels: the chain that the bound is of, the noisiest level first; left out: the whole table of the model's process.

    Attributes:
        times: draws the times where the objective wants importance sampling, else None.
        also: means of the parts that the last loss was made of, where there are several.

    Raises:
        BadValue: the objective needs the steps of a table, and the process has none.
    """

    def __init__(self, model: Model, objective: Objective, levels: Sequence[Level] | None = None) -> None:
        super().__init__()
        process = model.process
        objective.check(process, model.denoiser.learned_variance)
        self.model, self.objective = model, objective
        self.also: dict[str, Tensor] = {}
        self.times: ImportanceTimes | None = None
        self.steps: Steps | None = None
        if isinstance(process, VPTable) and (model.denoiser.learned_variance or objective.loss.endswith("kl")):
            self.steps = Steps.of(Respaced().levels(process, process.steps) if levels is None else levels)
        if isinstance(process, VPTable) and objective.times == "importance":
            self.times = ImportanceTimes(process.steps, objective.stratified)

    def told(self, batch: Batch) -> Tensor | Texts | None:
        """Return what a batch tells the model: class ids (B,), or texts; None where it has nothing to tell."""
        if self.model.config.text is None:
            return batch.labels
        if batch.captions is None or self.model.tokenizer is None:
            raise BadValue("the model is told texts but the batch has none; name the captions in data.caption_column")
        return self.model.tokenizer.encode(batch.captions, warn=False)

    def forward(self, images: Tensor, told: Tensor | Texts | None, draw: Draw) -> Tensor:
        """Return the loss of every image, float32 (B,); arguments as in `terms`."""
        terms = self.terms(images, told, draw)
        weight = 1.0 if draw.weight is None else draw.weight.to(images.device, torch.float32)
        self.also = {name: (weight * value.detach()).mean() for name, value in terms.items()} if len(terms) > 1 else {}
        return torch.stack(list(terms.values())).sum(0)

    def terms(self, images: Tensor, told: Tensor | Texts | None, draw: Draw) -> dict[str, Tensor]:
        """Return what the loss adds up, each float32 (B,): "mse", the weighted squared error, and "vb", the bound's term.

        To each the inner head's own is added with `inner_weight`.

        Args:
            images: (B, C, H, W) in [-1, 1].
            told: (B,) class ids, or B texts; not needed by an unconditional model.
            draw: of the same batch.

        Source: the bound beside the squared error is that of Nichol & Dhariwal, arXiv 2102.09672, eq. 16, as in guided-diffusion's
        ``training_losses``. The inner head's part is that of Zhou et al., arXiv 2512.24176; its weight is that of the authors' code.
        """
        denoiser, given = self.model.denoiser, self._given(told)
        given = None if given is None else given.drop(draw.dropped)
        at = draw.level.like(images)
        x = at.alpha * images + at.sigma * draw.noise  # (B, C, H, W)
        # both (B, C or 2C, H, W), bfloat16 under autocast
        raw, inner = denoiser.raw_with_inner(x, draw.level, self.context(images, given, draw))
        terms = self._terms(raw.float(), x, images, draw)
        if inner is None:
            return terms
        weight, more = self.objective.inner_weight, self._terms(inner.float(), x, images, draw)
        return {name: value + weight * more[name] for name, value in terms.items()}

    def context(self, images: Tensor, given: Condition | None, draw: Draw) -> Context:
        """Return what the network is told of images (B, C, H, W), some of whose conditions have been dropped."""
        return self.model.encode(given)

    def _given(self, told: Tensor | Texts | None) -> Condition | None:
        classes = self.model.classes
        if classes is None:
            return told if isinstance(told, Texts) else None
        if not isinstance(told, Tensor):
            raise BadValue(
                "the model has classes but the batch has no labels; give labels, or train it unconditionally"
            )
        return Labels(told, len(classes))

    def _terms(self, raw: Tensor, x: Tensor, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        denoiser, objective = self.model.denoiser, self.objective
        told, spread = raw.chunk(2, dim=1) if denoiser.learned_variance else (raw, None)  # (B, C, H, W)
        if objective.loss.endswith("kl"):
            return {"vb": self._bound(told, spread, x, images, draw.level)}
        weight = objective.weight(denoiser.output, draw.level).to(images.device)  # (B,)
        error = told - denoiser.output.target(images, draw.noise, draw.level)
        terms = {"mse": weight * error.square().flatten(1).mean(1)}
        if spread is not None:  # the bound teaches the variance alone, not what is believed of the image
            terms["vb"] = self._bound(told.detach(), spread, x, images, draw.level)
        return terms

    def _bound(self, told: Tensor, spread: Tensor | None, x: Tensor, images: Tensor, level: Level) -> Tensor:
        """Return the bound's term for what a network told, in bits per dimension and rescaled, (B,)."""
        assert self.steps is not None
        count = len(self.steps.small)
        steps = self.steps.starting_at(torch.as_tensor(level.t))
        x0 = self.model.denoiser.output.read(x, told, level).x0
        fraction = None if spread is None else (spread + 1) / 2
        log_variance = steps.log_variance("learned" if spread is not None else self.objective.variance, fraction, x)
        scale = {"rescaled-mse": count / 1000, "rescaled-kl": count}.get(self.objective.loss, 1)
        return scale * bound_term(steps, images, x0, log_variance)


def _number(purpose: str, *key: int) -> int:
    """Return a seed for torch that is independent for every purpose and key."""
    return int(random_for(purpose, *key).integers(2**63))
