"""Two ways to a class on CIFAR-10: a classifier that leads an unconditional model, and classifier-free guidance, at equal training.

    python benchmarks/cifar10_classifier.py            about an hour and a half on two cores; needs benchmarks/cifar10.py's judge

An unconditional model (20 minutes) and a noisy classifier (5 minutes) against one model of classes (25 minutes), of two cores. The
models are trained for as many steps as their minutes make on two quiet cores (4 a second: benchmarks/results/cifar10.json), so that a
busy machine changes how long it takes and not what is learned. The classifier has one core for 8 minutes: on one core the
recipe of the models did 150 images a second, on two quiet ones 255, so that 8 minutes of one do not quite what 5 of two do.
Every curve is drawn from the same seeds and labels and judged by one classifier that saw real images only, and no noise.
Every stage leaves its result in the work folder, and a finished stage is not repeated.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from cifar10 import CLASSES, ROOT, _images
from cifar10 import Plan as JudgePlan
from classifier_curves import draw_curves, draw_samples
from cyclopts import App, Parameter
from stages import machine, result, run_stages

import guidon
from guidon.checkpoints.atomic import write_bytes, write_text
from guidon.conditioning import Context
from guidon.measure.features import FeatureClassifier
from guidon.measure.judge import Judge


@Parameter(name="*")
@dataclass(frozen=True)
class Plan:
    """What to compare and how.

    Args:
        data: folder with the Parquet files of CIFAR-10.
        work: folder for what the stages leave.
        judged: the folder of `benchmarks/cifar10.py`, whose judge is used.
        results: the JSON file to write.
        curves, samples, accuracy: pictures to write; the last is the one that `guidon train-classifier` draws.
        base_steps: optimizer steps of the unconditional model.
        classes_steps: of the model of classes.
        classifier_budget, classifier_threads: wall-clock time of the classifier, and cores.
        gammas: weights of the classifier's gradient.
        weights: weights of classifier-free guidance.
        steps: of the solver, dpmpp-2m on the recipe's grid.
        threads: for sampling.
        n: samples of each weight.
        seed: of the first.
    """

    data: Path = ROOT.parent / "shared/data/cifar10"
    work: Path = ROOT / ".bench/cifar10-classifier"
    judged: Path = JudgePlan.work
    results: Path = ROOT / "benchmarks/results/cifar10_classifier.json"
    curves: Path = ROOT / "docs/images/cifar10-classifier.png"
    samples: Path = ROOT / "docs/images/cifar10-classifier-samples.png"
    accuracy: Path = ROOT / "docs/images/classifier-accuracy.png"
    base_steps: int = 4790
    classes_steps: int = 5988
    classifier_budget: str = "8m"
    classifier_threads: int = 1
    gammas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
    weights: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
    steps: int = 20
    threads: int = 1
    n: int = 1000
    seed: int = 0


def unconditional(plan: Plan) -> dict[str, Any]:
    """Train the model that is led."""
    settings = ("model.architecture.vector=null", "train.budget=null", f"train.steps={plan.base_steps}")
    return _trained(plan, "train", "cifar10-cpu", "unconditional", *settings)


def conditional(plan: Plan) -> dict[str, Any]:
    """Train the model of classes."""
    return _trained(
        plan, "train", "cifar10-cpu", "conditional", "train.budget=null", f"train.steps={plan.classes_steps}"
    )


def classifier(plan: Plan) -> dict[str, Any]:
    """Train the classifier that leads, and say how often it is right at each noise level."""
    settings = (f"train.budget={plan.classifier_budget}", f"train.threads={plan.classifier_threads}")
    account = _trained(plan, "train-classifier", "cifar10-classifier-cpu", "classifier", *settings)
    return account | {"measured": json.loads((plan.work / "classifier" / "accuracy.json").read_text())}


def _trained(plan: Plan, command: str, recipe: str, name: str, *settings: str) -> dict[str, Any]:
    """Run a training command as a user would, in a process of its own, and return its account; a finished run is kept."""
    out = plan.work / name
    if not (out / "train.json").exists():
        line = [sys.executable, "-m", "guidon", command, recipe, "-o", str(out)]
        line += ["--set", f"data.source={plan.data}", *settings]
        subprocess.run([*line, *(["--resume"] if out.exists() else [])], check=True, cwd=ROOT)
    account: dict[str, Any] = json.loads((out / "train.json").read_text())
    return account


def led(plan: Plan) -> dict[str, Any]:
    """Measure the unconditional model at every weight of the classifier, plain and calibrated."""
    model = guidon.load(plan.work / "unconditional")
    judge = guidon.load_classifier(plan.work / "classifier")
    curve = [_cell(plan, model, f"cfg(1) | threshold | classifier({g:g})", g, classifier=judge) for g in plan.gammas]
    middle = plan.gammas[len(plan.gammas) // 2]
    rule = f"cfg(1) | threshold | classifier({middle:g})"
    return {"curve": curve, "calibrated": _cell(plan, model, rule, middle, classifier=judge.calibrated())}


def free(plan: Plan) -> dict[str, Any]:
    """Measure the model of classes at every weight of classifier-free guidance."""
    model = guidon.load(plan.work / "conditional")
    return {"curve": [_cell(plan, model, f"cfg({w:g}) | threshold", w) for w in plan.weights]}


def _cell(plan: Plan, model: guidon.Model, rule: str, weight: float, **how: Any) -> dict[str, Any]:
    labels = torch.arange(plan.n) % CLASSES
    samples = model.sample(labels.tolist(), rule=rule, steps=plan.steps, seed=plan.seed, **how)
    seen = Judge.of(
        FeatureClassifier.load(plan.judged / "classifier").eval(), _images(JudgePlan(work=plan.judged))["train"]
    )
    cost = {"nfe": samples.nfe, "seconds": samples.seconds}
    cell = {"weight": weight, "rule": samples.record["rule"], **cost, **seen.score(samples.x, labels)}
    print(cell, flush=True)
    return cell


def cost(plan: Plan) -> dict[str, Any]:
    """Time both ways in turns, 128 images each, on as many threads as the machine has cores."""
    model, judge = guidon.load(plan.work / "unconditional"), guidon.load_classifier(plan.work / "classifier")
    classes, labels = guidon.load(plan.work / "conditional"), (torch.arange(128) % CLASSES).tolist()
    torch.set_num_threads(os.cpu_count() or 1)
    took: dict[str, list[float]] = {"classifier(3)": [], "cfg(3)": []}
    for _ in range(5):
        led = model.sample(labels, rule="cfg(1) | threshold | classifier(3)", classifier=judge, steps=plan.steps)
        free = classes.sample(labels, rule="cfg(3) | threshold", steps=plan.steps)
        took["classifier(3)"].append(led.seconds)
        took["cfg(3)"].append(free.seconds)
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    ratio = medians["classifier(3)"] / medians["cfg(3)"]
    return {"images": 128, "threads": os.cpu_count(), "seconds": took, "medians": medians, "ratio": ratio}


def memory(plan: Plan) -> dict[str, Any]:
    """Count what autograd keeps in one guided step of 64 images, and what the networks' graphs would hold."""
    model, judge = guidon.load(plan.work / "unconditional"), guidon.load_classifier(plan.work / "classifier")
    labels = list(range(8)) * 8
    level = model.process.level_at(1.0)
    x = torch.randn(64, *model.shape)
    ids = Context(vector=torch.tensor(labels)[:, None].float())

    def guided(rows: int) -> None:
        model.sample(labels, rule="classifier(1)", classifier=judge, solver="euler", steps=1, max_batch=rows)

    with torch.enable_grad():
        told = {
            "guided_step": _kept(lambda: guided(64)),
            "guided_step_in_chunks_of_16": _kept(lambda: guided(16)),
            "classifier_alone": _kept(lambda: judge.log_prob(x.clone().requires_grad_(), level, ids)),
            "network_alone": _kept(lambda: model.denoiser(x.clone().requires_grad_(), level, Context())),
        }
    return {
        "images": 64,
        "peak_mebibytes_kept_by_autograd": {name: round(size / 2**20, 1) for name, size in told.items()},
    }


