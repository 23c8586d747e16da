"""``guidon tune``: the rule, its weight and the solver that are best by some figure."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from guidon.errors import BadValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guidon.study.goals import Limit
    from guidon.study.plan import SweepPlan
    from guidon.study.store import Cell
    from guidon.study.tune import Tuned

EXAMPLES = """Examples:

  guidon tune runs/digits --objective fid --reference digits
  guidon tune runs/a --objective fid --subject-to "nfe<=30" -r data/ --save
  guidon tune runs/a --objective precision recall -r data/    the Pareto front
  guidon tune runs/a --objective fid -r data/ --space mine.yaml --trials 200
  guidon tune runs/a --objective fid -r data/ --subject-to "recall>=0.5" --grid

Besides metrics (guidon list metrics): nfe, seconds, peak_memory."""

TOP = 10  # cells that are printed


def tune(
    model: str,
    *,
    objective: Annotated[list[str], Parameter(consume_multiple=True, negative=())],
    subject_to: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    reference: Annotated[str | None, Parameter(name=["--reference", "-r"])] = None,
    split: str = "train",
    features: str = "auto",
    space: Path | None = None,
    sets: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative=())] = None,
    n: Annotated[int | None, Parameter(name=["--n", "-n"], validator=Number(gte=2))] = None,
    trials: Annotated[int, Parameter(validator=Number(gte=1))] = 50,
    grid: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    device: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    save: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Find the settings that are best by a figure, within limits.

    Tries rules, weights and solvers, each trial led by those before it; where
    network evaluations are limited, a trial takes as many steps as they
    allow. Every trial is kept as a cell of a sweep: the same command goes on
    where it stopped, and with more --trials searches on. Writes report.html,
    table.csv, table.json and trials.jsonl, a line for each trial.

    Args:
        model: a run's folder, a model's folder, or a hub id.
        objective: metric or cost to be as good as it can be; of several the Pareto front is found.
        subject_to: limits such as "nfe<=30" or "recall>=0.5".
        reference: real images to compare with: digits, a folder, Parquet files, a hub id; brought to the model's size.
        split: which part of the reference, where it has parts.
        features: network that metrics see with: auto (a classifier trained on the reference), inception, dinov2, ...
        space: a YAML file of settings and axes, as a plan of guidon sweep has them; left out: rules that need nothing but a null.
        sets: changes to the space, each key=value, for instance axes.solver=[euler].
        n: images of each trial; left out: 1000, or as the space says.
        trials: how many.
        grid: try every value of every axis instead.
        seed: of the search.
        device: cpu, cuda, cuda:1; left out: the first GPU where there is one.
        out: folder of the cells; left out: runs/tune-NAME-OF-THE-MODEL.
        save: make the best settings those that the model is sampled with by default.
    """
    if save and len(objective) > 1:
        raise BadValue(
            "of several objectives a front is found, not one winner; give one --objective, or leave --save out"
        )
    from guidon.app.progress import loading

    with loading("networks"):
        from guidon.app.models import device_of
        from guidon.app.sweep_bars import Bars
        from guidon.app.sweep_table import print_cells, print_front
        from guidon.study.goals import read_limit, read_objective
        from guidon.study.plan import AUTO
        from guidon.study.report import command, write_report
        from guidon.study.table import write_tables
        from guidon.study.tune import LOG, save_defaults
        from guidon.study.tune import tune as do

        network = "classifier" if features == AUTO else features.partition("(")[0].strip()
        objectives = [read_objective(text, network) for text in objective]
        limits = [read_limit(text, network) for text in subject_to or ()]
        keys = [*(objective.key for objective in objectives), *(limit.key for limit in limits)]
        plan = space_of(model, space, sets or (), limits, keys, reference, split, features, n)
        where = str(device_of(device))
    folder = out or Path("runs") / f"tune-{Path(model).name}"
    with Bars() as bars:
        try:
            found = do(
                plan,
                objectives,
                limits,
                folder,
                trials=None if grid else trials,
                seed=seed,
                device=where,
                on_prepare=bars.prepare,
                on_try=bars.tried,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on where it stopped") from None
    print_cells(_foremost(found))
    print_front(found)
    paths = [write_report(folder), *write_tables(folder, found.cells), folder / LOG]
    print(f"wrote {', '.join(map(str, paths))}")
    if not save:
        print(f"sample with it: {command(found.best[0])}")
        return
    path = save_defaults(model, found.best[0])
    print(f"saved: {model} is sampled so by default now ({path}); guidon info {model}")


def space_of(
    model: str,
    space: Path | None,
    sets: Sequence[str],
    limits: Sequence[Limit],
    keys: Sequence[str],
    reference: str | None,
    split: str,
    features: str,
    n: int | None,
) -> SweepPlan:
    """Return the plan whose axes are searched; raises `BadRecipe`."""
    from guidon.study.axes import PLACEHOLDER
    from guidon.study.columns import COSTS
    from guidon.study.plan import SweepPlan
    from guidon.study.setting import SETTINGS
    from guidon.study.tune import default_space
    from guidon.training.run_recipe import apply_change, read_yaml

    if space is None:
        axes, content = default_space(limits)
        content = {**content, "axes": copy.deepcopy(axes)}
    else:
        content = read_yaml(space, SweepPlan, "space")
    asked: dict[str, Any] = {
        "model": model,
        "metrics": list(dict.fromkeys([*content.get("metrics", ()), *(key for key in keys if key not in COSTS)])),
    }
    if reference is not None:
        asked["reference"] = {"source": reference, "split": split}
    asked |= {} if n is None else {"n": n}
    asked |= {} if space is not None and features == "auto" else {"features": features}
    content = {**content, **asked}
    for change in sets:
        apply_change(content, change)
    if space is None:  # of the default axes those that a change has left a part
        part = SETTINGS + tuple(PLACEHOLDER.findall(str(content)))
        content["axes"] = {name: axis for name, axis in content["axes"].items() if name in part}
    plan = SweepPlan.read(content, str(space or "space"))
    if not plan.axes:
        raise BadValue(f"{space} has no axes, so there is nothing to search; give some under axes:")
    return plan


def _foremost(found: Tuned) -> list[Cell]:
    """Return the best cells, and after them those within the limits that come next by the first objective."""
    from guidon.study.goals import excess

    rest = [cell for cell in found.cells if cell not in found.best and excess(cell, found.limits) == 0]
    rest.sort(key=found.objectives[0].loss)
    return [*found.best, *rest][: max(TOP, len(found.best))]
