"""Guidance rules on the model that `benchmarks/cifar10.py` trained, each on the same seeds, judged by the same classifier.

python benchmarks/cifar10_rules.py                        the recipe's rule against plain guidance
python benchmarks/cifar10_rules.py "cfg(2)" "cfg(linear(1, 5))" --n 500
python benchmarks/cifar10_rules.py --examples --n 500 --results benchmarks/results/cifar10_examples.json
                                                          every rule, stage and schedule; half an hour
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from cifar10 import CLASSES, ROOT, Plan, _images
from cyclopts import App
from rule_examples import EXAMPLES, Example, classifier_of_estimates, sample_example
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
    examples: bool = False,
    work: Path = Plan.work,
    weak: Path = ROOT / ".bench/cifar10-weak",
    results: Path = ROOT / "benchmarks/results/cifar10_rules.json",
) -> None:
    """Sample and judge.

    Args:
        rules: text forms.
        n: images of each rule, the classes in turn.
        seed: of the first image.
        examples: the examples of `rule_examples.py` and what they are compared with, after those named; what the results
            hold already is not measured again.
        work: the folder of `benchmarks/cifar10.py`.
        weak: a run of `guidon train cifar10-cpu --set train.budget=100s`, for autoguidance.
        results: the JSON file to write.
    """
    if not rules and not examples:
        rules = ("cfg(3)", "cfg(4, when=interval(0.3, 5))")
    wanted = [Example(rule) for rule in rules]
    if examples:
        wanted += [Example(rule) for rule in sorted({example.against for example in EXAMPLES.values()})]
        wanted += EXAMPLES.values()
    classifier = FeatureClassifier.load(work / "classifier").eval()
    judge = Judge.of(classifier, _images(Plan(work=work))["train"])
    model, labels = guidon.load(work / "ours" / "model"), torch.arange(n) % CLASSES
    rows = _measured(results, n, seed) if examples else []
    helpers: dict[str, Any] = {"classifier": classifier_of_estimates(model, classifier)}
    if examples:
        helpers["weak"] = guidon.load(weak / "model")
    account = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "threads": torch.get_num_threads()}
    for example in wanted:
        if any((row["rule"], row["solver"]) == (example.rule, example.solver) for row in rows):
            continue
        x, nfe, seconds = sample_example(model, example, labels.tolist(), seed, helpers)
        told = {
            "solver": example.solver,
            "negative": example.negative,
            "also": example.also,
            "related": example.related,
            "needs": example.needs,
        }
        rows.append({"rule": example.rule, **told, "nfe": nfe, "seconds": seconds, **judge.score(x, labels)})
        print(rows[-1], flush=True)
        whole = account | {"torch": torch.__version__, "seed": seed, "rules": rows}
        write_text(results, json.dumps(whole, indent=2) + "\n")


def _measured(results: Path, n: int, seed: int) -> list[dict[str, Any]]:
    """Return the rows that an earlier run with the same settings left, so that it can go on."""
    if not results.exists():
        return []
    before = json.loads(results.read_text())
    return [row for row in before["rules"] if row["n"] == n and before["seed"] == seed]


if __name__ == "__main__":
    app()
