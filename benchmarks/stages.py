"""A long benchmark as stages: each leaves its result in a folder, and what is finished is not repeated."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guidon.checkpoints.atomic import write_text


def run_stages(
    stages: Mapping[str, Callable[[Any], dict[str, Any]]], plan: Any, work: Path, only: Collection[str] = ()
) -> bool:
    """Run every stage that is not finished, in order, and say whether all are finished now.

    Args:
        stages: name and function; a function takes the plan and returns what can be written as JSON.
        plan: a dataclass; kept beside each result.
        work: where ``STAGE.json`` and whatever else the stages leave goes.
        only: stages to run anew, finished or not; all others are left alone. Empty: whatever is not finished.
    """
    if unknown := set(only) - set(stages):
        sys.exit(f"there is no stage {', '.join(sorted(unknown))}; there are: {', '.join(stages)}")
    work.mkdir(parents=True, exist_ok=True)
    for name, stage in stages.items():
        kept = work / f"{name}.json"
        if kept.exists() and name not in only:
            before = json.loads(kept.read_text())["plan"]
            if before != json.loads(json.dumps(asdict(plan), default=str)):
                sys.exit(
                    f"{kept} was made with other settings; choose another work folder, or name all stages after --only"
                )
        if (name not in only) if only else kept.exists():
            print(f"{name}: {'left alone' if only else 'finished earlier'}", flush=True)
            continue
        print(f"{name}: begins at {time.strftime('%H:%M:%S')}", flush=True)
        began, load = time.perf_counter(), os.getloadavg()[0]
        made = stage(plan)
        spent = time.perf_counter() - began
        record = {"result": made, "seconds": spent, "load_before": load, "plan": asdict(plan)}
        write_text(kept, json.dumps(record, indent=2, default=str))
        print(f"{name}: {spent:.0f} s", flush=True)
    return all((work / f"{name}.json").exists() for name in stages)


def result(work: Path, stage: str) -> dict[str, Any]:
    """Return what a finished stage left."""
    kept: dict[str, Any] = json.loads((work / f"{stage}.json").read_text())["result"]
    return kept


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cpu = next(named, platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}
