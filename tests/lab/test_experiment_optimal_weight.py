"""The best weight: the printed table, and the same weights from what solvers did."""

from __future__ import annotations

import dataclasses
import math

import pytest

from guidon import registry
from guidon.errors import BadValue
from guidon.lab.endpoints import Normal, ode, sde
from guidon.lab.experiment import Findings
from guidon.lab.experiments.optimal_weight import (
    BEYOND,
    CASES,
    HIGH,
    OptimalWeight,
    apart,
    limits,
    reach,
    row_of,
    worlds,
)

SMALL = OptimalWeight(cases=((0.5, 0.25, 0.0), (0.5, 0.25, 1.0)), steps=120, weights=9)
PRINTED = {  # the reference sheet, section 7: W2, its first order, KL, W2 of the SDE
    (0.5, 0.25, 0.0): (1.1823, 1.1725, 1.1823, 1.241),
    (0.5, 0.25, 0.5): (1.0957, 1.0915, 1.1253, 1.125),
    (0.5, 0.25, 1.0): (1.0388, 1.0380, 1.0629, 1.050),
    (0.3, 0.3, 0.0): (1.3849, 1.3253, 1.3849, 1.681),
    (0.3, 0.3, 1.0): (1.1290, 1.1162, 1.1885, 1.212),
}


@pytest.fixture(scope="module")
def findings() -> Findings:
    return SMALL.run()


@pytest.mark.parametrize("case", PRINTED, ids=str)
def test_the_table_is_the_printed_one(case: tuple[float, float, float]) -> None:
    row = row_of(case, ode, sde)
    found = [row[name] for name in ("W2", "W2 first order", "KL", "SDE W2")]
    assert found[:3] == pytest.approx(PRINTED[case][:3], abs=5.1e-5)
    assert found[3] == pytest.approx(PRINTED[case][3], abs=5.1e-4)
    assert row["exact scores"] == pytest.approx(1, abs=1e-6)
    assert row["heun W2"] == pytest.approx(row["W2"], abs=1e-6)  # here given the closed form itself
    if case[2] == 0:
        assert row["W2 of equal means"] == pytest.approx(row["W2"], abs=1e-6)


def test_the_cases_are_those_of_the_table() -> None:
    assert tuple(PRINTED) == CASES == OptimalWeight().cases


def test_what_solvers_do_has_the_same_best_weight(findings: Findings) -> None:
    for row in findings.tables["weights"]:
        assert row["heun W2"] == pytest.approx(row["W2"], abs=0.006)
        assert row["heun KL"] == pytest.approx(row["KL"], abs=0.006)
        assert row["ddpm W2"] == pytest.approx(row["SDE W2"], abs=0.012)
    near, far = findings.tables["weights"]
    assert near["W2 distance at best"] < 1e-6 < far["W2 distance at best"] < far["W2 distance at 1"]


def test_nothing_to_mend_leaves_the_weight_at_one(findings: Findings) -> None:
    for row in findings.tables["limits"]:
        assert row["gap"] == 1.0
        assert row["W2"] == pytest.approx(1, abs=1e-6)
        assert row["KL"] == pytest.approx(1, abs=1e-6)


def test_equal_means_alone_still_have_limits_at_which_means_differ() -> None:
    """With equal means the end would be the same at every weight, and any of them as good."""
    for row in limits(((0.5, 0.25, 0.0),)):
        assert (row["gap"], row["W2"]) == pytest.approx((1.0, 1.0), abs=1e-6)


def test_large_weights_are_looked_for_where_they_are() -> None:
    case, hopeless = (0.97, 0.5, 0.0), (0.99, 0.5, 0.0)
    found = OptimalWeight(cases=(case, hopeless), steps=100, weights=9).run()
    strong, none = found.tables["weights"]
    # 1 + log(1 + d^2 / s_c^2) / log((1 + d^2) / (s_c^2 + d^2))
    wanted = 1 + math.log(1 + 0.25 / 0.9409) / math.log(1.25 / 1.1909)
    assert strong["W2"] == pytest.approx(wanted) and HIGH < wanted < strong["SDE W2"] < reach(case) < BEYOND
    assert strong["heun W2"] == pytest.approx(wanted, abs=0.15)
    assert strong["ddpm W2"] == pytest.approx(strong["SDE W2"], abs=0.15)
    assert none["W2"] is none["SDE W2"] is none["heun W2"] is none["W2 distance at best"] is None
    assert none["W2 of equal means"] > BEYOND and reach(hopeless) == HIGH
    assert found.sees[1] == "With blurred scores it is 10 or more where s_c = 0.99, δ = 0.5, means 0 apart."


def test_the_distance_is_that_of_wasserstein() -> None:
    truth, believed = worlds(0.5, 0.25, 1.0)
    assert apart(truth, Normal(1.3, 0.9)) == pytest.approx(0.5)  # 0.3 in the mean, 0.4 in the deviation
    assert (believed.std**2, believed.std_all**2) == pytest.approx((0.3125, 1.0625))


def test_the_sentences_say_the_numbers(findings: Findings) -> None:
    said = " ".join(findings.sees)
    assert (
        "from 1.0388" in said and "to 1.1823" in said and "e.g. 1.1823 for s_c = 0.5, δ = 0.25, means 0 apart" in said
    )
    assert "in 1 of 1 comparisons" in said
    assert set(findings.figures) == {"", "causes"}


def test_settings_have_a_text_form_and_bad_ones_are_refused() -> None:
    assert registry.parse("experiment", registry.to_text(SMALL)) == SMALL
    bad = (
        {"cases": ()},
        {"cases": ((0.5, 0.25),)},
        {"cases": ((0.0, 0.25, 1.0),)},
        {"cases": ((1.0, 0.25, 1.0),)},
        {"cases": ((0.5, -0.1, 1.0),)},
        {"steps": 49},
        {"weights": 4},
    )
    for change in bad:
        with pytest.raises(BadValue, match="optimal-weight needs"):
            dataclasses.replace(SMALL, **change)
