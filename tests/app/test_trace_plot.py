"""A trace's picture: only panels that have something to show, and an axis on which it can be seen."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure

from guidon.app.trace_plot import trace_figure


def rows(guidance: list[list[float] | None], **branches: float) -> list[dict[str, Any]]:
    return [
        {
            "step": i,
            "noise_level": 10.0 / (i + 1),
            "guidance": each,
            "out_of_range": [0.1, 0.2],
            "asked": [2, 2],
            "saved": [0, 0],
            "difference": {name: [size, size] for name, size in branches.items()},
            "cosine": {name: [0.5, 0.7] for name in branches},
        }
        for i, each in enumerate(guidance)
    ]


def panels(figure: Figure) -> dict[str, Any]:
    return {axes.get_title().split()[0]: axes for axes in figure.axes}


def test_two_branches_fill_four_panels() -> None:
    shown = panels(trace_figure(rows([[1.0, 3.0], [0.0, 0.0]], null=0.5), "title"))
    assert list(shown) == ["difference", "cosine", "share", "network"]
    apart = {line.get_label(): line.get_ydata().tolist() for line in shown["difference"].lines}
    assert apart == {"given - null": [0.5, 0.5], "added by guidance": [2.0, 0.0]}
    assert shown["cosine"].lines[0].get_ydata() == pytest.approx([0.6, 0.6])


def test_a_panel_without_anything_to_show_is_left_out() -> None:
    led = panels(trace_figure(rows([[1.0, 3.0], [1.0, 1.0]]), "led by a classifier"))
    assert list(led) == ["difference", "share", "network"]
    unknown = rows([None, None], null=0.5)
    for row in unknown:
        row["cosine"] = {"null": [None, None]}
    assert list(panels(trace_figure(unknown, ""))) == ["difference", "share", "network"]
    assert list(panels(trace_figure(rows([None, None]), ""))) == ["share", "network"]


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [
        ([30.0, 1.0], "linear"),
        ([31.0, 1.0], "log"),
        ([31.0, 0.0, 1.0], "log"),
        ([31.0, 0.0], "linear"),
        ([0.0], "linear"),
    ],
)
def test_sizes_far_apart_get_a_logarithmic_axis(sizes: list[float], scale: str) -> None:
    shown = panels(trace_figure(rows([[size, size] for size in sizes]), ""))
    assert shown["difference"].get_yscale() == scale
    assert shown["share"].get_yscale() == "linear"


def test_the_span_is_that_of_all_lines_together() -> None:
    assert panels(trace_figure(rows([[4.0, 4.0]], null=0.1), ""))["difference"].get_yscale() == "log"
