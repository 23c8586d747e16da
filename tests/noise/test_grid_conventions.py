"""Wrappers of grids: levels moved onto noise levels, other ends, a finite beginning, a shift; by closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from support.numbers import agree, f64

from guidon.errors import BadValue, NotSupported
from guidon.guidance import Interval, Moment
from guidon.noise import EDM, Flow, Process, VPTable
from guidon.noise.grids import (
    NOISIEST,
    Aligned,
    Beta,
    Ends,
    Finite,
    Grid,
    Karras,
    Leading,
    Linspace,
    Listed,
    LogSNR,
    Polyexponential,
    Shifted,
    Trailing,
)
from guidon.registry import parse

STABLE = VPTable("scaled-linear")
DECADES = Listed((100.0, 10.0, 1.0, 0.1))


def noise_levels(grid: Grid, steps: int, process: Process) -> torch.Tensor:
    return f64([level.noise_level for level in grid.levels(process, steps)])


def times(grid: Grid, steps: int, process: Process) -> list[float]:
    return [level.t for level in grid.levels(process, steps)]


@pytest.mark.parametrize(
    ("at", "wanted"),
    [
        ((0.3,), [100, 10, 1, 0.3, 0]),  # sqrt(0.1) = 0.316 lies between 1 and 0.1
        ((0.33,), [100, 10, 0.33, 0.1, 0]),
        ((3.0, 0.3), [100, 10, 3, 0.3, 0]),
        ((4.0, 0.3), [100, 4, 1, 0.3, 0]),
        ((90.0,), [100, 90, 1, 0.1, 0]),  # the first stays
        ((0.1, 0.11), [100, 10, 0.11, 0.1, 0]),
        ((0.11, 0.1), [100, 10, 0.11, 0.1, 0]),
        ((7.0, 6.0, 5.0), [100, 7, 6, 5, 0]),
        ((100.0, 10.0), [100, 10, 1, 0.1, 0]),
    ],
)
def test_aligned_moves_the_nearest_level_that_is_free(at: tuple[float, ...], wanted: list[float]) -> None:
    agree(noise_levels(Aligned(DECADES, at), 4, EDM()), f64(wanted), "aligned", rtol=1e-15)


@pytest.mark.parametrize(
    ("grid", "process"),
    [
        (Karras(), EDM()),
        (Trailing(), Flow()),
        (Karras(), VPTable()),
        (Linspace(), VPTable(zero_snr=True)),
    ],
    ids=str,
)
def test_aligned_keeps_all_else(grid: Grid, process: Process) -> None:
    at = (0.28, 2.9)
    before, after = grid.levels(process, 12), Aligned(grid, at).levels(process, 12)
    assert len(after) == 13
    assert (after[0], after[-1]) == (before[0], process.clean)
    assert len(set(before) - set(after)) == 2
    assert all(a.noise_level > b.noise_level for a, b in itertools.pairwise(after))
    for tau in at:
        assert min(abs(level.noise_level / tau - 1) for level in after) < 1e-12


@pytest.mark.parametrize("process", [EDM(), Flow(), VPTable()], ids=str)
def test_aligned_levels_are_on_the_bounds_of_an_interval(process: Process) -> None:
    """An interval leaves its lower bound out and keeps its upper one, whatever the rounding of sigma / alpha."""
    for i in range(2, 99):
        low, high = i / 99, 1 + i / 25
        levels = Aligned(LogSNR(), (low, high)).levels(process, 8)
        inside = [level for level in levels if Interval(low, high).holds(Moment(level, process.clean, 0, 8))]
        assert inside[0].noise_level == pytest.approx(high, rel=1e-14)
        assert levels[levels.index(inside[-1]) + 1].noise_level == pytest.approx(low, rel=1e-14)


def test_ends_on_a_table() -> None:
    """Diffusers' DDIM with set_alpha_to_one=False goes 876, ..., 1, and then to index 0."""
    grid = Leading(1)
    assert times(Ends(grid), 8, STABLE) == times(grid, 8, STABLE)
    assert times(Ends(grid, "least"), 8, STABLE) == [876, 751, 626, 501, 376, 251, 126, 1, 0]
    assert times(Ends(grid, "last"), 7, STABLE) == [876, 751, 626, 501, 376, 251, 126, 1]
    assert times(Ends(Leading(), "least"), 3, STABLE) == [750, 500, 250, 0]  # the grid's own last level


@pytest.mark.parametrize("process", [EDM(), Flow(), VPTable()], ids=str)
def test_ends_on_any_process(process: Process) -> None:
    least = process.level(process.t_min)
    grid = LogSNR(sigma_min=0.5)
    assert Ends(grid, "least").levels(process, 5) == (*grid.levels(process, 5)[:-1], least)
    for at in ("least", "last"):
        assert Ends(Karras(), at).levels(process, 5) == Karras().levels(process, 6)[:-1]  # five steps, none to itself
    assert Aligned(Ends(grid, "last"), (0.7,)).levels(process, 5)[-1].noise_level == pytest.approx(0.7)


