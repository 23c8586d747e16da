"""A CLIP of noisy images, whose gradient steers a denoiser towards a text: encoders, tokenizer, process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor, nn

from guidon import registry
from guidon.checkpoints.native import (
    CONFIG,
    check_tensors,
    local_folder,
    read_checkpoint,
    read_tokenizer,
    write_checkpoint,
)
from guidon.conditioning.condition import Context
from guidon.conditioning.tokenizer import Tokenizer, TokenizerConfig
from guidon.errors import BadValue, DamagedCheckpoint
from guidon.model_config import check_tokenizer, first_problem, saved_tokenizer
from guidon.models.clip import ClipConfig, ImageEncoder, TextEncoder
from guidon.noise import Level, Process


class ClipBundleConfig(BaseModel):
    """Everything about a CLIP but its numbers and its vocabulary; written as ``config.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["clip"] = Field(default="clip", description="what tells it from a model's config")
    format: Literal[1] = Field(default=1, description="version of this format")
    architecture: ClipConfig = Field(default=ClipConfig(), description="the shapes of both encoders")
    process: str = Field(default="vp-table('cosine')", description="noise process in text form")
    tokenizer: TokenizerConfig = Field(description="how a text becomes a row of tokens")
    logit_scale: float = Field(default=100.0, gt=0, description="what the agreement of features is multiplied by")
    training: dict[str, Any] = Field(default_factory=dict, description="where it comes from; for people to read")

    @field_validator("process")
    @classmethod
    def _readable(cls, text: str) -> str:
        registry.parse("process", text)
        return text


class Clip(nn.Module):
    """Tells how well a text fits an image, at any noise level of a process.

    Its image encoder is shown ``x / sqrt(alpha^2 + sigma^2)``, the state as a variance-preserving process has it, and the clock.

    Args:
        config: what it is.
        tokenizer: its vocabulary; without one it can be asked about images only.

    Attributes:
        image, text: the encoders.
        tokenizer: as given.
        name: where it was loaded from, for records.

    Raises:
        BadValue: the tokenizer has more tokens than the text encoder, or other rows.
    """

    classes: tuple[str, ...] | None = None

    def __init__(self, config: ClipBundleConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        read = config.tokenizer.model_copy(update={"context": config.architecture.context})
        check_tokenizer(tokenizer, read, config.architecture.vocabulary)
        self.name, self.config, self.tokenizer = "unnamed", config, tokenizer
        self.image, self.text = ImageEncoder(config.architecture), TextEncoder(config.architecture)
        self.process: Process = registry.parse("process", config.process)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.config.architecture.size, self.config.architecture.size

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return the features (B, E) of texts, each of length 1; equal texts are encoded once. Raises `BadValue` without a tokenizer."""
        if self.tokenizer is None:
            raise BadValue("this CLIP was made without a tokenizer; load it with one")
        different = list(dict.fromkeys(texts))
        found = self.text(self.tokenizer.encode(different, warn=False))
        return found[[different.index(text) for text in texts]]

    def image_features(self, x: Tensor, level: Level) -> Tensor:
        """Return the features (B, E) of images ``x`` (B, 3, H, W) at a level, each of length 1; differentiable in ``x``."""
        at = level.like(x)
        size = torch.hypot(at.alpha, at.sigma) if isinstance(at.alpha, Tensor) else math.hypot(at.alpha, at.sigma)  # type: ignore[arg-type]
        shown = self.process.clock(level.t)
        return self.image(x / size, torch.as_tensor(shown, dtype=torch.float32, device=x.device).expand(x.shape[0]))

    def log_prob(self, x: Tensor, level: Level, context: Context) -> Tensor:
        """Return log p(text | x) (B,) up to a constant: the features' product times the logit scale.

        Args:
            x: (B, 3, H, W) noisy images.
            level: how noisy they are.
            context: its vector (B, E) holds the features of the texts, as `told_to_clip` gives them.

        Source: Nichol et al., arXiv 2112.10741, section 2.3; openai/glide-text2im, clip/model_creation.py, whose ``cond_fn`` is
        the gradient of this times the weight of the push.
        """
        assert context.vector is not None
        return self.config.logit_scale * (context.vector.to(x) * self.image_features(x, level)).sum(1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the CLIP to a folder, whole or not at all; raises `SaveFailed`, or `BadValue` without a tokenizer."""
        tokenizer = saved_tokenizer(self.tokenizer)
        write_checkpoint(folder, self.config.model_dump(mode="json"), self.state_dict(), tokenizer)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Clip:
        """Load a CLIP from a folder or from the Hugging Face hub, ready to be asked, its parameters frozen.

        Args:
            source: a folder that `save_pretrained` or `guidon convert` wrote, or a hub id.

        Raises:
            MissingFile: there is no such folder, or it lacks a file.
            BadValue: it holds something else.
            DamagedCheckpoint: a file is cut short, or the tensors do not fit the config.
        """
        folder = local_folder(source)
        config, tensors = read_checkpoint(folder)
        if config.get("kind") != "clip":
            raise BadValue(
                f"{source} holds no CLIP of noisy images; give what `guidon convert glide --preset clip` wrote"
            )
        try:
            settings = ClipBundleConfig(**config)
        except ValidationError as error:
            raise DamagedCheckpoint(f"{source}/{CONFIG} is not a CLIP's config: {first_problem(error)}") from error
        clip = cls(settings, Tokenizer.from_json(read_tokenizer(folder), settings.tokenizer))
        check_tensors(tensors, clip.state_dict(), source)
        clip.load_state_dict(tensors)
        clip.name = str(source)
        return clip.eval().requires_grad_(False)


def told_to_clip(clip: Clip, texts: Sequence[str | None]) -> Context:
    """Return what a CLIP is told: the features of the text of each image.

    Args:
        clip: who is told.
        texts: one for each image.

    Raises:
        BadValue: an image has no text.
    """
    wanted = [text for text in texts if text is not None and text.strip()]
    if len(wanted) != len(texts):
        raise BadValue("a CLIP cannot guide towards no text; give every image one")
    return Context(vector=clip.text_features(wanted))
