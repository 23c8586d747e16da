"""Whether measuring needs more memory for more images: 5,000 against 50,000, each in a process of its own.

    python benchmarks/measure_streaming.py

Images of 32 x 32 are made from their number alone, seen by a small random classifier and by what reads pixels, and compared
with 5,000 others. Writes results/measure_streaming.json, with the peak resident memory of each process, which counts the pages
of rows on disk that it has read.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES, REFERENCE, SIDE, WIDTHS, RESAMPLES = (5_000, 50_000), 5_000, 32, (16, 32, 64), 20
METRICS = (
    "fid",
    "kid(20, 500)",
    "is",
    "precision",
    "recall",
    "density",
    "coverage",
    "memorised",
    "accuracy",
    "diversity",
    "saturation",
    "clipping",
)


def peak() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1024)


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Observe and measure so many images; returns seconds, peaks in MB and the figures."""
    import numpy as np
    import torch
    from torch import Tensor

    import guidon.measure.metrics  # noqa: F401
    from guidon.measure.features import ClassifierConfig, FeatureClassifier
    from guidon.measure.metric import Wanted, measured
    from guidon.measure.metrics import Pixels
    from guidon.measure.networks.classifier import ClassifierObserver
    from guidon.measure.observe import ImageSet, observe

    class Gradients(ImageSet):
        """Noise on a gradient, all of it from a seed and the number of the image; the label says which way it runs."""

        def __init__(self, n: int, seed: int) -> None:
            self.n, self.seed, self.fingerprint = n, seed, f"gradients {seed} {n}"
            self.labels = np.arange(n) % 10

        def __len__(self) -> int:
            return self.n

        def block(self, start: int, stop: int) -> Tensor:
            across = np.linspace(-1, 1, SIDE)
            found = []
            for i in range(start, stop):
                draw = np.random.default_rng((self.seed, i))
                angle = (i % 10 + draw.random()) * np.pi / 5
                slope = np.cos(angle) * across + np.sin(angle) * across[:, None]
                pixels = draw.normal(128, 30, (3, SIDE, SIDE)) + draw.normal(0, 60, (3, 1, 1)) * slope
                found.append(pixels.clip(0, 255).astype(np.uint8))
            return torch.from_numpy(np.stack(found))

    torch.set_num_threads(1)
    torch.manual_seed(0)
    classifier = FeatureClassifier(ClassifierConfig(10, 3, SIDE, WIDTHS, stride=2)).eval()
    observers = [ClassifierObserver(classifier), Pixels()]
    reference = observe(Gradients(REFERENCE, 0), observers, folder / "reference")
    began, before = time.perf_counter(), peak()
    rows = observe(Gradients(images, 1), observers, folder / "sample")
    observed, seen = time.perf_counter() - began, peak()
    wanted = [Wanted.parse(text, "classifier") for text in METRICS]
    began = time.perf_counter()
    figures = measured(wanted, rows, reference, resamples=RESAMPLES)
    return {
        "images": images,
        "peak_mb": {"reference": round(before), "observed": round(seen), "measured": round(peak())},
        "seconds": {"observe": round(observed, 1), "measure": round(time.perf_counter() - began, 1)},
        "rows_mb": round(sum(rows[aspect].nbytes for aspect in rows.aspects) / 2**20, 1),
        "figures": {key: round(figure.value, 6) for key, figure in figures.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, help="measure so many in this process and print what it took")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="images to compare")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "measure_streaming.json")
    given = parser.parse_args()
    if given.images:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(given.images, Path(folder))))
        return
    runs = []
    for size in given.sizes:  # nothing large is loaded here: a child's peak begins with that of its parent
        told = subprocess.run(
            [sys.executable, __file__, "--images", str(size)], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(told.stdout.splitlines()[-1]))
        print(f"{size} images: {runs[-1]['peak_mb']} MB, {runs[-1]['seconds']} s", flush=True)

    from stages import machine

    from guidon.checkpoints.atomic import write_text

    record = {
        "what": "peak resident memory of observing and measuring images, each number of them in its own process",
        "settings": {
            "reference": REFERENCE,
            "side": SIDE,
            "widths": WIDTHS,
            "block": 250,
            "resamples": RESAMPLES,
            "metrics": METRICS,
            "threads": 1,
        },
        "runs": runs,
        "grows_by_mb": runs[-1]["peak_mb"]["measured"] - runs[0]["peak_mb"]["measured"],
        "machine": machine(),
        "versions": {"torch": importlib.metadata.version("torch"), "python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
        "command": "python benchmarks/measure_streaming.py",
    }
    write_text(given.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