@pytest.mark.parametrize("at", [(3.0, 0.3), (0.3, 3.0), (3.0000000000000004, 1.0)], ids=str)
def test_the_ends_of_a_grid_may_be_among_those_aligned(at: tuple[float, ...]) -> None:
    """They differ from what was asked for by rounding, and no step may have no length."""
    for process in (EDM(), Flow(), VPTable()):
        taus = [level.noise_level for level in Aligned(Karras(7.0, 0.1, 3.0), at).levels(process, 8)]
        assert all(math.isclose(a, tau, rel_tol=1e-9) for a in at for tau in [min(taus[:-1], key=lambda t: abs(t - a))])
        assert all(below < 0.99 * above for above, below in itertools.pairwise(taus))
        assert len(taus) == 9


def test_the_order_of_what_is_aligned_does_not_matter() -> None:
    grid = Listed((80.0, 10.0, 2.0, 1.0))
    assert Aligned(grid, (4.0, 1.9)).levels(EDM(), 4) == Aligned(grid, (1.9, 4.0)).levels(EDM(), 4)


def test_ranges_that_are_finite_are_kept() -> None:
    assert Karras().levels(EDM(sigma_max=1e4), 5)[0].noise_level == pytest.approx(1e4)


def test_finite_begins_where_a_trace_of_signal_is_left() -> None:
    zero = VPTable(zero_snr=True)
    before, after = Trailing().levels(zero, 8), Finite(Trailing()).levels(zero, 8)
    assert after[1:] == before[1:]
    assert before[0].alpha == 0
    assert after[0].alpha ** 2 == pytest.approx(2**-24, rel=1e-12)
    assert after[0].noise_level == pytest.approx(4095.99987793, rel=1e-12) == NOISIEST
    for process in (VPTable(), EDM()):  # nothing to replace
        assert Finite(Trailing()).levels(process, 8) == Trailing().levels(process, 8)
    assert Finite(Trailing()).levels(Flow(), 8)[0].sigma == pytest.approx(NOISIEST / (1 + NOISIEST), rel=1e-15)
    with pytest.raises(BadValue, match="take fewer steps"):
        Finite(Trailing()).levels(zero, 1000)


def test_shift_of_flow_times() -> None:
    shift = math.exp(0.8)
    for grid, before in ((Linspace(), f64([1, 0.5005, 0.001, 0])), (Trailing(), f64([1, 2 / 3, 1 / 3, 0]))):
        after = f64(times(Shifted(shift, grid), 3, Flow()))
        agree(after, shift * before / (1 + (shift - 1) * before), str(grid), rtol=1e-14)
    assert Shifted().shift == 3
    assert times(Shifted(1), 5, Flow()) == pytest.approx(times(Linspace(), 5, Flow()), rel=1e-14)
    agree(noise_levels(Shifted(0.5, Karras()), 4, EDM()), noise_levels(Karras(), 4, EDM()) / 2, "edm", rtol=1e-15)


@pytest.mark.parametrize(
    ("grid", "steps", "process", "error", "said"),
    [
        (Aligned(DECADES, (200.0,)), 4, EDM(), BadValue, "goes from 100 to 0.1"),
        (Aligned(DECADES, (0.05,)), 4, EDM(), BadValue, "goes from 100 to 0.1"),
        (Aligned(DECADES, (4.0, 3.0, 2.0, 0.3)), 4, EDM(), BadValue, "3 levels to move onto 4"),
        (Ends(Listed((5.0,)), "last"), 1, EDM(), BadValue, "list more levels"),
        (Aligned(Karras(), (1.0,)), 1, EDM(), BadValue, "take more steps"),
        (Polyexponential(10.0), 50, EDM(), BadValue, "the same"),
        (Beta(0.05, 0.05), 20, EDM(), BadValue, "the same"),
        (Shifted(3, Trailing()), 4, EDM(), NotSupported, "noisiest that this process has"),
    ],
)
def test_refused_levels(grid: Grid, steps: int, process: Process, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        grid.levels(process, steps)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Aligned(Karras(), ()), "noise levels > 0"),
        (lambda: Aligned(Karras(), (1.0, 1.0)), "none of them twice"),
        (lambda: Aligned(Karras(), (1.0, 0.0)), "noise levels > 0"),
        (lambda: Aligned(Karras(), (math.inf,)), "noise levels > 0"),
        (lambda: Ends(Karras(), "never"), "there are: clean, least, last"),
        (lambda: Ends(Ends(Karras(), "last"), "least"), "ends once"),
        (lambda: Karras(math.inf), "rho"),
        (lambda: Shifted(0), "shift > 0"),
        (lambda: parse("grid", "ends(3)"), "ends takes grid as"),
        (lambda: parse("grid", "aligned(karras)"), "aligned needs at"),
    ],
)
def test_refused_values(make: Callable[[], object], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        make()


def test_text_of_nested_grids() -> None:
    assert parse("grid", "ends(leading(1), at='least')") == Ends(Leading(1), "least")
    assert parse("grid", "aligned(ends(finite(trailing), 'last'), [0.3, 3])") == Aligned(
        Ends(Finite(Trailing()), "last"), (0.3, 3)
    )
    assert parse("grid", "shifted(2, trailing)") == Shifted(2, Trailing())
