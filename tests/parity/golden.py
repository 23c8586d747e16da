"""Reads the golden numbers: folder, cases, tolerances."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(os.environ.get("GUIDON_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))


@functools.cache
def settings(name: str) -> dict[str, Any]:
    """Return the JSON of a set such as "schedules" or "sampling/a_kdiffusion"; empty where there is none."""
    path = GOLDEN / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


@functools.cache
def tensors(name: str) -> dict[str, Tensor]:
    """Return the tensors of a set."""
    return load_file(GOLDEN / f"{name}.safetensors")


@dataclass(frozen=True)
class Case:
    """One case of a set of sampling fixtures."""

    set: str
    name: str

    @property
    def params(self) -> dict[str, Any]:
        return settings(self.set)["cases"][self.name]["params"]

    def has(self, key: str) -> bool:
        return f"{self.name}/{key}" in tensors(self.set)

    def __getitem__(self, key: str) -> Tensor:
        return tensors(self.set)[f"{self.name}/{key}"]


def cases(name: str, **wanted: str) -> list[Any]:
    """Return pytest parameters, one for each case of a sampling set whose params have the values ``wanted``."""
    found = settings(name).get("cases", {})
    return [
        pytest.param(Case(name, case), id=case)
        for case, entry in found.items()
        if all(entry["params"].get(key) == value for key, value in wanted.items())
    ]


def rows(name: str, key: str = "cases") -> list[Any]:
    """Return pytest parameters, one for each row of a list in a set's JSON."""
    found = settings(name).get(key, [])
    return [pytest.param(row, id=str(row.get("key", i))) for i, row in enumerate(found)]


def tolerance(name: str, key: str) -> float:
    """Return the absolute tolerance that the fixtures suggest for an output."""
    return float(settings("tolerances")["atol"][name][key])
