"""How far a text-to-image model follows what it is told: captioned scenes that can be read back, over the guidance weight.

python benchmarks/shapes.py        an hour of training on one core and about 15 minutes of measuring

Trains recipes/shapes.yaml (a finished run in --work is kept), then samples captions of four kinds at every weight from the same
seeds, reads every image, and counts which parts of its caption hold. Negation: of the images that show a colour, a shape or a size
that was not asked for, how many show it no more, from the same seed, once it stands in a negative prompt.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from cifar10 import ROOT
from cyclopts import App
from shapes_curves import draw_curves, draw_samples
from stages import machine, result, run_stages

import guidon
from guidon.checkpoints.atomic import write_bytes, write_text
from guidon.measure.adherence import Share, adherence, showing
from guidon.scenes.draw import KINDS, prompts

app = App(help=__doc__, help_format="plaintext", version_flags=())

NEGATED = {  # word: a prompt that leaves it open
    "red": "a circle",
    "green": "a square",
    "blue": "a triangle",
    "black": "a cross",
    "circle": "a red thing",
    "square": "a blue thing",
    "triangle": "a yellow thing",
    "cross": "a purple thing",
    "small": "a green square",
    "big": "a black circle",
}
SHOWN = (
    "a big red circle in the top left",
    "a small blue cross in the center",
    "a green triangle above a purple square",
    "a yellow circle left of a black cross",
    "a red square and a small green circle",
    "three blue triangles",
)


@dataclass(frozen=True)
class Plan:
    """What is done.

    Args:
        recipe: what to train.
        sets: changes to it.
        weights: of guidance.
        n: captions of each kind, one image each.
        negated: images for each word that is negated.
        negative_weights: of the negative prompt.
        steps: of sampling.
        seed: of the captions; the images count on from it.
        work: where runs and stages go.
    """

    recipe: str = "shapes"
    sets: tuple[str, ...] = ()
    weights: tuple[float, ...] = (0, 1, 2, 3, 5, 8)
    n: int = 160
    negated: int = 48
    negative_weights: tuple[float, ...] = (2, 4, 8)
    steps: int = 20
    seed: int = 0
    work: Path = ROOT / ".bench/shapes-run"


def train(plan: Plan) -> dict[str, Any]:
    """Train the model, or take the one that is there."""
    run = plan.work / "run"
    if not (run / "train.json").exists():
        sets = ["--set", *plan.sets] if plan.sets else []
        line = [sys.executable, "-m", "guidon", "train", plan.recipe, "-o", str(run), *sets]
        subprocess.run([*line, *(["--resume"] if (run / "recipe.yaml").exists() else [])], check=True, cwd=ROOT)
    settings = yaml.safe_load((run / "recipe.yaml").read_text())["train"]
    account: dict[str, Any] = json.loads((run / "train.json").read_text())
    return account | {"settings": {name: settings[name] for name in ("budget", "steps", "threads", "batch_size")}}


def follow(plan: Plan) -> dict[str, Any]:
    """Sample captions of every kind at every weight and count what holds."""
    model = guidon.load(plan.work / "run")
    kinds: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        captions = prompts(kind, plan.n, plan.seed)
        cells = []
        for weight in plan.weights:
            samples = model.sample(captions, rule=float(weight), steps=plan.steps, seed=plan.seed)
            found = adherence(samples.uint8(), captions)
            parts = {part: shown(share) for part, share in found.parts.items()}
            cells.append(
                {"weight": weight, "whole": shown(found.whole), "things": shown(found.things), "parts": parts}
                | {"nfe": samples.nfe}
            )
            print(f"{kind} w={weight:g}: {found.whole.share:.1%} whole, {found.things.share:.1%} things", flush=True)
        kinds[kind] = cells
    return {"kinds": kinds}


def negate(plan: Plan) -> dict[str, Any]:
    """Count how often what is in a negative prompt is gone, at several weights."""
    model = guidon.load(plan.work / "run")
    cells = []
    for weight in plan.negative_weights:
        words: dict[str, dict[str, Any]] = {}
        for word, prompt in NEGATED.items():
            seeds = range(plan.seed, plan.seed + plan.negated)
            plain = showing(
                model.sample([prompt] * plan.negated, rule=float(weight), steps=plan.steps, seed=seeds).uint8(), word
            )
            left = [seed for seed, there in zip(seeds, plain, strict=True) if there]
            if not left:
                continue
            steered = model.sample(
                [prompt] * len(left),
                rule=f"negative({weight:g})",
                negative=_negative(prompt, word),
                steps=plan.steps,
                seed=left,
            )
            images = steered.uint8()
            still = showing(images, word)
            followed = adherence(images, [prompt] * len(left))
            words[word] = {
                "prompt": prompt,
                "negative": _negative(prompt, word),
                "without": shown(Share(int(plain.sum()), plan.negated)),
                "removed": shown(Share(int((~still).sum()), len(left))),
                "prompt_still_followed": shown(followed.whole),
            }
        gone = Share(*(sum(cell["removed"][key] for cell in words.values()) for key in ("held", "cases")))
        kept = Share(*(sum(cell["prompt_still_followed"][key] for cell in words.values()) for key in ("held", "cases")))
        cells.append({"weight": weight, "removed": shown(gone), "prompt_still_followed": shown(kept), "words": words})
        print(
            f"negative({weight:g}): {gone.share:.1%} of {gone.cases} removed, {kept.share:.1%} follow the prompt",
            flush=True,
        )
    return {"cells": cells}


def picture(plan: Plan) -> dict[str, Any]:
    """Draw the same seeds at several weights."""
    model = guidon.load(plan.work / "run")
    weights = [w for w in (0, 1, 2, 3, 5, 8) if w in plan.weights]
    rows = [
        (f"w = {weight:g}", model.sample(list(SHOWN), rule=float(weight), steps=plan.steps, seed=plan.seed).pil())
        for weight in weights
    ]
    write_bytes(plan.work / "samples.png", draw_samples(rows, SHOWN))
    return {}


def _negative(prompt: str, word: str) -> str:
    """Return the prompt with the word in it: what is not wanted."""
    noun = prompt.split()[-1]
    if noun == "thing" and word in ("circle", "square", "triangle", "cross"):
        return prompt.replace("thing", word)
    return prompt.replace("a ", f"a {word} ", 1)


def shown(share: Share) -> dict[str, float]:
    """Return a share for the report."""
    return {**asdict(share), "share": round(share.share, 4), "standard_error": round(share.standard_error, 4)}


@app.default
def main(
    plan: Plan = Plan(),
    *,
    only: tuple[str, ...] = (),
    results: Path = ROOT / "benchmarks/results/shapes.json",
    curves: Path = ROOT / "docs/images/shapes.png",
    samples: Path = ROOT / "docs/images/shapes-samples.png",
) -> None:
    """Train, measure, write the report.

    Args:
        plan: what is done.
        only: stages to run anew.
        results: the JSON file to write.
        curves, samples: the pictures to write.
    """
    torch.set_num_threads(max(1, torch.get_num_threads()))
    stages = {"train": train, "follow": follow, "negate": negate, "picture": picture}
    if not run_stages(stages, plan, plan.work, only):
        return
    kinds, negation = result(plan.work, "follow")["kinds"], result(plan.work, "negate")["cells"]
    account = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "plan": json.loads(json.dumps(asdict(plan), default=lambda path: str(path.relative_to(ROOT)))),
        "training": result(plan.work, "train"),
        "best": {kind: max(cells, key=lambda cell: cell["whole"]["share"]) for kind, cells in kinds.items()},
        "kinds": kinds,
        "negation": negation,
    }
    write_text(results, json.dumps(account, indent=2) + "\n")
    write_bytes(curves, draw_curves(kinds, negation))
    write_bytes(samples, (plan.work / "samples.png").read_bytes())


if __name__ == "__main__":
    app()
