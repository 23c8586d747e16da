"""The recipe of fine-tuning: which model, on what data, and which of its weights may change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from guidon.checkpoints.atomic import write_text
from guidon.errors import BadRecipe, BadValue, MissingFile
from guidon.model import Model
from guidon.model_config import ModelConfig, SampleDefaults
from guidon.training.adapt import AdaptSection, adapt, changed_share, merge, save_adapter, trained_share
from guidon.training.batches import TrainingData
from guidon.training.classifier_recipe import base_config
from guidon.training.columns import NO_COLUMN
from guidon.training.data import DataConfig
from guidon.training.holdout import open_divided
from guidon.training.objective import Draw, Objective
from guidon.training.recipe import DenoisingRecipe, TrainSection
from guidon.training.run_recipe import Wordings
from guidon.training.shown import ShownLoss, draw_shown

if TYPE_CHECKING:
    from guidon.training.trainer import Trainer

REPORT = "finetune.json"


class TuningData(DataConfig):
    """The ``data:`` section of a recipe of fine-tuning; size, channels and classes are those of the base where they are absent."""

    hold_out: float | None = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of the images (2000 at most) that is not trained on: the validation loss is measured on it; none: on none",
    )


class TuningTrainSection(TrainSection):
    """The ``train:`` section of a recipe of fine-tuning."""

    lr: float = Field(2e-4, gt=0, description="peak learning rate of AdamW")
    objective: Objective = Field(default_factory=lambda: Objective(dropout=0.2), description="what is minimised")
    blur: float = Field(
        0.6,
        ge=0,
        description="of a model that enlarges: a random half of the small images is blurred by so many of their pixels",
    )


class FinetuneRecipe(DenoisingRecipe):
    """A whole recipe of fine-tuning."""

    kind_of_recipe: ClassVar[str] = "finetune"

    kind: Literal["finetune"] = Field(description="what tells it from a model's recipe")
    base: str = Field(description="the model to start from, a folder or a hub id")
    data: TuningData = Field(default_factory=TuningData, description="what to train on")
    adapt: AdaptSection = Field(default_factory=AdaptSection, description="which weights are trained")
    train: TuningTrainSection = Field(description="how to train it")
    sample: SampleDefaults | None = Field(None, description="how the model is sampled by default; absent: as the base")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.adapt.lora is not None and self.train.power_averages:
            raise BadValue(
                "train.power_averages holds whole models, and adapt.lora trains what is added to one; leave out one of them"
            )
        return self

    def open(self) -> TrainingData:
        """Return the data in the shape of the base, without what is held out.

        Raises:
            MissingFile, BadRecipe: there is no such base.
            DataError: the base is told texts, and no image has a caption; or as `open_divided` does.
        """
        base = base_config(self.base)
        channels, height, width = base.shape
        absent: dict[str, Any] = {
            "size": height if height == width else None,
            "channels": channels,
            "classes": _list(base),
        }
        absent |= {} if base.classes is not None else {"label_column": NO_COLUMN}
        wanted = {name: value for name, value in absent.items() if getattr(self.data, name) is None}
        data = open_divided(self.data.model_copy(update=wanted), seed=self.train.seed)
        if base.text is not None:
            data.check_captions()
        return data

    def build(
        self,
        shape: tuple[int, int, int],
        classes: Sequence[str] | None,
        texts: Wordings = tuple,
        further: Sequence[str] = (),
    ) -> Model:
        """Return the base with what is not trained frozen; its tokenizer warns once of captions that it cuts.

        Raises:
            BadRecipe: its images or its classes are not those of the data, it cannot do without a class, or nothing is left to train.
            MissingFile, DamagedCheckpoint: it cannot be loaded.
        """
        model = Model.from_pretrained(self.base)
        if model.shape != shape:
            raise BadRecipe(
                f"the base {self.base} makes images {model.shape}, the data have {shape}; leave data.size and data.channels out"
            )
        if model.classes is not None and model.classes != tuple(classes or ()):
            raise BadRecipe(
                f"the base {self.base} has {len(model.classes)} classes, the data {len(classes or ())} or others; name their column"
                " in data.label_column, and list those of the base in data.classes"
            )
        if model.classes is not None and not model.has_null and self.train.objective.dropout > 0:
            raise BadRecipe(
                f"the base {self.base} never learned to do without a class, so none can be dropped; set train.objective.dropout to 0"
            )
        if model.tokenizer is not None:
            model.tokenizer.encode([*texts(), *further, *self.train.sample_prompts])
        if self.sample is not None:
            model.config = model.config.model_copy(update={"sample": self.sample})
        adapt(model, self.adapt)
        return model

    def loss(self, model: Model) -> ShownLoss:
        """Return what training minimises."""
        return ShownLoss(model, self.train.objective, self.train.blur)

    def draw(self, model: Model, shape: torch.Size, *, step: int, device: torch.device) -> Draw:
        """Draw what chance decides in one step, and what the model is shown."""
        draw = super().draw(model, shape, step=step, device=device)
        return draw_shown(model, draw, seed=self.train.seed, step=step)

    def begin(self, trainer: Trainer[Model], out: Path) -> None:
        """Measure and sample the base."""
        super().begin(trainer, out)
        if self.train.sample_every:
            self.sheet(trainer, out)

    def finish(self, trainer: Trainer[Model], out: Path) -> None:
        """Measure, draw the last sample grid, write what LoRA learned, merge it, and say in finetune.json what changed.

        Of the shares there, the trained one is of what had a gradient, as many weights as the base has being 1, and the changed one of
        the base's own weights that differ in the end: LoRA trains few and changes whole matrices.
        """
        super().finish(trainer, out)
        model, main = trainer.average.model, trainer.accelerator.is_main_process
        if main and self.train.sample_every:
            self.sheet(trainer, out)
        account: dict[str, Any] = {"base": self.base, "trained_share": trained_share(trainer.model)}
        if self.adapt.lora is not None:
            if main:
                save_adapter(model, self.adapt.lora, self.base, out)
            merge(model)
        account["changed_share"] = changed_share(Model.from_pretrained(self.base).state_dict(), model.state_dict())
        model.config = model.config.model_copy(update={"training": {**model.config.training, "finetuned": account}})
        if main:
            write_text(out / REPORT, json.dumps(account, indent=2) + "\n")


def read_report(folder: Path) -> dict[str, Any]:
    """Return what `FinetuneRecipe.finish` said of a run; raises `MissingFile` where it did not end."""
    try:
        return json.loads((folder / REPORT).read_text())
    except FileNotFoundError as error:
        raise MissingFile(f"{folder} has no {REPORT}; let the run come to its end with --resume") from error


def _list(base: ModelConfig) -> list[str] | None:
    return None if base.classes is None else list(base.classes)
