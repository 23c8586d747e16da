"""A classifier of noisy images, whose gradient steers a denoiser: network, process, classes, and how sure it may be."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor, nn

from guidon import registry
from guidon.checkpoints.native import CONFIG, check_tensors, local_folder, read_checkpoint, write_checkpoint
from guidon.conditioning.condition import Context
from guidon.errors import BadValue, DamagedCheckpoint, NotSupported, ShapeMismatch
from guidon.model_config import first_problem
from guidon.models.encoder_unet import EncoderUNet, EncoderUNetConfig
from guidon.noise import Level, Process


class Calibration(BaseModel):
    """What the logits are divided by at each noise level, so that the classifier is as sure as it is right.

    Args:
        noise_levels: sigma / alpha, rising, > 0.
        temperatures: one for each, > 0; between two noise levels linear in the logarithm of the noise level, outside constant.

    Source: Guo et al., arXiv 1706.04599, section 4.2, with a temperature for each noise level.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    noise_levels: tuple[float, ...] = Field(min_length=1)
    temperatures: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        rising = all(a < b for a, b in zip(self.noise_levels, self.noise_levels[1:], strict=False))
        if len(self.noise_levels) != len(self.temperatures) or not rising or self.noise_levels[0] <= 0:
            raise BadValue("a calibration has one temperature for each noise level, and noise levels > 0 that rise")
        if not all(0 < temperature < math.inf for temperature in self.temperatures):
            raise BadValue(f"temperatures are finite and > 0, got {self.temperatures}")
        return self

    def at(self, noise_level: Tensor) -> Tensor:
        """Return the temperatures at noise levels (B,), float64."""
        known = np.log(self.noise_levels)
        found = np.interp(np.log(noise_level.double().cpu().numpy().clip(1e-30)), known, self.temperatures)
        return torch.from_numpy(np.asarray(found))


class ClassifierConfig(BaseModel):
    """Everything about a classifier but its numbers; written as ``config.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["classifier"] = Field(default="classifier", description="what tells it from a model's config")
    format: Literal[1] = Field(default=1, description="version of this format")
    shape: tuple[int, int, int] = Field(description="channels, height and width of an image")
    architecture: dict[str, Any] = Field(default_factory=dict, description="the configuration of its `EncoderUNet`")
    process: str = Field(default="cosine", description="noise process in text form")
    classes: tuple[str, ...] = Field(min_length=2, description="names of the classes")
    calibration: Calibration | None = Field(default=None, description="temperatures by noise level, where fitted")
    training: dict[str, Any] = Field(default_factory=dict, description="how it was trained; for people to read")

    @field_validator("process")
    @classmethod
    def _readable(cls, text: str) -> str:
        registry.parse("process", text)
        return text


class Classifier(nn.Module):
    """A classifier of images at any noise level of a process.

    Its network is shown ``x / sqrt(alpha^2 + sigma^2)``, the state as a variance-preserving process has it, and the process's clock.

    Args:
        config: what it is; see `ClassifierConfig`.

    Attributes:
        network: gives logits.
        name: where it was loaded from, for records.
        tempered: whether log-probabilities are those of the calibrated classifier; see `calibrated`.

    Raises:
        BadValue: the architecture does not fit.
        ShapeMismatch: the network takes other images than the config's, or gives another number of logits than there are classes.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.name, self.tempered = "unnamed", False
        try:
            architecture = EncoderUNetConfig(**config.architecture)
        except ValidationError as error:
            raise BadValue(f"the architecture of the classifier does not fit: {first_problem(error)}") from error
        takes = (architecture.in_channels, architecture.size, architecture.size)
        if takes != config.shape or architecture.out_channels != len(config.classes):
            raise ShapeMismatch(
                f"a classifier of {len(config.classes)} classes of images {config.shape} needs a network that takes and gives as much, "
                f"this one takes {takes} and gives {architecture.out_channels}"
            )
        self.network = EncoderUNet(architecture)
        self.config = config.model_copy(update={"architecture": architecture.model_dump(mode="json")})
        self.process: Process = registry.parse("process", config.process)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.config.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.config.shape

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def logits(self, x: Tensor, level: Level) -> Tensor:
        """Return the raw logits (B, classes), float32, for images ``x`` (B, C, H, W) at a level."""
        at = level.like(x)
        size = torch.hypot(at.alpha, at.sigma) if isinstance(at.alpha, Tensor) else math.hypot(at.alpha, at.sigma)  # type: ignore[arg-type]
        shown = self.process.clock(level.t)
        time = torch.as_tensor(shown, dtype=torch.float32, device=x.device).expand(x.shape[0])
        return self.network(x / size, time).float()

    def log_probs(self, x: Tensor, level: Level) -> Tensor:
        """Return log p(class | x) (B, classes), float32, for images ``x`` (B, C, H, W) at a level."""
        logits = self.logits(x, level)
        if self.tempered:
            assert self.config.calibration is not None
            noise_level = torch.as_tensor(level.noise_level, dtype=torch.float64).reshape(-1)
            logits = logits / self.config.calibration.at(noise_level).to(logits)[:, None]
        return logits.log_softmax(1)

    def log_prob(self, x: Tensor, level: Level, context: Context) -> Tensor:
        """Return log p(class | x) (B,); the context's vector (B, 1) holds the class ids."""
        assert context.vector is not None
        return self.log_probs(x, level).gather(1, context.vector.long().to(x.device))[:, 0]

    def calibrated(self) -> Self:
        """Return the same classifier, sharing its network, with log-probabilities divided by the fitted temperatures.

        Raises:
            NotSupported: no temperatures were fitted.
        """
        if self.config.calibration is None:
            raise NotSupported(
                f"the classifier {self.name} has no fitted temperatures; `guidon train-classifier` fits them, or leave calibration out"
            )
        same = copy.copy(self)
        same.tempered = True
        return same

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the classifier to a folder, whole or not at all; raises `SaveFailed`."""
        write_checkpoint(folder, self.config.model_dump(mode="json"), self.state_dict())

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Classifier:
        """Load a classifier from a folder or from the Hugging Face hub, ready to be asked, its parameters frozen.

        Args:
            source: a folder that `save_pretrained`, `guidon train-classifier` or `guidon convert` wrote, or a hub id.

        Raises:
            MissingFile: there is no such folder, or it lacks a file.
            BadValue: it holds a model, not a classifier.
            DamagedCheckpoint: a file is cut short, or the tensors do not fit the config.
        """
        config, tensors = read_checkpoint(local_folder(source))
        if config.get("kind") != "classifier":
            raise BadValue(
                f"{source} holds no classifier but a model; give what `guidon train-classifier` or `guidon convert` wrote"
            )
        try:
            classifier = cls(ClassifierConfig(**config))
        except ValidationError as error:
            raise DamagedCheckpoint(
                f"{source}/{CONFIG} is not a classifier's config: {first_problem(error)}"
            ) from error
        check_tensors(tensors, classifier.state_dict(), source)
        classifier.load_state_dict(tensors)
        classifier.name = str(source)
        return classifier.eval().requires_grad_(False)
