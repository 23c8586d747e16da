"""What guidance costs beside the networks: the arithmetic of every rule and stage a step, and what an interval saves.

    python benchmarks/rule_cost.py

Every registered rule, and cfg(3) before every stage, takes 16 images (3 x 32 x 32) through 20 steps; networks that return at once
stand in for real ones, and only the rule's own calls are timed. The measure is a step of plain cfg(3) on the network of
recipes/cifar10-cpu.yaml with random weights: one forward of 32 rows, and Euler. Every branch of a step has to be in one forward
of its network. Writes results/rule_cost.json, and fails where a rule costs more than its limit.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from cyclopts import App
from stages import machine
from torch import Tensor

from guidon.checkpoints.atomic import write_text
from guidon.conditioning.condition import Context
from guidon.guidance import CFG, Branch, Guided, Interval, Moment, Rule
from guidon.guidance.rule import Predictions, State
from guidon.model import Model
from guidon.noise import Level, Prediction
from guidon.perturbation import Perturbation
from guidon.registry import lookup, names, parse, to_text
from guidon.sampling import Engine, PerImageNoise, Trajectory
from guidon.solvers import Euler
from guidon.solvers.euler import renoise
from guidon.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
IMAGES, STEPS, THREADS, WARM_UP = 16, 20, 2, 3
SHAPE = (3, 32, 32)
LIMIT, LIMITS = 3.0, {"tcfg": 15.0, "fdg": 15.0}  # percent of a step

# text forms of what does not stand alone, or would do less than it can; a rule with a weight gets 3
EXAMPLES = {
    "cfgpp": "cfgpp(0.6)",
    "conjunction": "conjunction([3, 2])",
    "fdg": "fdg([4, 2])",
    "adaptive": "adaptive(1)",  # never satisfied, so that it looks at every step
}

app = App(help=__doc__, help_format="plaintext", version_flags=())


@app.default
def main(*, runs: int = 60, results: Path = ROOT / "benchmarks/results/rule_cost.json") -> None:
    """Measure, write and print.

    Args:
        runs: of every rule, at least 2; a tenth as many of whole samplings.
        results: the JSON file to write.
    """
    torch.set_num_threads(THREADS)
    load = os.getloadavg()[0]
    model = _model()
    step = _spread(_cfg_step(model, runs))
    rows = []
    for name, rule in _everything():
        rows.append(_row(name, rule, step["median"], runs))
        print(f"{rows[-1]['rule']}: {rows[-1]['ms']['median']} ms a step", file=sys.stderr, flush=True)
    interval = _interval(model, max(runs // 10, 1))
    account = {
        "what": "arithmetic of rules a step, in milliseconds and in percent of a step of cfg(3) on the network of the recipe",
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "command": " ".join(["python", "benchmarks/rule_cost.py", *sys.argv[1:]]),
        "machine": machine() | {"load_before": load},
        "versions": {"torch": torch.__version__},
        "settings": {"images": IMAGES, "shape": SHAPE, "steps": STEPS, "threads": THREADS, "runs": runs}
        | {"dtype": "float32", "recipe": "recipes/cifar10-cpu.yaml", "limit_percent": LIMIT, "other_limits": LIMITS},
        "cfg_step_ms": step,
        "rules": rows,
        "interval": interval,
    }
    write_text(results, json.dumps(account, indent=2) + "\n")
    print(_table(account))
    sys.exit(0 if all(row["kept"] for row in rows) else 1)


def _model() -> Model:
    """Return the recipe's network with random weights."""
    torch.manual_seed(0)
    recipe = load_recipe(ROOT / "recipes/cifar10-cpu.yaml")
    return Model(recipe.model_config_for(SHAPE, [f"class {i}" for i in range(10)])).eval()


def _everything() -> list[tuple[str, Rule]]:
    """Return (name, rule) for every registered rule, and for every stage behind cfg(3)."""
    weighted = {name for name in names("rule") if "weight" in lookup("rule", name).__dataclass_fields__}
    rules = [(name, EXAMPLES.get(name, f"{name}(3)" if name in weighted else name)) for name in names("rule")]
    stages = [(name, f"cfg(3) | {EXAMPLES.get(name, name)}") for name in names("stage")]
    return [(name, parse("rule", text)) for name, text in (*rules, *stages)]


