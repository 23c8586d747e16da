"""A sensible example of every rule and stage, for pictures and measurements on a model of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guidon.measure.features import FeatureClassifier
from guidon.model import Model
from guidon.noise import Level


@dataclass(frozen=True)
class Example:
    """A rule in text form, and what it needs to be told.

    Args:
        rule: text form.
        against: what the picture compares it with.
        solver: where the model's own will not do.
        negative, also: how many classes on from the image's own the further conditions are; for `sample_example`.
        related: whether a class like the image's own is told as "partial".
        needs: "weak" or "classifier".
    """

    rule: str
    against: str = "cfg(1)"
    solver: str | None = None
    negative: int | None = None
    also: int | None = None
    related: bool = False
    needs: str | None = None


RELATED = [8, 9, 6, 5, 7, 3, 2, 4, 0, 1]  # for each class of CIFAR-10 the one most like it: a ship for an aeroplane
STRONG = "cfg(8)"  # strong enough that a stage has something to mend

EXAMPLES = {
    "cfg": Example("cfg(3)"),
    "negative": Example("negative(3)", "cfg(3)", negative=2),
    "avoid": Example("avoid(3, 1)", "cfg(3)", negative=2),
    "perp-neg": Example("perp-neg(3)", "cfg(3)", negative=2),
    "conjunction": Example("conjunction([2, 2])", "cfg(3)", also=1),
    "two-scale": Example("two-scale(3, 1)", "cfg(3)", related=True),
    "classifier": Example("classifier(2, base='given')", needs="classifier"),
    "cfgpp": Example("cfgpp(1)", "cfg(3)"),
    "rectified-cfgpp": Example("rectified-cfgpp(3)", "cfg(3)", solver="rectified"),
    "autoguidance": Example("autoguidance(1.2)", needs="weak"),
    "pag": Example("pag(6)"),
    "seg": Example("seg(6)"),
    "slg": Example("slg(3)"),
    "tsg": Example("tsg(2)"),
    "icg": Example("icg(3)", "cfg(3)"),
    "fdg": Example("fdg([4, 1.5])", "cfg(3)"),
    "fbg": Example("fbg()", "cfg(3)"),
    "dynamic-scale": Example("dynamic-scale(3)", "cfg(3)"),
    "threshold": Example(f"{STRONG} | threshold()", STRONG),
    "dynamic-threshold": Example(f"{STRONG} | dynamic-threshold()", STRONG),
    "rescale": Example(f"{STRONG} | rescale()", STRONG),
    "apg": Example(f"{STRONG} | apg(radius=10, momentum=-0.5)", STRONG),
    "cfg-zero": Example(f"{STRONG} | cfg-zero()", STRONG),
    "tcfg": Example(f"{STRONG} | tcfg()", STRONG),
    "mambo-g": Example(f"{STRONG} | mambo-g()", STRONG),
    "power-law": Example("cfg(2) | power-law(0.3)", "cfg(3)"),
    "cads": Example("cfg(4) | cads()", "cfg(4)"),
    "adaptive": Example("cfg(3) | adaptive(0.999)", "cfg(3)"),
    "reuse": Example("cfg(3) | reuse(2)", "cfg(3)"),
    "linear-ag": Example("cfg(3) | linear-ag(2)", "cfg(3)"),
    "interval": Example("cfg(4, when=interval(0.3, 5))", "cfg(3)"),
    "linear": Example("cfg(linear(1, 5))", "cfg(3)"),
    "cosine": Example("cfg(cosine(15, 1))", "cfg(3)"),
    "clamp-linear": Example("cfg(clamp-linear(1, 5, 2))", "cfg(3)"),
    "power": Example("cfg(power(1, 7, 2))", "cfg(3)"),
    "beta": Example("cfg(beta(5))", "cfg(3)"),
}


def sample_example(
    model: Model, example: Example, labels: list[int], seed: int, helpers: dict[str, Any]
) -> Tensor | Any:
    """Sample an example; conditions that differ from image to image are sampled class by class.

    Args:
        model: of classes.
        example: what to sample.
        labels: of the images.
        seed: of the first.
        helpers: "weak": a `Model`; "classifier": a function.

    Returns:
        The images (N, C, H, W) in the order of the labels, the evaluations of an image, and the seconds.
    """
    classes = len(model.classes or ())
    settings: dict[str, Any] = {"rule": example.rule}
    if example.solver is not None:
        settings["solver"] = example.solver
    if example.needs is not None:
        settings[example.needs] = helpers[example.needs]
    x = torch.empty(len(labels), *model.shape)
    nfe, seconds = 0.0, 0.0
    groups = [list(range(len(labels)))]
    if example.negative is not None or example.also is not None or example.related:
        groups = [[i for i, label in enumerate(labels) if label == c] for c in sorted(set(labels))]
    for rows in groups:
        further = {
            name: [(labels[rows[0]] + by) % classes]
            for name, by in (("negative", example.negative), ("also", example.also))
            if by is not None
        }
        if example.related:
            further["partial"] = [RELATED[labels[rows[0]]]]
        samples = model.sample([labels[i] for i in rows], seed=[seed + i for i in rows], **settings, **further)
        x[rows] = samples.x
        nfe, seconds = nfe + samples.nfe * len(rows) / len(labels), seconds + samples.seconds
    return x, nfe, seconds


def classifier_of_estimates(model: Model, judge: FeatureClassifier) -> Callable[[Tensor, Level, Tensor], Tensor]:
    """Return a classifier of noisy images made of one of clean images: it looks at the unconditional estimate of the image."""

    def log_p(x: Tensor, level: Level, ids: Tensor) -> Tensor:
        null = model.encode(model.condition([None] * len(x)))
        clean = model.denoiser(x, level, null).x0
        logits = judge(clean.clamp(-1, 1))
        return logits.log_softmax(-1).gather(1, ids[:, None]).squeeze(1)

    return log_p
