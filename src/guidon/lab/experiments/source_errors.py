"""What each error in two texts about guidance does, measured beside the right formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.lab.drawing import TRUTH, color, curve, histogram, panels, plain
from guidon.lab.experiment import Experiment, Findings, Row, Track, quietly
from guidon.lab.experiments.modes_lost import limit
from guidon.lab.small_denoiser import train
from guidon.lab.sources import guidance, networks, steps
from guidon.lab.sources.item import TABLE, Item, Number, two_classes
from guidon.registry import register

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT, SOURCE, OTHER = color(0), color(1), color(3)


@register("experiment", "source-errors")
@dataclass(frozen=True)
class SourceErrors(Experiment):
    """The errors of two texts about guidance, each beside the right formula, with what both give.

    Two texts that explain guidance, a tutorial on classifier-free guidance with code and a blog on classifier guidance and
    GLIDE, contain fourteen errors that are easy to copy. Here every one that can be measured is: the source's formula, written anew
    and kept apart from the library, and the library's own rule, solver or layer, on the same data. The test bed is the line with
    exact beliefs and DDPM's table of 1000 betas; deterministic runs begin at even quantiles of N(0, 1) and affine ones are followed by
    their moments, so that differences are the formulas' and not chance. Two errors are of training, and need a small network,
    trained during the run.

    In the table a word in brackets is the library's name for what is right. "Reference" is what the project's reference sheet prints;
    where it was found by Monte Carlo its last digit may differ. What one cannot measure is only said: wrong years and titles of
    papers, a remedy for cost that saves nothing, and the name Langevin dynamics for samplers that are none.

    For a user: most of these errors do not crash. Wrong signs, wrong scales and a threshold in the wrong space still give
    pictures; only a world with known answers tells.

    Args:
        starts: quantiles to start a run from, >= 2.
        training: steps of the small network, >= 4.
        seed: of the training.

    Raises:
        BadValue: too few starts or steps.
    """

    page: ClassVar[int] = 8
    title: ClassVar[str] = "Errors of two texts"
    asks: ClassVar[str] = "What would each error in two widely read texts about guidance do?"
    sources: ClassVar[tuple[str, ...]] = (
        "dhariwal2021diffusion",
        "ho2022classifier",
        "nichol2022glide",
        "saharia2022photorealistic",
        "chung2025cfgpp",
        "song2021denoising",
    )

    starts: int = 1000
    training: int = 1500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.starts < 2 or self.training < 4:
            raise BadValue(
                f"source-errors needs two starts and four steps of training or more, got {self.starts} and {self.training}"
            )

    def run(self, track: Track[Any] = quietly) -> Findings:
        trained = {
            name: train(two_classes(), TABLE, steps=self.training, seed=self.seed, same_noise=same)
            for name, same in track([("source", False), ("right", True)], "small networks")
        }
        losses = {name: losses for name, (_, losses) in trained.items()}
        network, _ = trained["right"]
        measured: list[Callable[[], Item]] = [
            lambda: guidance.classifier_gradient(self.starts),
            lambda: networks.training_noise(losses, self.seed),
            lambda: networks.null_mismatch(network, self.starts),
            lambda: steps.threshold(self.starts),
            lambda: guidance.negative_prompt(self.starts),
            lambda: guidance.not_cfgpp(self.starts),
            steps.denoise_step,
            lambda: steps.schedule(limit),
            networks.adagn,
            networks.cross_attention,
            guidance.no_expansion,
            guidance.conventions,
            steps.blog_formulas,
            lambda: networks.lost_lines(self.seed),
        ]
        items = {item.number: item for item in (measure() for measure in track(measured, "errors"))}
        tables = {
            "errors": [_row(item) for item in items.values()],
            "numbers": [_numbers(item, number) for item in items.values() for number in item.numbers],
        }
        return Findings(_sees(items), tables, {"": _densities(items), "training": _training(losses, items[2])})


def _row(item: Item) -> Row:
    return {
        "item": item.number,
        "text": item.where,
        "about": item.about,
        "the text": item.does,
        "gives": "; ".join(f"{n.what}: {_short(n.source)}" for n in item.numbers if n.source is not None) or None,
        "right": item.right,
        "that gives": "; ".join(f"{n.what}: {_short(n.right)}" for n in item.numbers if n.right is not None) or None,
        "reference": "; ".join(
            f"{_short(n.printed)} / {_short(n.printed_right)}"
            for n in item.numbers
            if n.printed is not None or n.printed_right is not None
        )
        or None,
    }


def _numbers(item: Item, number: Number) -> Row:
    return {
        "item": item.number,
        "what": number.what,
        "by the text": number.source,
        "right": number.right,
        "reference, by the text": number.printed,
        "reference, right": number.printed_right,
    }


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) < 0.001 else f"{value:.3f}".rstrip("0").rstrip(".")


def _sees(items: Mapping[int, Item]) -> list[str]:
    first, training, clip, negative, step = (items[i].numbers for i in (1, 2, 4, 5, 7))
    posterior, without = negative[3], negative[4].right
    towards = "towards" if (posterior.source or 0) > (without or 0) else "away from"
    return [
        f"With the tutorial's classifier guidance {first[0].source:.1%} of the samples are in the class they were guided to, with the "
        f"right one {first[0].right:.1%}; with the sign alone mended {first[3].source:.1%}.",
        f"Trained on a noise that was not the one added, a small network ends at a loss of {training[0].source:.3f}, else at "
        f"{training[0].right:.3f}.",
        f"Thresholding the noise takes the deviation of N(2, 0.25) from {clip[0].right:.3f} to {clip[0].source:.2f}, and the largest "
        f"sample to {clip[1].source:.0f}.",
        f"With the tutorial's sign a negative prompt moves {towards} the negative class: its posterior is {posterior.source:.2g} with "
        f"it and {without:.2g} without a negative prompt; with the right sign {posterior.right:.2g}.",
        f"The tutorial's denoising step leaves a variance of {step[0].source:.4f} of 1 after 1000 steps, DDPM {step[0].right:.4f} and "
        f"DDIM {step[1].right:.4f}.",
        f"The differences of the branches and the classifier's gradient agree to {items[11].numbers[0].right:.0e}: no expansion is "
        "needed.",
    ]


def _densities(items: Mapping[int, Item]) -> Figure:
    """Draw what the source and the right formula end with."""
    figure, axes = panels(2, 3, width=3.1, height=2.5)
    kinds = {"right": (RIGHT, "right"), "source": (SOURCE, "the text"), "only the sign mended": (OTHER, "sign mended")}
    kinds |= {"exact": (TRUTH, "exact beliefs"), "without": ("0.6", "no negative")}
    kinds |= {"right, unit 1": (RIGHT, "CFG++, any unit"), "source, unit 1": (SOURCE, "the text, unit 1")}
    kinds |= {"source, unit 0.1": (OTHER, "the text, unit 0.1")}
    bed = (
        (1, "1 classifier guidance to N(2, 0.25)", ((2.0, 0.5),), -7.5, 4.5),
        (3, "3 another null, cfg(1.5) of a network", (), -0.5, 5.0),
        (4, "4 thresholding the noise, N(2, 0.25)", ((2.0, 0.5),), -210.0, 210.0),
        (5, "5 away from the negative N(0.5, 0.25)", ((1.5, 0.5),), -1.5, 4.5),
        (6, "6 'CFG++' in two units", ((2.0, 0.5),), -1.0, 4.5),
    )
    for panel, (number, title, normals, low, high) in zip(axes.flatten(), bed, strict=False):
        for mean, std in normals:
            curve(panel, _normal(mean, std), low, high, label="the class")
        for name, x in items[number].clouds.items():
            if name in kinds:
                shade, label = kinds[name]
                histogram(panel, x, low, high, bins=60, color=shade, label=label)
        if number == 4:  # few samples, very far out
            panel.set_yscale("log")
            panel.set_ylim(1e-6, 1)
        plain(panel, title, "x0", legend=True)
    last = axes[1, 2]
    ddpm, half = items[7].numbers[0].right or 1.0, items[7].numbers[0].source or 1.0
    curve(last, _normal(0.0, 1.0), -3.5, 3.5, label="the class")
    curve(last, _normal(0.0, ddpm**0.5), -3.5, 3.5, color=RIGHT, label="DDPM")
    curve(last, _normal(0.0, half**0.5), -3.5, 3.5, color=SOURCE, label="the text")
    plain(last, "7 denoising step, 1000 of them", "x0", legend=True)
    return figure


def _normal(mean: float, std: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (-0.5 * ((x - mean) / std) ** 2).exp() / (std * math.sqrt(2 * math.pi))


def _training(losses: Mapping[str, Sequence[float]], item: Item) -> Figure:
    """Draw the losses, each the mean of its neighbours, and the least that there is."""
    figure, axes = panels(1, 1, width=6.0, height=2.8)
    panel = axes[0, 0]
    for name, shade, label in (("source", SOURCE, "another noise added"), ("right", RIGHT, "the same noise added")):
        values = torch.tensor(losses[name])
        width = max(1, len(values) // 50)
        smooth = values.unfold(0, width, 1).mean(1)
        panel.plot(torch.arange(len(smooth)) + width // 2, smooth, color=shade, linewidth=1.2, label=label)
    for value in (item.numbers[1].source, item.numbers[1].right):
        panel.axhline(value, color=TRUTH, linewidth=0.8, linestyle="--")
    panel.set_ylim(0, 1.6)
    plain(panel, "2 training a small network (dashed: the least loss there is)", "step", "loss", legend=True)
    return figure
