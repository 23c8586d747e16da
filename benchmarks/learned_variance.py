"""What learning the variance of a step brings: bits per dimension of the digits, over the length of the chain.

python benchmarks/learned_variance.py        a few minutes on one core

The same network on the same table (cosine, 1000 steps), trained for the same number of steps by the squared error alone, by the hybrid
loss, and by the bound with importance-sampled times; measured on the images that it was trained on, for there are no more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from cifar10 import ROOT
from cyclopts import App
from stages import machine

import guidon
from guidon.checkpoints.atomic import write_text
from guidon.measure.likelihood import bits_per_dim
from guidon.noise.grids import Respaced
from guidon.training.data import DataConfig, open_data

LOSSES = {
    "squared error, variance small": ["train.objective.loss=mse"],
    "squared error, variance large": [],
    "hybrid, variance learned": ["train.objective.loss=rescaled-mse", "model.learned_variance=true"],
    "bound, variance learned": [
        "train.objective.loss=rescaled-kl",
        "model.learned_variance=true",
        "train.objective.times=importance",
    ],
}
CHAINS = (25, 50, 100, 250, 1000)

app = App(help=__doc__, help_format="plaintext", version_flags=())


@app.default
def main(
    steps: int = 1500,
    n: int = 256,
    work: Path = ROOT / ".bench/learned-variance",
    results: Path = ROOT / "benchmarks/results/learned_variance.json",
) -> None:
    """Train and measure.

    Args:
        steps: optimizer steps of each training.
        n: images measured.
        work: where the runs go; a finished one is kept.
        results: the JSON file to write.
    """
    torch.set_num_threads(1)
    batch = next(open_data(DataConfig(source="digits"), seed=0).batches(n))
    images, rows = batch.images, []
    for name, settings in LOSSES.items():
        run = work / ("squared" if name.startswith("squared") else name.partition(",")[0])
        if not (run / "train.json").exists():
            common = ["model.process=vp-table('cosine')", "model.output=eps", "model.architecture.vector=null"]
            common += [f"train.steps={steps}", "train.sample_every=null"]
            line = [sys.executable, "-m", "guidon", "train", "digits", "-o", str(run), "--set", *common, *settings]
            subprocess.run(line, check=True, cwd=ROOT)
        model, bits = guidon.load(run), {}
        for length in CHAINS:
            levels = Respaced(str(length)).levels(model.process, length)
            variance: Any = None if "learned" in name else name.rpartition(" ")[2]
            found = bits_per_dim(model, images, None, levels, variance=variance, seed=0)
            bits[length] = {"mean": found.mean, "standard_error": found.standard_error}
        rows.append({"trained_by": name, "bits_per_dim": bits})
        print(name, {length: round(value["mean"], 3) for length, value in bits.items()}, flush=True)
    account = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "torch": torch.__version__}
    account |= {"steps": steps, "images": n, "threads": 1, "chains": list(CHAINS), "rows": rows}
    write_text(results, json.dumps(account, indent=2) + "\n")


if __name__ == "__main__":
    app()