def _kept(run: Callable[[], Any]) -> int:
    """Return the most bytes that autograd kept at once while something ran."""
    now = peak = 0

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal now, peak
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            now += self.size
            peak = max(peak, now)

        def __del__(self) -> None:
            nonlocal now
            now -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        held = run()
    del held
    return peak


def pictures(plan: Plan) -> dict[str, Any]:
    """Draw the curves, and the same seeds at several weights of each."""
    model, judge = guidon.load(plan.work / "unconditional"), guidon.load_classifier(plan.work / "classifier")
    classes = guidon.load(plan.work / "conditional")
    rows = [
        (
            f"classifier {g:g}",
            model.sample(range(10), rule=f"cfg(1) | threshold | classifier({g:g})", classifier=judge, steps=plan.steps),
        )
        for g in (0, 1, 3, 8)
    ]
    rows += [
        (f"cfg {w:g}", classes.sample(range(10), rule=f"cfg({w:g}) | threshold", steps=plan.steps))
        for w in (0, 1, 3, 5)
    ]
    write_bytes(plan.samples, draw_samples([(name, samples.pil()) for name, samples in rows], judge.classes))
    write_bytes(plan.accuracy, (plan.work / "classifier" / "accuracy.png").read_bytes())
    measured = result(plan.work, "classifier")["measured"]
    write_bytes(
        plan.curves, draw_curves(result(plan.work, "led")["curve"], result(plan.work, "free")["curve"], measured)
    )
    return {"curves": plan.curves.name, "samples": plan.samples.name}


STAGES: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "unconditional": unconditional,
    "conditional": conditional,
    "classifier": classifier,
    "led": led,
    "free": free,
    "cost": cost,
    "memory": memory,
    "pictures": pictures,
}

app = App(help=__doc__, help_format="plaintext", version_flags=())


@app.default
def main(plan: Plan | None = None, *, only: tuple[str, ...] = ()) -> None:
    """Run every stage that is not finished, then write the results.

    Args:
        plan: what to compare and how.
        only: stages to run anew, all others left alone.
    """
    plan = plan or Plan()
    torch.set_num_threads(plan.threads)
    if not run_stages(STAGES, plan, plan.work, only):
        return
    account = {"command": "python benchmarks/cifar10_classifier.py", "machine": machine(), "torch": torch.__version__}
    account |= {"plan": {name: value for name, value in asdict(plan).items() if not isinstance(value, Path)}}
    account |= {stage: result(plan.work, stage) for stage in STAGES if stage != "pictures"}
    write_text(plan.results, json.dumps(account, indent=2) + "\n")
    print(f"written: {plan.results}")


if __name__ == "__main__":
    app()
