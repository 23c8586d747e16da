"""A recipe: everything about a training run in one YAML file, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from guidon import registry
from guidon.checkpoints.atomic import write_bytes
from guidon.conditioning.tokenizer import Tokenizer, train_tokenizer
from guidon.errors import BadRecipe, BadValue
from guidon.model import Model
from guidon.model_config import ModelConfig, SampleDefaults
from guidon.models.frozen_text import FrozenTextConfig, frozen_tokenizer
from guidon.models.text import TextTransformerConfig
from guidon.models.text_encoder import TextConfig, TextEncoderConfig
from guidon.training.batches import TrainingData
from guidon.training.data import DataConfig
from guidon.training.ema import Power
from guidon.training.grid import first_captions, png_bytes, sample_grid
from guidon.training.objective import DenoisingLoss, Draw, Objective
from guidon.training.run_recipe import RunRecipe, RunSection, Section, Wordings, known, problems
from guidon.training.snapshots import save_snapshot
from guidon.training.validate import Validation, note, validation_loss

if TYPE_CHECKING:
    from guidon.training.trainer import Trainer


class TextSection(Section):
    """The ``model.text:`` section of a recipe: the model is told the captions of the data."""

    vocabulary: int = Field(
        2048,
        ge=258,
        description="tokens of the vocabulary that is learned from the captions, at most; a frozen encoder brings its own",
    )
    context: int = Field(32, ge=3, description="tokens of a text; longer captions are cut")
    encoder: TextEncoderConfig = Field(
        default_factory=TextTransformerConfig,
        description="what makes a context of the tokens: a transformer that is trained along, or {kind: frozen, source: ...},"
        " the folder or hub id of a CLIP or a T5",
    )

    def tokenizer(self, texts: Iterable[str], further: Sequence[str] = ()) -> Tokenizer:
        """Return what makes tokens of texts such as these, with a warning where some of them, or of further ones, are too long."""
        known = list(texts)
        if isinstance(self.encoder, FrozenTextConfig):
            tokenizer = frozen_tokenizer(self.encoder.source, self.context)
        else:
            tokenizer = train_tokenizer(known, size=self.vocabulary, context=self.context)
        tokenizer.encode([*known, *further])
        return tokenizer


class ModelSection(Section):
    """The ``model:`` section of a recipe; image channels and classes come from the data."""

    network: str = Field("unet", description="kind of network")
    architecture: dict[str, Any] = Field(
        default_factory=dict,
        description="the network's own configuration: widths, depths, and by which door the condition enters"
        " (for a unet: vector embedding or film, tokens cross or append, spatial_channels); without a door: unconditional",
    )
    process: str = Field("cosine", description="noise process, for instance cosine, edm, flow, vp-table('linear')")
    output: str = Field("v", description="what the network predicts: eps, x0, v, velocity or edm(sigma_data=0.5)")
    learned_variance: bool = Field(
        False, description="let the network also learn the variance of a step, on a process with a table (vp-table)"
    )

    text: TextSection | None = Field(None, description="tell the model the captions of the data, not their classes")

    @field_validator("process", "output")
    @classmethod
    def _readable(cls, text: str, info: ValidationInfo) -> str:
        return known(str(info.field_name), text)

    @field_validator("network")
    @classmethod
    def _network(cls, name: str) -> str:
        registry.lookup("network", name)
        return name

    @field_validator("architecture")
    @classmethod
    def _fits(cls, architecture: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "network" in info.data:
            config = registry.lookup("network", info.data["network"]).Config
            _check_owner(architecture, info.data["network"], config)
            try:
                config(**architecture)
            except ValidationError as error:
                raise BadValue("; ".join(problems(error, config))) from error
        return architecture


def _check_owner(architecture: dict[str, Any], network: str, config: type[BaseModel]) -> None:
    """Refuse an architecture with keys of another network, as is left of a recipe whose network alone was changed."""
    for other, member in registry.members("network"):
        foreign = [key for key in architecture if key in member.Config.model_fields.keys() - config.model_fields.keys()]
        if foreign:
            keys = [key for key in config.model_fields if key not in ("in_channels", "out_channels")]
            example = f"{{{keys[0]}: {config.model_fields[keys[0]].default}, ...}}"
            raise BadValue(
                f"{', '.join(foreign)}: of a {other}, but the network is a {network}; replace the architecture whole, "
                f"--set model.architecture='{example}'; the keys of a {network}: {', '.join(keys)}"
            )


class TrainSection(RunSection):
    """The ``train:`` section of a recipe."""

    objective: Objective = Field(default_factory=lambda: Objective(), description="what is minimised")
    power_averages: tuple[float, ...] = Field(
        (),
        description="relative lengths of power averages to store for reconstruction after training, usually [0.05, 0.1]",
    )
    snapshot_every: int = Field(500, ge=1, description="steps between stored power averages")
    sample_every: int | None = Field(500, ge=1, description="steps between sample grids; none for no grids")
    sample_weights: tuple[float, ...] = Field(
        (0.0, 1.0, 3.0), min_length=1, description="guidance weights of a grid's rows"
    )
    sample_prompts: tuple[str, ...] = Field(
        (), description="texts of a grid's columns; left out: the first captions of the data"
    )
    validate_every: int | None = Field(
        500,
        ge=1,
        description="steps between measurements of the loss on images held out, if any are, besides those at the start and the end;"
        " none for no others",
    )

    @field_validator("power_averages")
    @classmethod
    def _lengths(cls, lengths: tuple[float, ...]) -> tuple[float, ...]:
        for length in lengths:
            Power(length)
        return lengths


class DenoisingRecipe(RunRecipe[Model]):
    """What every recipe has that trains a model."""

    if TYPE_CHECKING:
        train: TrainSection

    def loss(self, model: Model) -> DenoisingLoss:
        """Return what training minimises."""
        return DenoisingLoss(model, self.train.objective)

    def draw(self, model: Model, shape: torch.Size, *, step: int, device: torch.device) -> Draw:
        """Draw what chance decides in one step; see `Objective.draw`."""
        return self.train.objective.draw(model.process, shape, seed=self.train.seed, step=step, device=device)

    @property
    def stored_averages(self) -> tuple[float, ...]:
        return self.train.power_averages

    def begin(self, trainer: Trainer[Model], out: Path) -> None:
        """Measure the loss on images held out."""
        self._validate(trainer, out)

    def between(self, trainer: Trainer[Model], out: Path) -> None:
        """Store power averages, draw sample grids (samples/) and measure the loss on images held out, where they are due."""
        train = self.train
        if trainer.step % train.snapshot_every == 0:
            _store(trainer, out)
        if train.sample_every and trainer.step % train.sample_every == 0:
            self.sheet(trainer, out)
        if train.validate_every and trainer.step % train.validate_every == 0:
            self._validate(trainer, out)

    def sheet(self, trainer: Trainer[Model], out: Path) -> None:
        """Draw a sample grid of the averaged model, of the same prompts and the same noise at every step."""
        model, data = trainer.average.model, trainer.data
        told = self.train.sample_prompts or first_captions(data)
        shown = data.shown if model.config.inpaint or model.low_res else None
        picture = sample_grid(model, self.train.sample_weights, prompts=told, shown=shown)
        write_bytes(out / "samples" / f"step-{trainer.step:07d}.png", png_bytes(picture))

    def finish(self, trainer: Trainer[Model], out: Path) -> None:
        """Store the last power averages, and measure the loss on images held out."""
        if trainer.accelerator.is_main_process:
            _store(trainer, out)
            self._validate(trainer, out)

    def undropped(self) -> Self:
        """Return the recipe with no condition dropped, and all times equally likely, as the loss is measured."""
        objective = self.train.objective.model_copy(update={"dropout": 0.0, "times": "uniform"})
        return self.model_copy(update={"train": self.train.model_copy(update={"objective": objective})})

    def _validate(self, trainer: Trainer[Model], out: Path) -> None:
        held = trainer.data.held_out
        if held is not None:
            note(out, Validation(trainer.step, validation_loss(self.undropped(), trainer.average.model, held)))


class Recipe(DenoisingRecipe):
    """A whole recipe."""

    data: DataConfig = Field(default_factory=DataConfig, description="what to train on")
    model: ModelSection = Field(default_factory=ModelSection, description="what to train")
    train: TrainSection = Field(description="how to train it")
    sample: SampleDefaults = Field(default_factory=SampleDefaults, description="how the model is sampled by default")

    @model_validator(mode="after")
    def _samplable(self) -> Self:
        process = registry.parse("process", self.model.process)
        levels = registry.parse("grid", self.sample.grid).levels(process, self.sample.steps)
        if self.model.output.startswith(("eps", "edm")) and any(level.alpha == 0 for level in levels[:1]):
            raise BadValue(
                f"with output {self.model.output!r} the clean image cannot be told where {self.model.process} leaves no signal;"
                " use v or velocity"
            )
        self.train.objective.check(process, self.model.learned_variance)
        return self

    def open(self) -> TrainingData:
        """Return the data; raises as `RunRecipe.open` does, and `DataError` where a model of texts finds no caption."""
        data = super().open()
        if self.model.text is not None:
            data.check_captions()
        return data

    def model_config_for(
        self, shape: tuple[int, int, int], classes: Sequence[str] | None, tokenizer: Tokenizer | None = None
    ) -> ModelConfig:
        """Return the config of a model for images (C, H, W) of these classes (None: without classes).

        Args:
            shape, classes: of the data.
            tokenizer: of a model that is told texts.

        Raises:
            BadRecipe: the architecture speaks of other image channels than the data have, or wants a condition they lack.
        """
        given = self.model.architecture
        channels = {"in_channels": shape[0], "out_channels": shape[0] * (2 if self.model.learned_variance else 1)}
        for key, wanted in channels.items():
            if given.get(key, wanted) != wanted:
                raise BadRecipe(
                    f"model.architecture.{key} is {given[key]}, but the images have {shape[0]} channels; leave it out"
                )
        architecture = {**given, **channels}
        doors = registry.lookup("network", self.model.network).Config(**architecture).doors
        text = self.model.text
        if doors and classes is None and text is None:
            raise BadRecipe(
                f"the network has a door for a condition ({', '.join(doors)}), but the data have no labels; name their column in"
                " data.label_column, tell it captions (model.text: {}), or close the door (for a unet: model.architecture.vector: null)"
            )
        return ModelConfig(
            shape=shape,
            network=self.model.network,
            architecture=architecture,
            process=self.model.process,
            output=self.model.output,
            learned_variance=self.model.learned_variance,
            classes=tuple(classes) if doors and classes and text is None else None,
            text=None
            if text is None or tokenizer is None
            else TextConfig(tokenizer=tokenizer.config, vocabulary=tokenizer.size, encoder=text.encoder),
            sample=self.sample,
        )

    def build(
        self,
        shape: tuple[int, int, int],
        classes: Sequence[str] | None,
        texts: Wordings = tuple,
        further: Sequence[str] = (),
    ) -> Model:
        """Return a new model for images (C, H, W) of these classes, or told such texts; raises as `model_config_for` does."""
        told, further = self.model.text, (*further, *self.train.sample_prompts)
        tokenizer = None if told is None else told.tokenizer(texts(), further)
        return Model(self.model_config_for(shape, classes, tokenizer), tokenizer)


def _store(trainer: Trainer[Model], out: Path) -> None:
    for average in trainer.powers:
        save_snapshot(out / "snapshots", average, trainer.images)


load_recipe, read_recipe = Recipe.load, Recipe.read
