"""What a model is, but for its numbers: the contents of ``config.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

import guidon.models.dit
import guidon.models.unet
import guidon.noise.grids
import guidon.solvers  # noqa: F401  these register what a config can name
from guidon import registry
from guidon.conditioning.tokenizer import Tokenizer, TokenizerConfig
from guidon.errors import BadValue, ShapeMismatch
from guidon.guidance import NULL, Moment, Rule
from guidon.models.text_encoder import TextConfig
from guidon.noise import Process


class SampleDefaults(BaseModel):
    """How to sample a model when nothing else is said; every field in text form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str = Field(default="cfg(2)", description="guidance rule, for instance cfg(3, when=interval(0.3, 3))")
    solver: str = Field(default="dpmpp-2m", description="solver, for instance ddim(eta=0.5)")
    grid: str = Field(
        default="karras", description="where the steps lie, for instance karras(rho=7) or respaced('ddim25')"
    )
    steps: int = Field(default=20, ge=1, description="number of steps")
    temperature: float = Field(
        default=1.0, gt=0, description="what the noise that sampling starts from is multiplied by"
    )

    @field_validator("rule", "solver", "grid")
    @classmethod
    def _readable(cls, text: str, info: ValidationInfo) -> str:
        registry.parse(str(info.field_name), text)
        return text


class ModelConfig(BaseModel):
    """Everything about a model but its numbers; written as ``config.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = Field(default=1, description="version of this format")
    shape: tuple[int, int, int] = Field(description="channels, height and width of an image")
    network: str = Field(default="unet", description="kind of network")
    architecture: dict[str, Any] = Field(default_factory=dict, description="the network's own configuration")
    process: str = Field(default="cosine", description="noise process in text form")
    output: str = Field(default="v", description="what the raw output means: eps, x0, v, velocity, edm")
    learned_variance: bool = Field(default=False, description="whether the network also gives the variance of a step")
    classes: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="names of the classes; none for an unconditional model"
    )
    null: bool = Field(default=True, description="whether a model of classes has learned to do without one")
    text: TextConfig | None = Field(default=None, description="how a model of texts is told them; none for any other")
    low_res: tuple[int, int] | None = Field(
        default=None, description="height and width of the small image that a super-resolution model enlarges"
    )
    inpaint: bool = Field(
        default=False, description="whether the model is shown which pixels are known, and keeps them"
    )
    sample: SampleDefaults = Field(default=SampleDefaults(), description="how to sample by default")
    training: dict[str, Any] = Field(default_factory=dict, description="how it was trained; for people to read")


def check_fit(config: ModelConfig, architecture: Any) -> None:
    """Refuse a network that cannot take or give images of the config's shape."""
    channels, height, width = config.shape
    wanted = channels * (2 if config.learned_variance else 1)
    if (architecture.in_channels, architecture.out_channels) != (channels, wanted):
        raise ShapeMismatch(
            f"images of {channels} channels need in_channels {channels} and out_channels {wanted}, "
            f"the network has {architecture.in_channels} and {architecture.out_channels}"
        )
    doors = told_doors(config, architecture)
    if config.classes is not None and config.text is not None:
        raise BadValue("a model is told classes or texts; leave one of the two out")
    if config.classes is None and config.text is None and doors:
        raise BadValue(
            f"a model that is told nothing needs a network without a door for it, this one has {sorted(doors)}; "
            "for a unet set vector to null"
        )
    if config.classes is not None and len(doors) != 1:
        raise BadValue(
            f"a model of classes needs a network with one door for them, this one has {sorted(doors) or 'none'}; "
            "open one of vector, tokens, spatial in its configuration"
        )
    if config.text is not None and (not doors or "spatial" in doors):
        raise BadValue(
            f"texts go through the doors vector and tokens of a network, this one has {sorted(doors) or 'none'}; "
            "open one of the two or both in its configuration"
        )
    shown = image_channels(config)
    if shown and architecture.doors.get("spatial") != shown:
        raise ShapeMismatch(
            f"a model that is shown an image {'to enlarge' if config.low_res else 'to complete'} needs a spatial door of {shown} "
            f"channels, this one has {architecture.doors.get('spatial', 'none')}; for a unet set spatial_channels to that"
        )
    if height % architecture.multiple or width % architecture.multiple:
        raise ShapeMismatch(
            f"this network takes heights and widths that are multiples of {architecture.multiple}, not {height}x{width}; "
            "resize the images, or use a smaller patch or fewer levels"
        )


def check_tokenizer(tokenizer: Tokenizer | None, row: TokenizerConfig, vocabulary: int) -> None:
    """Refuse a tokenizer of other rows, or of more tokens, than the encoder that reads them; raises `BadValue`."""
    if tokenizer is not None and (tokenizer.config != row or tokenizer.size > vocabulary):
        raise BadValue(
            f"a tokenizer of {tokenizer.size} tokens in rows of {tokenizer.config.context} for an encoder of {vocabulary} in rows of "
            f"{row.context}; give the one that it was trained with"
        )


def saved_tokenizer(tokenizer: Tokenizer | None) -> str:
    """Return the ``tokenizer.json`` of what is told texts; raises `BadValue` without one, for the folder could not be loaded."""
    if tokenizer is None:
        raise BadValue("what is told texts is saved with its tokenizer, and there is none; set .tokenizer first")
    return tokenizer.to_json()


def image_channels(config: ModelConfig) -> int:
    """Return the channels of what a model is shown beside the noisy image: known pixels and which they are, and a small image."""
    channels = config.shape[0]
    return (channels + 1 if config.inpaint else 0) + (channels if config.low_res is not None else 0)


def told_doors(config: ModelConfig, architecture: Any) -> dict[str, int]:
    """Return the doors of a network for what it is told, with their widths: all but that of what it is shown."""
    return {
        door: width for door, width in architecture.doors.items() if not (door == "spatial" and image_channels(config))
    }


def needs_null(sample: SampleDefaults, process: Process) -> bool:
    """Return whether a model's default rule steers away from what it believes without a class."""
    rule: Rule = registry.parse("rule", sample.rule)
    here, there, *_ = registry.parse("grid", sample.grid).levels(process, sample.steps)
    return NULL in rule.branches(Moment(here, there), rule.init())


def first_problem(error: ValidationError) -> str:
    """Return the first thing that a schema had to say against its input."""
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
