"""A small sweep whose figures are known: rules against weights, with images kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guidon.measure.estimate import Figure
from guidon.measure.observe import ImageSet, observe
from guidon.study.store import Cell, Cost, Store

GiB = 2**30


class Plates(ImageSet):
    """Images of one colour each: the first two channels say which cell and which image of it."""

    def __init__(self, cell: int, n: int, side: int = 8, captions: Sequence[str] | None = None) -> None:
        self.cell, self.n, self.side = cell, n, side
        self.fingerprint = f"plates-{cell}"
        self.captions = None if captions is None else tuple(captions)

    def __len__(self) -> int:
        return self.n

    def block(self, start: int, stop: int) -> Tensor:
        colors = torch.tensor([[self.cell, 10 * i, 200] for i in range(start, stop)], dtype=torch.uint8)
        return colors[:, :, None, None].expand(-1, -1, self.side, self.side).contiguous()


def figure(value: float, half: float = 0.1, n: int = 100, network: str = "f00d") -> Figure:
    return Figure(value, value - half, value + half, n, 500, 200, 0.95, network)


def sweep(
    folder: Path,
    figures: Callable[[str, float], dict[str, Figure]],
    rules: Sequence[str] = ("plain", "apg"),
    weights: Sequence[float] = (1, 2, 4),
    *,
    images: int = 4,
    settings: dict[str, Any] | None = None,
    captions: Sequence[str] | None = None,
) -> list[Cell]:
    """Put a finished sweep into a folder, a cell for each rule and weight, and return its cells."""
    store = Store(folder)
    for r, rule in enumerate(rules):
        for i, w in enumerate(weights):
            key = f"{r}-{i}"
            told = {"model": "runs/tiny", "rule": f"cfg({w})", "steps": 10, "seed": 3, "n": 100, **(settings or {})}
            nfe = 10.0 if w == 1 else 20.0
            cost = Cost(nfe, nfe * 100 / 50, GiB, 100)
            place = r * len(weights) + i
            cell = Cell(key, {"rule": rule, "w": w}, told, figures(rule, w), cost, store.room(key))
            if images:
                observe(Plates(place, images, captions=captions), [], cell.folder / "seen", keep_images=images)
            store.put(cell, place)
    store.put_note("plan", {"features": "auto", "reference": {"source": "data/tiny", "split": "train"}})
    return store.cells()


def shares(array: np.ndarray) -> list[int]:
    """Return the distinct values of an array, in order."""
    return np.unique(array).tolist()
