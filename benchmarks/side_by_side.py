"""What a comparison of two sides leaves for the reader: the account as JSON, and sheets of samples."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from stages import machine
from torch import Tensor

from guidon.app.pictures import contact_sheet
from guidon.checkpoints.atomic import write_bytes


def account(
    found: Mapping[str, dict[str, Any]], plan: Mapping[str, Any], peer_version: str, peer_sampling: Mapping[str, Any]
) -> dict[str, Any]:
    """Return settings, versions, machine, numbers of both sides and their ratios; paths are relative to where it runs.

    Args:
        found: the result of each stage, by its name.
        plan: the settings of the run.
        peer_version: version of the peer's package.
        peer_sampling: precision and layout that its samples were drawn in.
    """
    ours, theirs = found["compare"]["ours"], found["compare"]["peer"]
    trained = {"ours": found["ours-train"], "peer": found["peer-train"]}
    return {
        "what": "guidon against denoising-diffusion-pytorch on CIFAR-10, same images, time, machine and judge",
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "command": " ".join(["python", *sys.argv]),
        "plan": {key: os.path.relpath(value) if isinstance(value, Path) else value for key, value in plan.items()},
        "machine": machine() | {"threads_at_most": plan["threads"]},
        "versions": {name: importlib.metadata.version(name) for name in ("guidon", "torch", "numpy")}
        | {"denoising-diffusion-pytorch": peer_version, "python": platform.python_version()},
        "judge": found["judge"],
        "ours": {"training": trained["ours"], "sampling": found["ours-sample"], "scores": ours},
        "peer": {"training": trained["peer"], "sampling": {**found["peer-sample"], **peer_sampling}, "scores": theirs},
        "ratios": {
            "training_images_per_second": trained["ours"]["images_per_second"] / trained["peer"]["images_per_second"],
            "training_images_per_second_with_the_peer_in_its_fastest_mode": trained["ours"]["images_per_second"]
            / max(rate["images_per_second"] for rate in trained["peer"]["tried"]),
            "accuracy": ours["accuracy"] / theirs["accuracy"],
            "frechet_peer_over_ours": theirs["frechet"] / ours["frechet"],
        },
        "choices": {"ours": found["ours-choose"]["cells"], "peer": found["peer-choose"]["cells"]},
    }


def write_sheet(path: Path, images: Tensor, classes: Sequence[str], title: str) -> None:
    """Write a sheet of ten images a class.

    Args:
        path: the PNG file.
        images: (N, 3, H, W) uint8; the labels run through the classes in turn.
        classes: names.
        title: the line on top.
    """
    first = images[: 10 * len(classes)].permute(0, 2, 3, 1).numpy()
    rows = [classes[i % len(classes)] for i in range(len(first))]
    file = io.BytesIO()
    contact_sheet([Image.fromarray(pixels) for pixels in first], rows, title).save(file, "PNG")
    write_bytes(path, file.getvalue())
