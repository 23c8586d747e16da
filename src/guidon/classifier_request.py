"""How a model is steered by a classifier: one of guidon's own, or any function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from guidon import registry
from guidon.classifier import Classifier
from guidon.conditioning.condition import Context
from guidon.errors import BadValue, ShapeMismatch
from guidon.model_request import Label, class_id, numbered, whole
from guidon.noise import Level, Process
from guidon.sampling.trajectory import Told

LogProb = Callable[[Tensor, Level, Tensor], Tensor]


class Steered(Protocol):
    """What a classifier must fit: a `Model`."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, or None."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    def process(self) -> Process:
        """The noise process."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""


class FunctionClassifier:
    """A function as a classifier that the engine can ask.

    Args:
        function: (x (B, C, H, W), level, ids (B,)) -> log p(class | x) (B,), differentiable in x.
    """

    def __init__(self, function: LogProb) -> None:
        self.function = function

    def log_prob(self, x: Tensor, level: Level, context: Context) -> Tensor:
        """Return log p(class | x) (B,); the context's vector holds the ids."""
        assert context.vector is not None
        return self.function(x, level, context.vector[:, 0].long().to(x.device))


def as_classifier(classifier: Classifier | LogProb, model: Steered) -> Classifier | FunctionClassifier:
    """Return what the engine can ask; raises as `check_classifier` does."""
    if not isinstance(classifier, Classifier):
        return FunctionClassifier(classifier)
    check_classifier(classifier, model)
    return classifier


def told_to_classifier(
    classes: Sequence[str] | None, names: Sequence[Label], further: Mapping[str, Sequence[Label]]
) -> dict[str, Told]:
    """Return what a classifier is told under every name: the class ids (B, 1).

    Args:
        classes: that there are; None where labels are numbers alone.
        names: the label of each image.
        further: as in `conditions`; "no class" among them is nothing that a classifier can be told.

    Raises:
        BadValue: an image has no class.
    """
    if None in names:
        raise BadValue("a classifier cannot guide towards no class; give every image a label")
    each = {"given": list(names)} | {
        name: [label] * len(names) for name, label in numbered(further).items() if label is not None
    }

    def number(label: Label) -> int:
        return whole("a label", label) if classes is None else class_id(label, classes)

    ids = {name: torch.tensor([[number(label)] for label in labels]) for name, labels in each.items()}
    return {f"classifier:{name}": Context(vector=rows.float()) for name, rows in ids.items()}


def check_classifier(classifier: Classifier, model: Steered) -> None:
    """Refuse a classifier that is for other images, noise or classes than a model; raises `BadValue` or `ShapeMismatch`."""
    if classifier.shape != model.shape:
        raise ShapeMismatch(
            f"the classifier {classifier.name} is for images {classifier.shape} and the model gives {model.shape}; "
            "take one of the same size"
        )
    if not classifier.process.agrees(model.process):
        raise BadValue(
            f"the classifier {classifier.name} learned the noise of {registry.to_text(classifier.process)} and the model that of "
            f"{registry.to_text(model.process)}; take one of the same process: guidon train-classifier with model.base"
        )
    if model.classes is not None and classifier.classes != model.classes:
        differing = next(
            (pair for pair in zip(classifier.classes, model.classes, strict=False) if len(set(pair)) > 1), None
        )
        raise BadValue(
            f"the classifier {classifier.name} knows {len(classifier.classes)} classes and the model {len(model.classes)}"
            + (f", and where one has {differing[0]!r} the other has {differing[1]!r}" if differing else "")
            + "; take one of the same classes"
        )
    if classifier.device != model.device:
        raise BadValue(
            f"the classifier is on {classifier.device} and the model on {model.device}; bring both to one device"
        )
