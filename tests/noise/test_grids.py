"""Grids of times and noise levels, by the numbers that other libraries give."""

from __future__ import annotations

import pytest
from support.numbers import agree, f64

from guidon.errors import BadValue, NotSupported
from guidon.noise import EDM, Cosine, Flow, VPTable
from guidon.noise.grids import Karras, Leading, Linspace, LogSNR, Respaced, Trailing, respaced_indices


def times(grid: object, steps: int, process: object = None) -> list[float]:
    return [level.t for level in grid.levels(process or VPTable(), steps)]  # type: ignore[attr-defined]


def test_of_tables() -> None:
    assert times(Leading(), 4) == [750, 500, 250, 0, -1]
    assert times(Leading(1), 4) == [751, 501, 251, 1, -1]
    assert times(Leading(), 7) == [852, 710, 568, 426, 284, 142, 0, -1]
    assert times(Trailing(), 4) == [999, 749, 499, 249, -1]
    assert times(Trailing(), 7) == [999, 856, 713, 570, 428, 285, 142, -1]
    assert times(Linspace(), 4) == [999, 666, 333, 0, -1]
    assert times(Linspace(), 3) == [999, 499.5, 0, -1]
    assert times(Respaced(), 3) == [999, 500, 0, -1]
    assert times(Respaced("ddim5"), 1) == [800, 600, 400, 200, 0, -1]
    assert len(times(Respaced("10,15,20"), 1)) == 46
    assert times(Trailing(), 1000) == [*range(999, -1, -1), -1] == times(Leading(), 1000)


def test_of_continuous_processes() -> None:
    agree(f64(times(Trailing(), 4, Flow())), f64([1, 0.75, 0.5, 0.25, 0]), "trailing")
    agree(f64(times(Linspace(), 3, Flow())), f64([1, 0.5005, 0.001, 0]), "linspace")
    karras = Karras(rho=7, sigma_min=0.1, sigma_max=10).levels(EDM(), 3)
    middle = ((0.1 ** (1 / 7) + 10 ** (1 / 7)) / 2) ** 7
    agree(f64([level.sigma for level in karras]), f64([10, middle, 0.1, 0]), "karras")
    logs = LogSNR(0.1, 10).levels(Cosine(), 3)
    agree(f64([level.noise_level for level in logs]), f64([10, 1, 0.1, 0]), "log-snr")
    assert Karras().levels(EDM(), 1)[0].sigma == pytest.approx(80.0)


def test_without_signal_at_the_end() -> None:
    zero = VPTable(zero_snr=True)
    assert Trailing().levels(zero, 5)[0].alpha == 0
    assert Karras().levels(zero, 5)[0].noise_level == pytest.approx(1000)  # no even spacing starts at infinity


@pytest.mark.parametrize(
    ("grid", "steps", "process", "error"),
    [
        (Leading(1000), 4, VPTable(), BadValue),
        (Leading(), 1001, VPTable(), BadValue),
        (Leading(), 4, Flow(), NotSupported),
        (Respaced("ddim700"), 1, VPTable(), BadValue),
        (Respaced("many"), 1, VPTable(), BadValue),
        (Respaced("ddim"), 1, VPTable(), BadValue),
        (Respaced("10,,5"), 1, VPTable(), BadValue),
        (Respaced("-5"), 1, VPTable(), BadValue),
        (Respaced("0"), 1, VPTable(), BadValue),
        (Respaced("1001"), 1, VPTable(), BadValue),
        (Respaced("25"), 1, EDM(), NotSupported),
        (Trailing(), 0, VPTable(), BadValue),
        (Trailing(), 1001, VPTable(), BadValue),
        (Karras(sigma_min=3, sigma_max=2), 4, EDM(), BadValue),
        (LogSNR(sigma_min=-1), 4, EDM(), BadValue),
    ],
    ids=str,
)
def test_refused(grid: object, steps: int, process: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        grid.levels(process, steps)  # type: ignore[attr-defined]


def test_a_negative_offset_is_refused() -> None:
    with pytest.raises(BadValue, match="offset >= 0"):
        Leading(-1)


def test_respaced_sections() -> None:
    assert respaced_indices(10, "0,2") == [5, 9]
    assert respaced_indices(10, [2, 3]) == [0, 4, 5, 7, 9]
    assert len(respaced_indices(1000, "fast27")) == 27
    assert respaced_indices(1000, "ddim1000") == list(range(1000))
