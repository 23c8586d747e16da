"""What a weight over time does to the modes of a class, where the answer is known: a mixture on a line, exact beliefs.

python benchmarks/mode_loss.py

The class has two equal modes, N(1, 0.15^2) and N(2.5, 0.15^2); without it there are four, at -2.5, -1, 1 and 2.5. Half of the
samples should end near 1. Deterministic sampling (Heun) in many small steps, so that guidance alone makes the difference.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from cyclopts import App
from stages import machine
from torch import Tensor

from guidon.checkpoints.atomic import write_text
from guidon.conditioning.condition import Context
from guidon.noise import Cosine, Level, Prediction
from guidon.noise.grids import LogSNR
from guidon.registry import parse
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.solvers import Heun

app = App(help=__doc__, help_format="plaintext", version_flags=())
RULES = (
    "cfg(1)",
    "cfg(3)",
    "cfg(6)",
    "cfg(linear(1, 11))",
    "cfg(cosine(1, 11))",
    "cfg(linear(11, 1))",
    "cfg(cosine(15, 1))",
    "cfg(6, when=interval(0.1, 0.6))",
    "cfg(6, when=interval(0.3, 1.5))",
)
GIVEN, NULL, WIDTH = torch.tensor([1.0, 2.5]).double(), torch.tensor([-2.5, -1.0, 1.0, 2.5]).double(), 0.15


def believe(x: Tensor, level: Level, context: Context) -> Prediction:
    """Return the exact beliefs: of the class where the context says 1, of all modes where it says 0."""
    assert context.vector is not None
    alpha, sigma = float(level.alpha), float(level.sigma)
    total = alpha**2 * WIDTH**2 + sigma**2
    x0 = []
    for means in (NULL, GIVEN):
        away = x - alpha * means  # (B, modes)
        weights = (-(away**2) / (2 * total)).softmax(1)
        x0.append((weights * (means + alpha * WIDTH**2 * away / total)).sum(1, keepdim=True))
    return Prediction.from_x0(x, torch.where(context.vector == 1, x0[1], x0[0]), level)


@app.default
def main(*, n: int = 20000, steps: int = 400, results: Path = Path(__file__).parent / "results/mode_loss.json") -> None:
    """Measure.

    Args:
        n: samples of each rule.
        steps: of the solver.
        results: the JSON file to write.
    """
    rows = []
    for text in RULES:
        noise = PerImageNoise(range(n), (1,), dtype=torch.float64)
        process = Cosine()
        levels = LogSNR(sigma_min=0.005, sigma_max=80.0).levels(process, steps)
        contexts = {"given": Context(vector=torch.ones(n, 1)), "null": Context(vector=torch.zeros(n, 1))}
        run = Trajectory(noise() * process.start_scale(levels[0]), levels, Heun(), parse("rule", text), contexts, noise)
        x = Engine({"main": believe}).run([run])[0]
        near = float(((x - 1).abs() < (x - 2.5).abs()).double().mean())
        rows.append({"rule": text, "share_at_1": round(near, 4), "mean": float(x.mean()), "std": float(x.std())})
        print(rows[-1], flush=True)
    account = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "n": n,
        "steps": steps,
        "true_share": 0.5,
    }
    write_text(results, json.dumps(account | {"rules": rows}, indent=2) + "\n")


if __name__ == "__main__":
    app()
