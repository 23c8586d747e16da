"""Side by side on real CIFAR-10 images: guidon's CPU recipe and `denoising-diffusion-pytorch`, one after the other in one run.

    python benchmarks/cifar10.py                     about an hour and a half on two cores
    python benchmarks/cifar10.py --only compare      one stage anew, from what the others left

Both get the same images, the same wall-clock budget and the same judge: a classifier trained on the real training images, which
sees no sample while it learns. Each trains in the precision and layout that it comes with, on the count of CPU threads that is
fastest for it; how fast the peer would be in other modes is noted beside it.
Ours samples in float32, the peer in bfloat16 for time. Each side's guidance is chosen by the Fréchet
distance of a few samples; the samples that are reported are drawn anew.
Every stage leaves its result in the work folder, and a finished stage is not repeated.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peer_denoising_diffusion_pytorch as peer
import pyarrow.parquet as parquet
import torch
from cyclopts import App, Parameter
from PIL import Image
from safetensors.torch import load_file, save_file
from side_by_side import account, write_sheet
from stages import result, run_stages
from torch import Tensor

import guidon
from guidon.checkpoints.atomic import write_text
from guidon.measure.features import FeatureClassifier, train_classifier
from guidon.measure.judge import Judge
from guidon.training.run_recipe import seconds

ROOT = Path(__file__).resolve().parent.parent
SIZE, CLASSES = 32, 10
Drawn = tuple[Tensor, Tensor, dict[str, Any]]  # uint8 images (N, C, H, W), labels (N,), how they were drawn


@Parameter(name="*")
@dataclass(frozen=True)
class Plan:
    """What to compare and how.

    Args:
        data: folder with the Parquet files of CIFAR-10 (columns ``image`` and ``label``).
        work: folder for what the stages leave.
        results: the JSON file to write.
        sheet: contact sheet of our samples to write; the peer's lands beside the results.
        recipe: our recipe.
        budget: wall-clock training time of each side.
        threads: CPU threads at most.
        epochs: of the judge.
        n: samples of each side that are measured.
        n_choose: samples for each setting that is tried.
        weights: guidance weights that we try.
        rule: our rule, with {w} for the weight.
        scales: guidance weights that the peer tries.
        peer_steps: DDIM steps of the peer.
        seed: of everything.
    """

    data: Path = ROOT.parent / "shared/data/cifar10"
    work: Path = ROOT / ".bench/cifar10"
    results: Path = ROOT / "benchmarks/results/cifar10.json"
    sheet: Path = ROOT / "docs/images/cifar10.png"
    recipe: str = "cifar10-cpu"
    budget: str = "20m"
    threads: int = os.cpu_count() or 1
    epochs: int = 12
    n: int = 2000
    n_choose: int = 200
    weights: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0)
    rule: str = "cfg({w})"
    scales: tuple[float, ...] = (1.0, 2.0, 3.0)
    peer_steps: int = 20
    seed: int = 0


def prepare(plan: Plan) -> dict[str, Any]:
    """Decode the images once: uint8, one file."""
    tensors: dict[str, Tensor] = {}
    names: list[str] = []
    for split in ("train", "test"):
        table = parquet.read_table(sorted(plan.data.glob(f"{split}-*.parquet")))
        pixels = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in table["image"].to_pylist()]
        tensors[split] = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
        tensors[f"{split}_labels"] = torch.tensor(table["label"].to_pylist())
        names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    save_file(tensors, plan.work / "images.safetensors")
    return {"train": len(tensors["train"]), "test": len(tensors["test"]), "classes": names}


def judge(plan: Plan) -> dict[str, Any]:
    """Train the classifier that judges both; its view of real test images is the floor of every number."""
    data, began = _images(plan), time.perf_counter()
    train, labels = data["train"], data["train_labels"]
    classifier = train_classifier(train, labels, CLASSES, epochs=plan.epochs, seed=plan.seed, on_epoch=print)
    spent = time.perf_counter() - began
    classifier.save(plan.work / "classifier")
    floor = _judge(plan).score(data["test"][: plan.n], data["test_labels"][: plan.n])
    accuracy = classifier.accuracy(data["test"], data["test_labels"])
    return {"test_accuracy": accuracy, "seconds": spent, "real_test_images": floor}


def compare(plan: Plan) -> dict[str, Any]:
    """Measure both sets of samples with one judge."""
    seen, scores = _judge(plan), {}
    names = result(plan.work, "prepare")["classes"]
    for side, path in (("ours", plan.sheet), ("peer", plan.results.with_name(plan.results.stem + "-peer.png"))):
        kept = load_file(plan.work / f"samples-{side}.safetensors")
        scores[side] = seen.score(kept["images"], kept["labels"])
        write_sheet(path, kept["images"], names, f"{_name(side)} after {plan.budget}: {_how(plan, side)}")
    return scores


def ours_train(plan: Plan) -> dict[str, Any]:
    """Train our recipe as a user would, in a process of its own."""
    out = plan.work / "ours"
    if (out / "train.json").exists():  # a finished run is asked for anew
        shutil.rmtree(out)
    command = [sys.executable, "-m", "guidon", "train", plan.recipe, "--budget", plan.budget, "-o", str(out)]
    command += ["--set", f"data.source={plan.data}", f"train.seed={plan.seed}"]
    command += ["--resume"] if out.exists() else []
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(plan.threads)})
    account: dict[str, Any] = json.loads((out / "train.json").read_text())
    return account


def _ours(plan: Plan, n: int, seed: int, weight: float) -> Drawn:
    model = guidon.load(plan.work / "ours" / "model")
    labels = torch.arange(n) % CLASSES
    samples = model.sample(labels.tolist(), rule=plan.rule.format(w=weight), seed=seed)
    record = {key: samples.record[key] for key in ("rule", "solver", "grid", "steps", "nfe")}
    images = torch.from_numpy(samples.uint8()).permute(0, 3, 1, 2).contiguous()
    return images, labels, record | {"seconds": samples.seconds, "images_per_second": n / samples.seconds}


def ours_choose(plan: Plan) -> dict[str, Any]:
    """Try a few weights with few samples."""
    seen = _judge(plan)
    cells = []
    for weight in plan.weights:
        drawn = _ours(plan, plan.n_choose, plan.seed + 1_000_000, weight)
        cells.append(_cell(seen, drawn, {"weight": weight}))
    return {"cells": cells, "chosen": _best(cells)}


def ours_sample(plan: Plan) -> dict[str, Any]:
    """Draw the samples that are reported."""
    chosen = result(plan.work, "ours-choose")["chosen"]
    return _kept(plan, "ours", _ours(plan, plan.n, plan.seed, **chosen), chosen)


def peer_train(plan: Plan) -> dict[str, Any]:
    """Train the peer for the same time, in its own precision and layout; how fast it is in others is noted."""
    data, module, settings = _images(plan), peer.fetch(plan.work / "peer"), peer.Settings()
    tried = peer.rates(module, data["train"], data["train_labels"], SIZE, CLASSES, plan.threads)
    threads = next(rate["threads"] for rate in tried if rate["settings"] == asdict(settings))
    torch.set_num_threads(threads)
    torch.manual_seed(plan.seed)
    diffusion = peer.build(module, settings, CLASSES, SIZE)
    count = sum(p.numel() for p in diffusion.model.parameters())
    averaged, done = peer.train(
        diffusion, data["train"], data["train_labels"], settings, seconds=seconds(plan.budget), seed=plan.seed
    )
    save_file({k: v.contiguous() for k, v in averaged.state_dict().items()}, plan.work / "peer.safetensors")
    return {"parameters": count, "settings": asdict(settings), "threads": threads, **done, "tried": tried}


def _peer(plan: Plan, n: int, seed: int, **how: Any) -> Drawn:
    trained = result(plan.work, "peer-train")
    settings = peer.Settings(**trained["settings"] | peer.SAMPLING)
    torch.set_num_threads(plan.threads)
    diffusion = peer.build(peer.fetch(plan.work / "peer"), settings, CLASSES, SIZE)
    diffusion.load_state_dict(load_file(plan.work / "peer.safetensors"))
    labels = torch.arange(n) % CLASSES
    images, spent = peer.sample(diffusion.eval(), labels, settings, steps=plan.peer_steps, seed=seed, **how)
    nfe = plan.peer_steps * (1 if how["cond_scale"] == 1 else 2)
    return images, labels, {"steps": plan.peer_steps, "nfe": nfe, "seconds": spent, "images_per_second": n / spent}


def peer_choose(plan: Plan) -> dict[str, Any]:
    """Try its guidance weights, then its default noise (eta = 1), then no rescaling, keeping what helps each time."""
    seen = _judge(plan)
    cells: list[dict[str, Any]] = []

    def attempt(**how: Any) -> None:
        cells.append(_cell(seen, _peer(plan, plan.n_choose, plan.seed + 1_000_000, **how), how))

    for scale in plan.scales:
        attempt(cond_scale=scale, rescaled_phi=0.7, eta=0.0)
    attempt(**_best(cells) | {"eta": 1.0})
    if _best(cells)["cond_scale"] != 1:
        attempt(**_best(cells) | {"rescaled_phi": 0.0})
    return {"cells": cells, "chosen": _best(cells)}


def peer_sample(plan: Plan) -> dict[str, Any]:
    """Draw the peer's samples that are reported."""
    chosen = result(plan.work, "peer-choose")["chosen"]
    return _kept(plan, "peer", _peer(plan, plan.n, plan.seed, **chosen), chosen)


