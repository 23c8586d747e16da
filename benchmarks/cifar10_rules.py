"""Guidance rules on the model that `benchmarks/cifar10.py` trained, each on the same seeds, judged by the same classifier.

python benchmarks/cifar10_rules.py                        the recipe's rule against plain guidance
python benchmarks/cifar10_rules.py "cfg(2)" "cfg(linear(1, 5))" --n 500
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from cifar10 import CLASSES, ROOT, Plan, _images
from cyclopts import App
from stages import machine

import guidon
from guidon.checkpoints.atomic import write_text
from guidon.measure.features import FeatureClassifier
from guidon.measure.judge import Judge

app = App(help=__doc__, help_format="plaintext", version_flags=())


@app.default
def main(
    *rules: str,
    n: int = 1000,
    seed: int = 0,
    work: Path = Plan.work,
    results: Path = ROOT / "benchmarks/results/cifar10_rules.json",
) -> None:
    """Sample and judge.

    Args:
        rules: text forms.
        n: images of each rule, the classes in turn.
        seed: of the first image.
        work: the folder of `benchmarks/cifar10.py`.
        results: the JSON file to write.
    """
    rules = rules or ("cfg(3)", "cfg(4, when=interval(0.3, 5))")
    judge = Judge.of(FeatureClassifier.load(work / "classifier"), _images(Plan(work=work))["train"])
    model, labels, rows = guidon.load(work / "ours" / "model"), torch.arange(n) % CLASSES, []
    for rule in rules:
        samples = model.sample(labels.tolist(), rule=rule, seed=seed)
        rows.append({"rule": rule, "nfe": samples.nfe, "seconds": samples.seconds, **judge.score(samples.x, labels)})
        print(rows[-1], flush=True)
    account = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "threads": torch.get_num_threads()}
    write_text(
        results, json.dumps(account | {"torch": torch.__version__, "seed": seed, "rules": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    app()
