"""``guidon finetune``: a model goes on learning, from other images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from guidon.errors import BadRecipe, BadValue

EXAMPLES = """Examples:

  guidon finetune runs/shapes --data photos          ten minutes on a folder
  guidon finetune runs/shapes --data photos --budget 1h -o runs/mine
  guidon finetune runs/shapes --data photos --set adapt.lora.rank=8
  guidon finetune runs/shapes --data photos --set adapt.freeze=text
  guidon finetune runs/shapes --data cats.parquet \\
      --set data.captions="['{caption}', '{tags}']" data.zoom=0.8
  guidon finetune runs/shapes --data photos --resume  go on after a stop
  guidon finetune --recipe runs/mine/recipe.yaml -o runs/again

Captions stand in text files beside the images (a.png, a.txt, a line each), in
metadata.csv, in a column of Parquet files, or in WebDataset shards.

Settings: data.hold_out, data.validation, data.zoom, data.flip, adapt.freeze,
adapt.lora.rank, adapt.lora.alpha, train.lr, train.objective.dropout,
train.checkpointing, train.sample_prompts, train.validate_every, and all that
stands in recipe.yaml of a run's folder."""

BUDGET = "10m"


def finetune(
    model: str | None = None,
    *,
    data: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    budget: str | None = None,
    steps: int | None = None,
    recipe: Path | None = None,
    sets: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative=())] = None,
    resume: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Let a model go on learning, from other images.

    The run's folder gets checkpoints, sample grids of the same prompts and noise
    all along (samples/), the loss on images that are kept from training
    (validation.json, validation.png), and in the end the model (model/). With
    LoRA what was learned is also there by itself (lora.safetensors).

    Args:
        model: what to start from, a folder or a hub id.
        data: images, any source of `guidon train`.
        out: the run's folder; left out: runs/MODEL-on-DATA.
        budget: stop after so much time, such as 90s, 20m, 1h30m; 10m by default.
        steps: stop after so many steps.
        recipe: a YAML file with any of the settings.
        sets: settings, each section.key=value; see below.
        resume: go on with the run that is in the folder.
    """
    from guidon.app.progress import loading
    from guidon.app.training_run import run

    with loading("torch"):
        import guidon.training.loop  # noqa: F401
        from guidon.training.finetune_recipe import FinetuneRecipe, read_report
        from guidon.training.run_recipe import read_yaml

    content: dict[str, Any] = {} if recipe is None else read_yaml(recipe, FinetuneRecipe)
    given = {"base": model, "data.source": data, "train.steps": steps, "train.budget": budget}
    content = {"kind": "finetune", "data": {}, "train": {}, **content}
    if empty := [section for section in ("data", "train") if not isinstance(content[section], dict)]:
        raise BadRecipe(
            f"{recipe}: {empty[0]} is a section, not {content[empty[0]]!r}; write settings in it, or leave it out"
        )
    for name, value in given.items():
        if value is not None:
            section, _, key = name.rpartition(".")
            (content.setdefault(section, {}) if section else content)[key] = value
    said = {text.partition("=")[0].strip() for text in sets or ()}
    if "base" not in {*content, *said} or not {"source"} & {*content.get("data", {})} | {"data.source"} & said:
        raise BadValue("say what to start from and what to learn from: guidon finetune MODEL --data FOLDER")
    train = content.setdefault("train", {})
    if not {"steps", "budget"} & {*train} | {"train.steps", "train.budget"} & said:
        train["budget"] = BUDGET
    wanted = FinetuneRecipe.changed(content, sets or (), "the settings" if recipe is None else str(recipe))
    folder = run(wanted, _folder(wanted.base, wanted.data.source) if out is None else out, None, resume)
    if folder is None:
        return
    report = read_report(folder)
    trained, changed = (f"{100 * report[name]:.3g} %" for name in ("trained_share", "changed_share"))
    if wanted.adapt.lora is None:
        print(f"trained {trained} of the model's weights")
    else:
        print(f"trained {trained} as many weights as the model has and merged them into {changed} of its own;")
        print(f"by themselves they are in {folder / 'lora.safetensors'}")
    print(f"the model is in {folder / 'model'}; now: guidon sample {folder}")


def _folder(model: str, data: str) -> Path:
    """Return where a run goes that is not told where."""

    def short(name: str) -> str:
        path = Path(name)
        own = path.parent.name if path.name == "model" and path.parent.name else path.stem
        return re.sub(r"[^\w.-]+", "", own) or "data"

    return Path("runs") / f"{short(model)}-on-{short(data)}"
