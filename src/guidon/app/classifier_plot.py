"""A noisy classifier as a picture: how often it is right at each noise level, how sure it is, and its temperatures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from guidon.checkpoints.atomic import write_bytes
from guidon.lab.drawing import TRUTH, color, panels, plain
from guidon.training.calibrate import COLDEST, HOTTEST, Report


def draw_report(report: Report, folder: Path) -> Path:
    """Draw a report as accuracy.png into a run's folder, and return where it is; raises `SaveFailed`."""
    stream = io.BytesIO()
    report_figure(report).savefig(stream, dpi=110)
    write_bytes(folder / "accuracy.png", stream.getvalue())
    return folder / "accuracy.png"


def report_figure(report: Report) -> Figure:
    """Return three panels over the noise level: accuracy, calibration error, and the fitted temperatures."""
    figure, axes = panels(1, 3, width=3.3, height=2.9, sharex=True)
    right, sure, heat = axes[0]
    levels = [row.noise_level for row in report.rows]

    def line(on: Any, values: list[float], label: str, index: int) -> None:
        on.plot(levels, values, color=color(index), label=label, marker="o", markersize=2.5, linewidth=1.2)

    line(right, [100 * row.accuracy for row in report.rows], "classifier", 0)
    right.axhline(100 * report.chance, color=TRUTH, linewidth=0.9, linestyle=":", label="chance")
    right.set_ylim(0, 100)
    line(sure, [100 * row.calibration_error for row in report.rows], "as trained", 1)
    line(sure, [100 * row.tempered_calibration_error for row in report.rows], "with temperatures", 2)
    sure.set_ylim(bottom=0)
    line(heat, [row.temperature for row in report.rows], "fitted", 4)
    heat.axhline(1, color=TRUTH, linewidth=0.9, linestyle=":", label="as trained")
    heat.set_yscale("log")
    heat.set_ylim(0.8 * COLDEST, 1.25 * HOTTEST)
    heat.set_yticks([0.05, 0.2, 1, 5, 20], ["0.05", "0.2", "1", "5", "20"])
    heat.minorticks_off()
    right.set_xscale("log")
    name = "noise level (sigma / alpha)"
    plain(right, f"right, % of {report.images:,} images held out", name, legend=True)
    plain(sure, "confidence and accuracy apart, %", name, legend=True)
    plain(heat, "temperature (above 1: too sure)", name, legend=True)
    return figure
