"""Finding the settings that are best by some figures within limits: every trial is a cell, kept as those of a sweep are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guidon.checkpoints.atomic import surviving, write_text
from guidon.checkpoints.native import CONFIG, local_folder, read_config
from guidon.errors import BadValue, NotSupported
from guidon.measure.observe import OnBlock
from guidon.model import Model
from guidon.model_config import ModelConfig, SampleDefaults
from guidon.study.bench import Bench, OnPrepare
from guidon.study.goals import Limit, Objective, excess, value_of, winners
from guidon.study.plan import SweepPlan
from guidon.study.search import LOG, OnTry, keys_of, log_line, searched
from guidon.study.shelf import fingerprint
from guidon.study.store import Cell, Store
from guidon.study.sweep import Failure, sweep, told

SPACE: dict[str, Any] = {
    "rule": {
        "cfg": "cfg({w})",
        "apg": "cfg({w}) | apg",
        "rescale": "cfg({w}) | rescale(0.7)",
        "interval": "cfg({w}, when=interval({low}, {high}))",
        "cfg-zero": "cfg({w}) | cfg-zero",
        "tcfg": "cfg({w}) | tcfg",
    },
    "w": {"from": 1, "to": 8, "spacing": "log"},
    "low": {"from": 0.1, "to": 0.5, "count": 2, "spacing": "log"},
    "high": {"from": 2, "to": 10, "count": 2, "spacing": "log"},
    "solver": ["dpmpp-2m", "heun"],
}
STEPS = {"from": 10, "to": 40, "count": 4, "spacing": "log"}
"""Where to look when nothing is said: rules that need nothing but a null; steps where evaluations are not limited."""


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Args:
        cells: of all trials, in their order.
        best: those that no other beats within the limits, the best of the first objective first.
        objectives, limits: what was asked for.
    """

    cells: tuple[Cell, ...]
    best: tuple[Cell, ...]
    objectives: tuple[Objective, ...]
    limits: tuple[Limit, ...]

    @property
    def keys(self) -> list[str]:
        """The figures and costs that all of it is about."""
        return keys_of(self.objectives, self.limits)


def default_space(limits: Sequence[Limit]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the axes to look along and the settings that stand; limited evaluations are all used, as that many steps."""
    allowed = [limit.bound for limit in limits if limit.key == "nfe" and limit.relation == "<="]
    return (SPACE, {"nfe": min(allowed)}) if allowed else ({**SPACE, "steps": STEPS}, {})


def tune(
    plan: SweepPlan,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    out: Path,
    *,
    trials: int | None = 50,
    seed: int = 0,
    device: str | None = None,
    cache: Path | None = None,
    on_prepare: OnPrepare | None = None,
    on_try: OnTry | None = None,
    on_block: OnBlock | None = None,
) -> Tuned:
    """Try settings of a plan's axes, each trial led by those before it, and return what was best.

    The sampler is that of Optuna (TPE). The same call goes on where an earlier one stopped: what was tried is tried again in the
    same order, and its cells are there.

    Args:
        plan: its axes are the space, in which ranges are searched everywhere, not at their values only.
        objectives: what is to be best; of several the Pareto front is found.
        limits: what must hold.
        out: folder of the cells and of ``trials.jsonl``, a line for each trial.
        trials: how many; None: every cell of the plan instead.
        seed: of the sampler.
        device, cache, on_prepare, on_block: as of `sweep`.
        on_try: called with (trials done, trials, the cell or None where it failed).

    Raises:
        BadValue: nothing that was tried keeps to the limits.
        NotSupported: Optuna is not installed.
    """
    bench = Bench(plan, device, cache, on_prepare)
    bench.shelf.shape(plan.points()[0].setting)  # what is no model is refused before a folder is made
    if trials is None:
        cells = _gridded(plan, out, objectives, limits, bench, on_try, on_block)
    else:
        store = Store(out)
        with store.alone():
            cells = searched(plan, bench, store, objectives, limits, trials, seed, on_try, on_block)
    best = winners(cells, objectives, limits)
    if not best:
        raise BadValue(_nothing(cells, objectives, limits))
    return Tuned(tuple(cells), tuple(best), tuple(objectives), tuple(limits))


def _gridded(
    plan: SweepPlan,
    out: Path,
    objectives: Sequence[Objective],
    limits: Sequence[Limit],
    bench: Bench,
    on_try: OnTry | None,
    on_block: OnBlock | None,
) -> list[Cell]:
    failures: list[Failure] = []

    def on_cell(cell: Cell, done: int, cells: int) -> None:
        if on_try is not None:
            on_try(done, cells, cell)

    cells = sweep(plan, out, bench=bench, on_cell=on_cell, on_block=on_block, on_fail=failures.append)
    if not cells:
        raise BadValue(told(failures))
    tried: list[tuple[dict[str, Any], Cell | None, str]] = []
    for cell in cells:
        said = "; ".join(f"{failure.figure}: {failure.why}" for failure in failures if failure.key == cell.key)
        tried.append((cell.axes, cell, said))
    tried += [(failure.point.axes, None, failure.why) for failure in failures if not failure.figure]
    lines = [log_line(i, axes, cell, objectives, limits, said) for i, (axes, cell, said) in enumerate(tried)]
    write_text(out / LOG, "".join(lines))
    return cells


def _nothing(cells: Sequence[Cell], objectives: Sequence[Objective], limits: Sequence[Limit]) -> str:
    """Say why nothing is best."""
    why = next(
        (f" ({cell.failed[key]})" for cell in cells for key in keys_of(objectives, limits) if key in cell.failed), ""
    )
    if all(excess(cell, limits) for cell in cells):
        near = min(cells, key=lambda cell: excess(cell, limits))
        has = ", ".join(f"{limit.key} {value_of(near, limit.key):.4g}" for limit in limits)
        return (
            f"nothing that was tried keeps to {', '.join(map(str, limits))}; the nearest has {has}{why}. Allow more, or try more:"
            " the same command with more --trials goes on"
        )
    return f"{objectives[0].key} is no number anywhere{why}; take another objective, or more images (--n)"


def save_defaults(model: str, cell: Cell) -> Path:
    """Make the settings of a cell those that a model is sampled with by default, and return the file that says so.

    Args:
        model: a model's or a run's folder.
        cell: of that model.

    Raises:
        NotSupported: the model is of the hub, the cell is of another, or its settings need more than a rule, a solver, a grid and steps.
        SaveFailed: the file cannot be written; it is as it was.
    """
    if not Path(model).expanduser().exists():
        raise NotSupported(f"{model} is no folder here, so nothing can be saved in it; save a copy of the model first")
    needed = [name for name in ("average", "weak", "negative") if cell.settings.get(name)]
    if needed:
        raise NotSupported(f"a model's defaults have no {needed[0]}; sample with it instead: guidon sample --help")
    if fingerprint(Model.from_pretrained(model)) != cell.settings["weights"]:
        raise NotSupported(
            f"the best settings are those of {cell.settings['model']}, not of {model}; nothing was saved. Tune that one alone"
        )
    path = surviving(local_folder(model)) / CONFIG
    config = ModelConfig(**read_config(path.parent))
    sample = SampleDefaults(**{name: cell.settings[name] for name in SampleDefaults.model_fields})
    content = config.model_copy(update={"sample": sample}).model_dump(mode="json")
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path
