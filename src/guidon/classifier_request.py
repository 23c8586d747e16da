"""How a model is steered by a classifier of noisy images: one of classes, a CLIP, or any function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from guidon import registry
from guidon.checkpoints.native import local_folder, read_config
from guidon.classifier import Classifier
from guidon.clip import Clip, told_to_clip
from guidon.conditioning.condition import Context
from guidon.conditioning.text import Texts
from guidon.errors import BadValue, ShapeMismatch
from guidon.model_request import Label, class_id, described, numbered, whole
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


def load_classifier(source: str | Path) -> Classifier | Clip:
    """Load what may lead a model from a folder or a hub id: a classifier of classes, or a CLIP.

    Raises as `Classifier.from_pretrained` and `Clip.from_pretrained` do.
    """
    kind = read_config(local_folder(source)).get("kind")
    return (Clip if kind == "clip" else Classifier).from_pretrained(source)


def as_classifier(classifier: Classifier | Clip | LogProb, model: Steered) -> Classifier | Clip | FunctionClassifier:
    """Return what the engine can ask; raises as `check_classifier` does."""
    if not isinstance(classifier, Classifier | Clip):
        return FunctionClassifier(classifier)
    check_classifier(classifier, model)
    return classifier


def told_to_classifier(
    classifier: Classifier | Clip | LogProb,
    classes: Sequence[str] | None,
    names: Sequence[Label] | Texts,
    further: Mapping[str, Sequence[Label]],
) -> dict[str, Told]:
    """Return what a classifier is told under every name: the class ids (B, 1), or a CLIP the features of texts (B, E).

    Args:
        classifier: who is told.
        classes: that there are; None where labels are numbers alone, or texts.
        names: the label of each image, or its text.
        further: as in `conditions`; "no class" among them is nothing that a classifier can be told.

    Raises:
        BadValue: an image has no class, or no text.
    """
    if isinstance(names, Texts):
        raise BadValue("a classifier cannot read the tokens of another; give the texts in words")
    if None in names:
        raise BadValue("a classifier cannot guide towards nothing; give every image a label, or a text")
    each = {"given": list(names)} | {
        name: [label] * len(names) for name, label in numbered(further).items() if label is not None
    }
    if isinstance(classifier, Clip):
        said = {name: [str(text) for text in described(labels, classes)] for name, labels in each.items()}
        return {f"classifier:{name}": told_to_clip(classifier, texts) for name, texts in said.items()}

    def number(label: Label) -> int:
        return whole("a label", label) if classes is None else class_id(label, classes)

    ids = {name: torch.tensor([[number(label)] for label in labels]) for name, labels in each.items()}
    return {f"classifier:{name}": Context(vector=rows.float()) for name, rows in ids.items()}


def check_classifier(classifier: Classifier | Clip, model: Steered) -> None:
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
    if model.classes is not None and classifier.classes is not None and classifier.classes != model.classes:
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
