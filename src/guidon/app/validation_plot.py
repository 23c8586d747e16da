"""The loss on images held out, over the steps of a run, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from guidon.checkpoints.atomic import write_bytes
from guidon.lab.drawing import TRUTH, color, panels, plain
from guidon.training.validate import Validation, read_validation


def draw_validation(folder: Path) -> Path:
    """Draw validation.json of a run as validation.png beside it, and return where it is; raises `SaveFailed`."""
    stream = io.BytesIO()
    validation_figure(read_validation(folder)).savefig(stream, dpi=110)
    write_bytes(folder / "validation.png", stream.getvalue())
    return folder / "validation.png"


def validation_figure(entries: Sequence[Validation]) -> Figure:
    """Return the loss over the steps, and a line where it began."""
    figure, axes = panels(1, 1, width=4.6, height=2.9)
    (panel,) = axes[0]
    steps, losses = [entry.step for entry in entries], [entry.loss for entry in entries]
    panel.plot(steps, losses, color=color(0), label="averaged weights", marker="o", markersize=2.5, linewidth=1.2)
    panel.axhline(losses[0], color=TRUTH, linewidth=0.9, linestyle=":", label="at the start")
    plain(panel, "loss on images held out", "step", legend=True)
    return figure
