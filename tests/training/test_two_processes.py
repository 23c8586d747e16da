"""Two processes do together what one does alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from training.tiny import tiny_recipe

import guidon
from guidon.training.loop import train


def test_two_processes_end_as_one_does(tmp_path: Path) -> None:
    recipe = tiny_recipe({"dropout": 0.0}, steps=4)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    alone = train(recipe, tmp_path / "one", progress=False).state_dict()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "guidon",
    ]
    command += ["train", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the model is in") == 1
    accounts = [json.loads((tmp_path / name / "train.json").read_text()) for name in ("one", "two")]
    assert accounts[0]["images"] == accounts[1]["images"] == 64
    assert accounts[1]["machine"].endswith("2 processes")
    assert abs(accounts[0]["loss"] - accounts[1]["loss"]) < 1e-5
    together = guidon.load(tmp_path / "two" / "model").state_dict()
    # Adam's first steps have the length of the learning rate however small a gradient is, so rounding moves single weights
    change = torch.cat([(together[name] - value).abs().flatten() for name, value in alone.items()])
    assert change.mean() < 1e-5