STAGES: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "prepare": prepare,
    "judge": judge,
    "ours-train": ours_train,
    "ours-choose": ours_choose,
    "ours-sample": ours_sample,
    "peer-train": peer_train,
    "peer-choose": peer_choose,
    "peer-sample": peer_sample,
    "compare": compare,
}


def _images(plan: Plan) -> dict[str, Tensor]:
    return load_file(plan.work / "images.safetensors")


def _judge(plan: Plan) -> Judge:
    return Judge.of(FeatureClassifier.load(plan.work / "classifier"), _images(plan)["train"], seed=plan.seed)


def _cell(seen: Judge, drawn: Drawn, chosen: dict[str, Any]) -> dict[str, Any]:
    images, labels, record = drawn
    cell = {"chosen": chosen, **record, **seen.score(images, labels)}
    print(cell, flush=True)
    return cell


def _kept(plan: Plan, side: str, drawn: Drawn, chosen: dict[str, Any]) -> dict[str, Any]:
    images, labels, record = drawn
    save_file({"images": images, "labels": labels}, plan.work / f"samples-{side}.safetensors")
    return {"chosen": chosen, **record}


def _name(side: str) -> str:
    return {"ours": "guidon", "peer": "denoising-diffusion-pytorch"}[side]


def _how(plan: Plan, side: str) -> str:
    drawn = result(plan.work, f"{side}-sample")
    chosen = ", ".join(f"{name} {value:g}" for name, value in drawn["chosen"].items())
    return f"{chosen}, {drawn['steps']} steps"


def _best(cells: list[dict[str, Any]]) -> dict[str, Any]:
    chosen: dict[str, Any] = min(cells, key=lambda cell: cell["frechet"])["chosen"]
    return chosen


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
    if run_stages(STAGES, plan, plan.work, only):
        report = account(
            {stage: result(plan.work, stage) for stage in STAGES}, asdict(plan), peer.VERSION, peer.SAMPLING
        )
        write_text(plan.results, json.dumps(report, indent=2) + "\n")
        for key in ("ours", "peer"):
            print(key, report[key]["scores"])
        print(report["ratios"])
        print(f"written: {plan.results}")


if __name__ == "__main__":
    app()
