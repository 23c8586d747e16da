"""What the engine costs a step: milliseconds, for a network that returns at once.

    python benchmarks/engine_overhead.py

One trajectory of 16 images (3 x 32 x 32) under classifier-free guidance, with one thread and with two. The network
returns tensors that were made before, so all that is measured is queries, batching, guidance and solver. Writes
results/engine_overhead.json.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from guidon.conditioning import Context
from guidon.guidance import CFG
from guidon.noise import Cosine, Level, Prediction
from guidon.noise.grids import LogSNR
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.solvers import DPMpp2M, Euler, Solver

IMAGES, SHAPE, STEPS, RUNS, TARGET = 16, (3, 32, 32), 50, 15, 0.3


def milliseconds_a_step(solver: Solver) -> list[float]:
    """Return the time of a step, in each of several runs."""
    noise = PerImageNoise(range(IMAGES), SHAPE)
    x, levels = noise(), LogSNR().levels(Cosine(), STEPS)
    answer = torch.randn(2 * IMAGES, *SHAPE), torch.randn(2 * IMAGES, *SHAPE)

    def network(x: Tensor, level: Level, context: Context) -> Prediction:
        return Prediction(x, level, *answer)

    contexts = {name: Context(vector=torch.zeros(IMAGES, 64)) for name in ("given", "null")}
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        Engine({"main": network}).run([Trajectory(x, levels, solver, CFG(3.0), contexts, noise)])
        times.append((time.perf_counter() - start) * 1000 / STEPS)
    return times[3:]  # the first runs warm up


def main() -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for solver in (Euler(), DPMpp2M()):
            times = milliseconds_a_step(solver)
            row = {
                "solver": type(solver).__name__,
                "threads": threads,
                "ms_per_step": round(statistics.median(times), 4),
                "fastest": round(min(times), 4),
                "slowest": round(max(times), 4),
            }
            results.append(row)
            print(f"{row['solver']:8s} {threads} thread(s): {row['ms_per_step']:.3f} ms a step (target {TARGET})")
    record = {
        "what": "engine overhead a step, median over runs; the network returns at once",
        "settings": {"images": IMAGES, "shape": SHAPE, "rule": "cfg(3)", "steps": STEPS, "runs": RUNS - 3},
        "target_ms": TARGET,
        "results": results,
        "machine": {"processor": processor(), "system": platform.system(), "python": platform.python_version()},
        "versions": {"torch": torch.__version__},
        "command": "python benchmarks/engine_overhead.py",
    }
    path = Path(__file__).parent / "results" / "engine_overhead.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(0 if all(row["ms_per_step"] < TARGET for row in results) else 1)


def processor() -> str:
    """Return the name of the processor, where the system tells."""
    told = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in told.read_text().splitlines() if line.startswith("model name")]
        if told.exists()
        else []
    )
    return f"{names[0]} x {len(names)}" if names else platform.processor()


if __name__ == "__main__":
    main()
