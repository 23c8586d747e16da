"""What ten minutes of fine-tuning do: the model of shapes goes on learning from emoji, once with all its weights, once with LoRA.

python benchmarks/finetune_emoji.py        two times ten minutes on two cores, after benchmarks/shapes.py

Needs the emoji as Parquet files (--data says where). The loss is measured on images that are kept from training, with the same noise
before and after; the sheet shows the same prompts from the same noise.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cifar10 import ROOT
from cyclopts import App
from shapes_curves import draw_samples
from stages import machine, result, run_stages

import guidon
from guidon.checkpoints.atomic import write_bytes, write_text

app = App(help=__doc__, help_format="plaintext", version_flags=())

WAYS = {
    "all weights": ("train.optimizer=muon", "train.muon_lr=0.01", "train.lr=1e-3"),
    "LoRA": ("adapt.lora.rank=8", "train.lr=3e-3"),
}
PROMPTS = ("grinning face", "red heart", "pizza", "flag: Japan", "tree, green", "a red circle left of a blue square")


@dataclass(frozen=True)
class Plan:
    """What is done.

    Args:
        base: the model that goes on learning.
        data: the emoji.
        budget: of each way; "none" where ``sets`` says how many steps.
        sets: settings of both ways.
        work: where the runs go.
    """

    base: Path = ROOT / ".bench/shapes-run/run/model"
    data: Path = ROOT / "../shared/data/emoji"
    budget: str = "10m"
    sets: tuple[str, ...] = ()
    work: Path = ROOT / ".bench/finetune-emoji"


def tune(plan: Plan, way: str) -> dict[str, Any]:
    """Fine-tune in one way, or take the run that is there."""
    run = plan.work / way.replace(" ", "-")
    if not (run / "finetune.json").exists():
        common = (
            "train.batch_size=32",
            "train.precision=bf16",
            "train.average=half-life(5000)",
            "train.sample_every=null",
        )
        captions = "data.captions=['{caption}', '{caption}, {style}', '{tags}']"
        line = [sys.executable, "-m", "guidon", "finetune", str(plan.base), "--data", str(plan.data), "-o", str(run)]
        line += [] if plan.budget == "none" else ["--budget", plan.budget]
        subprocess.run([*line, "--set", captions, *common, *WAYS[way], *plan.sets], check=True, cwd=ROOT)
    account = json.loads((run / "finetune.json").read_text())
    trained = json.loads((run / "train.json").read_text())
    return (
        account
        | {"settings": WAYS[way], "training": trained}
        | {"validation": json.loads((run / "validation.json").read_text())}
    )


def picture(plan: Plan) -> dict[str, Any]:
    """Draw the same prompts from the same noise before and after."""
    folders = {"before": plan.base} | {way: plan.work / way.replace(" ", "-") for way in WAYS}
    rows = [
        (name, guidon.load(folder).sample(list(PROMPTS), rule=3.0, seed=0).pil()) for name, folder in folders.items()
    ]
    write_bytes(plan.work / "samples.png", draw_samples(rows, PROMPTS))
    return {}


@app.default
def main(
    plan: Plan = Plan(),
    *,
    only: tuple[str, ...] = (),
    results: Path = ROOT / "benchmarks/results/finetune_emoji.json",
    samples: Path = ROOT / "docs/images/finetune-emoji.png",
) -> None:
    """Fine-tune in both ways, write the report.

    Args:
        plan: what is done.
        only: stages to run anew.
        results: the JSON file to write.
        samples: the picture to write.
    """
    stages = {way.replace(" ", "-"): lambda plan, way=way: tune(plan, way) for way in WAYS} | {"picture": picture}
    if not run_stages(stages, plan, plan.work, only):
        return
    account = {"command": " ".join(["python", *sys.argv]), "machine": machine()}
    account |= {"plan": json.loads(json.dumps(asdict(plan), default=str).replace(str(ROOT), "."))}
    account |= {way: result(plan.work, way.replace(" ", "-")) for way in WAYS}
    write_text(results, json.dumps(account, indent=2).replace(str(ROOT), ".") + "\n")
    write_bytes(samples, (plan.work / "samples.png").read_bytes())


if __name__ == "__main__":
    app()