def _levels() -> list[Level]:
    return list(parse("grid", "karras").levels(parse("process", "edm"), STEPS))


@dataclass
class Timed(Rule):
    """A rule, and the seconds that its calls took."""

    rule: Rule
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.only_with = self.rule.only_with  # type: ignore[misc]

    def init(self) -> State:
        return self.rule.init()

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return self._timed(self.rule.branches, at, state)

    def rows(self, branch: Branch, at: Moment, state: State) -> tuple[int, ...] | None:
        return self._timed(self.rule.rows, branch, at, state)

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        return self._timed(self.rule.combine, predictions, at, state)

    def _timed(self, call: Callable[..., Any], *arguments: object) -> Any:
        start = time.perf_counter()
        result = call(*arguments)
        self.seconds += time.perf_counter() - start
        return result


class Instant:
    """Stands in for a network: what it believes hangs on what it is told, and on how it is weakened."""

    has_inner = True

    def __init__(self, bias: float) -> None:
        self.bias = bias

    def check(self, perturbation: Perturbation) -> None:
        """Offer every perturbation."""

    def __call__(
        self, x: Tensor, level: Level, context: Context, perturbed: Sequence[tuple[Perturbation, slice]] = ()
    ) -> Prediction:
        assert context.vector is not None
        told = context.vector.mean(1).reshape(-1, 1, 1, 1) + self.bias
        x0 = torch.tanh(x / (1 + level.noise_level) + told)
        for _, rows in perturbed:
            x0[rows] *= 0.9
        return replace(Prediction.from_x0(x, x0, level), inner=Prediction.from_x0(x, 0.8 * x0, level))


class InstantClassifier:
    """Stands in for a classifier."""

    def log_prob(self, x: Tensor, level: Level, context: Context) -> Tensor:
        """Return (B,) that hangs on every pixel."""
        assert context.vector is not None
        return -((x - context.vector.mean(1).reshape(-1, 1, 1, 1)) ** 2).flatten(1).sum(1) / (1 + level.sigma**2)


def _trajectory(rule: Rule) -> tuple[Trajectory, dict[str, Any]]:
    """Return a run under a rule, and the networks that it asks; every condition that it names is told."""
    levels = _levels()
    moments = [Moment(levels[i], levels[i + 1], i, STEPS) for i in range(STEPS)]
    asked = {branch for at in moments for branch in rule.branches(at, rule.init())}
    conditions = sorted({branch.condition for branch in asked})
    contexts = {
        name: Context(vector=torch.linspace(0, 1, 8).repeat(IMAGES, 1) + i / 2) for i, name in enumerate(conditions)
    }
    gradients = {branch.network for branch in asked if branch.gradient}
    networks: dict[str, Any] = {
        name: InstantClassifier() if name in gradients else Instant(i / 10)
        for i, name in enumerate(sorted({branch.network for branch in asked}))
    }
    solver = lookup("solver", rule.only_with[0])() if rule.only_with else Euler()
    noise, rows = (PerImageNoise(range(first, first + IMAGES), SHAPE) for first in (0, 1000))
    x = noise() * levels[0].sigma
    return Trajectory(x, levels, solver, rule, contexts, noise, row_noise=rows.of_shape), networks


def _row(name: str, rule: Rule, step_ms: float, runs: int) -> dict[str, Any]:
    times = []
    for run in range(WARM_UP + runs):
        timed = Timed(rule)
        trajectory, networks = _trajectory(timed)
        engine = Engine(networks)
        engine.join(trajectory)
        timed.seconds = 0.0
        while not trajectory.done:
            wanted, before = len({query.branch.network for query in trajectory.queries}), engine.forwards
            engine.round()
            if engine.forwards - before != wanted:
                sys.exit(f"{to_text(rule)}: {engine.forwards - before} forwards of {wanted} networks in one evaluation")
        if run >= WARM_UP:
            times.append(timed.seconds / STEPS)
    spread = _spread(times)
    percent, limit = 100 * spread["median"] / step_ms, LIMITS.get(name, LIMIT)
    return {
        "rule": to_text(rule),
        "ms": spread,
        "percent": round(percent, 3),
        "limit": limit,
        "kept": percent <= limit,
        "evaluations_a_step": trajectory.nfe / STEPS,
        "forwards_a_step": engine.forwards / STEPS,
    }


