"""The recipe of a noisy classifier: what it learns from, under which noise, and how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, ValidationError, field_validator, model_validator

from guidon.checkpoints.native import local_folder, read_config
from guidon.classifier import Classifier, ClassifierConfig
from guidon.errors import BadRecipe, BadValue
from guidon.model_config import ModelConfig, first_problem
from guidon.models.encoder_unet import EncoderUNetConfig
from guidon.training.calibrate import calibrate, write_report
from guidon.training.classify import ClassifierLoss, NoiseDraw, draw_noise
from guidon.training.data import DataConfig
from guidon.training.run_recipe import RunRecipe, RunSection, Section, Wordings, known, problems

if TYPE_CHECKING:
    from guidon.training.trainer import Trainer

FROM_DATA = ("in_channels", "out_channels", "size")  # of the architecture


class LabelledData(DataConfig):
    """The ``data:`` section of a classifier's recipe."""

    hold_out: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of the images (2000 at most) that is not trained on: accuracy and calibration are measured on it",
    )


class ClassifierSection(Section):
    """The ``model:`` section of a classifier's recipe."""

    base: str | None = Field(
        None,
        description="the model that is to be guided, a folder or a hub id: it decides the process, the shape, and the classes if"
        " it has any",
    )
    process: str | None = Field(None, description="noise process, in place of a base")
    architecture: dict[str, Any] = Field(
        default_factory=dict,
        description="the configuration of the EncoderUNet; image channels, size and classes come from the data",
    )

    @field_validator("process")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        return None if text is None else known("process", text)

    @field_validator("architecture")
    @classmethod
    def _fits(cls, architecture: dict[str, Any]) -> dict[str, Any]:
        if given := [key for key in FROM_DATA if key in architecture]:
            raise BadValue(f"{', '.join(given)}: the data decide; leave it out")
        try:
            EncoderUNetConfig(**architecture)
        except ValidationError as error:
            raise BadValue("; ".join(problems(error, EncoderUNetConfig))) from error
        return architecture

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.base is None and self.process is None:
            raise BadValue(
                "give either the base, the model that is to be guided, or a process, for instance process: cosine"
            )
        if self.base is not None and self.process is not None:
            raise BadValue(
                f"give either the base or a process: the base {self.base} decides the process, so drop {self.process}:"
                " --set model.process=null"
            )
        return self


class ClassifierTrainSection(RunSection):
    """The ``train:`` section of a classifier's recipe."""

    weight_decay: float = Field(
        0.05, ge=0, description="decoupled decay of matrices and kernels per step, times the learning rate"
    )


class ClassifierRecipe(RunRecipe[Classifier]):
    """A whole recipe of a classifier."""

    kind_of_recipe: ClassVar[str] = "classifier"

    kind: Literal["classifier"] = Field(description="what tells it from a model's recipe")
    data: LabelledData = Field(default_factory=LabelledData, description="what to train on")
    model: ClassifierSection = Field(description="what to train")
    train: ClassifierTrainSection = Field(description="how to train it")

    def build(
        self,
        shape: tuple[int, int, int],
        classes: Sequence[str] | None,
        texts: Wordings = tuple,
        further: Sequence[str] = (),
    ) -> Classifier:
        """Return a new classifier for images (C, H, W) of these classes.

        Raises:
            BadRecipe: the data have no labels or no square images, or are not those of the base.
            MissingFile: there is no such base.
        """
        if classes is None or len(classes) < 2:
            raise BadRecipe(
                "a classifier needs data with at least two classes, and these have "
                f"{'no labels' if classes is None else 'one'}; name their column in data.label_column"
            )
        channels, height, width = shape
        if height != width:
            raise BadRecipe(f"a classifier takes square images, these are {height}x{width}; set data.size")
        process = self.model.process
        if self.model.base is not None:
            process = _checked(base_config(self.model.base), self.model.base, shape, classes).process
        assert process is not None
        architecture = {
            **self.model.architecture,
            "in_channels": channels,
            "out_channels": len(classes),
            "size": height,
        }
        try:
            config = ClassifierConfig(shape=shape, architecture=architecture, process=process, classes=tuple(classes))
            return Classifier(config)
        except BadValue as error:
            raise BadRecipe(f"model.architecture: {error}") from error

    def loss(self, model: Classifier) -> ClassifierLoss:
        """Return what training minimises."""
        return ClassifierLoss(model)

    def draw(self, model: Classifier, shape: torch.Size, *, step: int, device: torch.device) -> NoiseDraw:
        """Draw what chance decides in one step; see `draw_noise`."""
        return draw_noise(model.process, shape, seed=self.train.seed, step=step, device=device)

    def finish(self, trainer: Trainer[Classifier], out: Path) -> None:
        """Measure the averaged classifier on the images held out, fit its temperatures, and write accuracy.json."""
        held = trainer.data.held_out
        assert held is not None and held.labels is not None
        classifier = trainer.average.model
        report = calibrate(classifier, held.images, held.labels, seed=self.train.seed)
        classifier.config = classifier.config.model_copy(update={"calibration": report.calibration})
        if trainer.accelerator.is_main_process:
            write_report(report, out)


def base_config(base: str) -> ModelConfig:
    """Return what the model in a folder or on the hub is; raises `MissingFile`, `DamagedCheckpoint`, `BadRecipe`."""
    config = read_config(local_folder(base))
    if config.get("kind") == "classifier":
        raise BadRecipe(f"model.base: {base} is a classifier; give the model that is to be guided")
    try:
        return ModelConfig(**config)
    except ValidationError as error:
        raise BadRecipe(
            f"model.base: {base} is not a model ({first_problem(error)}); give a folder that `guidon train` wrote"
        ) from error


def _checked(config: ModelConfig, base: str, shape: tuple[int, int, int], classes: Sequence[str]) -> ModelConfig:
    """Return a base's config if its images and classes are those of the data; else raise `BadRecipe`."""
    if config.shape != shape:
        raise BadRecipe(
            f"the base {base} makes images {config.shape}, the data have {shape}; set data.size to {config.shape[1]}"
            f" and data.channels to {config.shape[0]}, or choose another base"
        )
    if config.classes is not None and config.classes != tuple(classes):
        raise BadRecipe(
            f"the base {base} has the classes {_some(config.classes)}, the data have {_some(classes)};"
            " list those of the base in data.classes, in their order, or choose other data"
        )
    return config


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
