"""The front, and the plots that show it."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.cells import figure, sweep

from guidon.measure.estimate import Figure
from guidon.study.columns import columns
from guidon.study.pareto import front, pareto_figure, trades, write_pareto

FID = {("plain", 1): 10.0, ("plain", 2): 6.0, ("plain", 4): 8.0, ("apg", 1): 10.0, ("apg", 2): 5.0, ("apg", 4): 7.0}
RECALL = {("plain", 1): 0.7, ("plain", 2): 0.6, ("plain", 4): 0.3, ("apg", 1): 0.7, ("apg", 2): 0.5, ("apg", 4): 0.5}
PRECISION = {key: 0.9 - value for key, value in RECALL.items()}
UNBEATEN = [(10, 0.7), (10, 0.7), (6, 0.6), (5, 0.5)]  # the equal pair stands on it together


def figures(rule: str, w: float) -> dict[str, Figure]:
    at = rule, int(w)
    return {"fid": figure(FID[at], 0.5), "recall": figure(RECALL[at], 0.02), "precision": figure(PRECISION[at], 0.01)}


def test_the_front_of_known_points():
    points = [(1, 5), (2, 3), (2, 4), (3, 3), (4, 1), (1, 5), (4, 1.5)]
    assert front(points, ("lower", "lower")) == [True, True, False, False, True, True, False]
    assert front(points, ("lower", "higher")) == [True, False, False, False, False, True, False]
    assert front([(1, 1)], ("higher", "higher")) == [True]
    assert front([], ("higher", "higher")) == []


def test_what_is_unknown_stands_on_no_front_and_beats_nothing():
    assert front([(math.nan, 0), (1, 1), (0, math.nan)], ("lower", "lower")) == [False, True, False]
    assert front([(1, 2), (2, 1)], ("lower", None)) == [False, False]


numbers = st.integers(-3, 3)


@given(
    st.lists(st.tuples(numbers, numbers), max_size=12),
    st.sampled_from(["higher", "lower"]),
    st.sampled_from(["higher", "lower"]),
)
def test_every_point_is_on_the_front_or_beaten_by_one_on_it(points, x, y):
    found = front(points, (x, y))
    a, b = (1 if side == "higher" else -1 for side in (x, y))

    def beats(p, q):
        return a * p[0] >= a * q[0] and b * p[1] >= b * q[1] and p != q

    best = [p for p, on in zip(points, found, strict=True) if on]
    assert not any(beats(p, q) for p, q in product(points, best))
    assert all(on or any(beats(p, q) for p in best) for q, on in zip(points, found, strict=True))


def test_the_plot_draws_lines_intervals_and_the_front_where_they_are(tmp_path):
    cells = sweep(tmp_path, figures, images=0)
    by_key = {column.key: column for column in columns(cells)}
    axes = pareto_figure(cells, by_key["fid"], by_key["recall"]).axes[0]
    drawn = [line.get_xydata().tolist() for line in axes.lines if line.get_linestyle() == "-"]
    assert drawn == [[[FID[rule, w], RECALL[rule, w]] for w in (1, 2, 4)] for rule in ("plain", "apg")]
    (dashed,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [tuple(point) for point in dashed.get_xydata()] == sorted(UNBEATEN)
    rings = axes.collections[-1].get_offsets()
    assert sorted(map(tuple, np.asarray(rings).tolist())) == sorted(UNBEATEN)
    ups = [
        segment for bars in axes.collections[:-1] for segment in bars.get_segments() if segment[0, 0] == segment[1, 0]
    ]
    assert np.allclose([np.ptp(segment[:, 1]) for segment in ups], 0.04) and len(ups) == 6
    words = [text.get_text() for text in axes.texts]
    assert set(words) <= {"w=1", "w=2", "w=4"} and "w=2" in words
    assert "n = 100 images" in axes.figure._supxlabel.get_text()


def test_pairs_worth_a_plot_are_chosen_by_what_there_is(tmp_path):
    cells = sweep(tmp_path / "a", figures, images=0)
    assert [(x.key, y.key) for x, y in trades(columns(cells))] == [("precision", "recall"), ("nfe", "fid")]
    few = sweep(
        tmp_path / "b", lambda rule, w: {"saturation": figure(w), "accuracy": figure(w)}, weights=(2, 4), images=0
    )
    assert trades(columns(few)) == []
    clip = sweep(
        tmp_path / "c", lambda rule, w: {"fid": figure(w), "clip-score@clip": figure(w)}, weights=(2, 4), images=0
    )
    assert [(x.key, y.key) for x, y in trades(columns(clip))] == [("fid", "clip-score@clip")]


def test_plots_are_files_that_do_not_change(tmp_path: Path):
    cells = sweep(tmp_path / "s", figures, images=0)
    written = write_pareto(cells, tmp_path)
    assert [path.name for path in written] == [
        "pareto-precision-recall.png",
        "pareto-precision-recall.svg",
        "pareto-nfe-fid.png",
        "pareto-nfe-fid.svg",
    ]
    assert written[0].read_bytes()[:4] == b"\x89PNG" and "<svg" in written[1].read_text()