@torch.no_grad()
def _cfg_step(model: Model, runs: int) -> list[float]:
    """Return the seconds of one joint forward of both branches and the Euler step, over and over."""
    here, there = _levels()[STEPS // 2 : STEPS // 2 + 2]
    contexts = _contexts(model)
    context = Context.stack([contexts["given"], contexts["null"]])
    x = PerImageNoise(range(2 * IMAGES), SHAPE)() * here.sigma
    times = []
    for _ in range(WARM_UP + runs):
        start = time.perf_counter()
        belief = model.denoiser(x, here, context)
        renoise(Guided.plain(belief.take(slice(0, IMAGES))), there)
        times.append(time.perf_counter() - start)
    return times[WARM_UP:]


def _contexts(model: Model) -> dict[str, Context]:
    told = model.condition([i % 10 for i in range(IMAGES)])
    return {"given": model.encode(told), "null": model.encode(told.null())}


@torch.no_grad()
def _interval(model: Model, runs: int) -> dict[str, Any]:
    """Return what guiding in the middle half of the steps saves of the time of cfg(3), both runs taking turns."""
    levels = _levels()
    # a little above the levels, for the high end is closed and the low one open
    low, high = (float(levels[i].noise_level) * 1.0001 for i in (STEPS * 3 // 4, STEPS // 4))
    rules = {"everywhere": CFG(3.0), "interval": CFG(3.0, when=Interval(round(low, 5), round(high, 5)))}
    seconds: dict[str, list[float]] = {name: [] for name in rules}
    counted: dict[str, dict[str, int]] = {}
    contexts = _contexts(model)
    for run in range(1 + runs):
        for name, rule in rules.items():
            noise, engine = PerImageNoise(range(IMAGES), SHAPE), Engine({"main": model.denoiser})
            start = time.perf_counter()
            engine.run([Trajectory(noise() * levels[0].sigma, levels, Euler(), rule, contexts, noise)])
            if run:
                seconds[name].append(time.perf_counter() - start)
            counted[name] = {"forwards": engine.forwards, "evaluations": engine.rows // IMAGES}
    assert counted["everywhere"] == {"forwards": STEPS, "evaluations": 2 * STEPS}
    assert counted["interval"] == {"forwards": STEPS, "evaluations": STEPS + STEPS // 2}
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "rules": {name: to_text(rule) for name, rule in rules.items()},
        "counted": counted,
        "seconds": {name: {"median": round(medians[name], 3), "all": seconds[name]} for name in rules},
        "saved_percent": round(100 * (1 - medians["interval"] / medians["everywhere"]), 1),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles in milliseconds."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": round(1e3 * median, 4), "quartile_1": round(1e3 * low, 4), "quartile_3": round(1e3 * high, 4)}


def _table(account: Mapping[str, Any]) -> str:
    lines = ["| rule | ms a step | % of a CFG step | limit % | kept | evaluations a step | forwards a step |"]
    lines += ["| --- | ---: | ---: | ---: | --- | ---: | ---: |"]
    for row in account["rules"]:
        kept = "yes" if row["kept"] else "NO"
        told = f"{row['ms']['median']:.3f} | {row['percent']:.2f} | {row['limit']:g} | {kept}"
        lines.append(
            f"| `{row['rule'].replace('|', chr(92) + '|')}` | {told} | {row['evaluations_a_step']:g} | {row['forwards_a_step']:g} |"
        )
    interval = account["interval"]
    seconds = {name: times["median"] for name, times in interval["seconds"].items()}
    return "\n".join(
        [
            *lines,
            "",
            f"A step of cfg(3): {account['cfg_step_ms']['median']:.1f} ms. {STEPS} steps of {interval['rules']['interval']} take "
            f"{seconds['interval']:.2f} s for {interval['counted']['interval']['evaluations']} evaluations, of cfg(3) "
            f"{seconds['everywhere']:.2f} s for {interval['counted']['everywhere']['evaluations']}: {interval['saved_percent']:g} % saved.",
        ]
    )


if __name__ == "__main__":
    app()
