"""A picture of every rule, stage and schedule for the documentation: the same seeds without and with it.

python benchmarks/rule_pictures.py                   all of them, from the model that benchmarks/cifar10.py trained
python benchmarks/rule_pictures.py apg rescale
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cifar10 import ROOT, Plan
from cyclopts import App
from PIL import Image, ImageDraw, ImageFont
from rule_examples import EXAMPLES, Example, classifier_of_estimates, sample_example

import guidon
from guidon.measure.features import FeatureClassifier
from guidon.tasks.generate import to_uint8

app = App(help=__doc__, help_format="plaintext", version_flags=())
SIDE, GAP, TEXT = 64, 3, 16  # pixels


@app.default
def main(
    *names: str,
    work: Path = Plan.work,
    out: Path = ROOT / "docs/images/rules",
    inner: Path = ROOT / ".bench/digits-inner",
    weak: Path = ROOT / ".bench/cifar10-weak",
    seed: int = 100,
) -> None:
    """Draw.

    Args:
        names: rules, stages or schedules; left out: all.
        work: the folder of `benchmarks/cifar10.py`.
        out: where NAME.jpg goes.
        inner: a run of `guidon train digits --set model.architecture.inner_head=true`, for internal guidance.
        weak: a run of `guidon train cifar10-cpu --set train.budget=100s`, for autoguidance.
        seed: of the first image.
    """
    model = guidon.load(work / "ours" / "model")
    judge = FeatureClassifier.load(work / "classifier").eval()
    helpers: dict[str, Any] = {"weak": guidon.load(weak / "model"), "classifier": classifier_of_estimates(model, judge)}
    made: dict[str, Image.Image] = {}
    for name, example in EXAMPLES.items():
        if not names or name in names:
            made[name] = _picture(model, example, seed, helpers)
    if (not names or "internal" in names) and (inner / "model").is_dir():
        made["internal"] = _picture(guidon.load(inner / "model"), Example("internal(3)"), seed, {})
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in made.items():
        picture.save(out / f"{name}.jpg", quality=88, optimize=True)
        print(out / f"{name}.jpg", picture.size, flush=True)


def _picture(model: guidon.Model, example: Example, seed: int, helpers: dict[str, Any]) -> Image.Image:
    """Return two rows of images on the same seeds, each under its rule's text form."""
    classes = model.classes or ()
    labels = list(range(len(classes)))
    rows = [(example.against, Example(example.against)), (_said(example), example)]
    width = len(labels) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, 2 * (TEXT + SIDE + GAP) + TEXT + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for r, (title, what) in enumerate(rows):
        x, nfe, _ = sample_example(model, what, labels, seed, helpers)
        top = r * (TEXT + SIDE + GAP)
        draw.text((GAP, top + 1), f"{title}    {nfe:g} evaluations", fill="black", font=font)
        for i, pixels in enumerate(to_uint8(x).permute(0, 2, 3, 1).numpy()):
            image = Image.fromarray(pixels.squeeze()).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(image, (GAP + i * (SIDE + GAP), top + TEXT))
    for i, name in enumerate(classes):
        place = GAP + i * (SIDE + GAP) + SIDE // 2
        draw.text((place, sheet.height - TEXT), str(name), fill=(90, 90, 90), font=font, anchor="ma")
    return sheet


def _said(example: Example) -> str:
    """Return an example's rule and what it is told besides."""
    told = [f"with {example.solver}"] if example.solver else []
    told += ["negative: the class two places on"] if example.negative else []
    told += ["also: the next class"] if example.also else []
    told += ["partial: the class most like it"] if example.related else []
    told += ["weak: trained for 100 s instead of 20 min"] if example.needs == "weak" else []
    told += ["classifier: of clean images, on the estimate"] if example.needs == "classifier" else []
    return ", ".join([example.rule, *told])


if __name__ == "__main__":
    app()
