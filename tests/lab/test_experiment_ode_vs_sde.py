"""ODE, SDE and powered density: the printed variances, and solvers that tend to them at their order."""

from __future__ import annotations

import dataclasses

import pytest

from guidon import registry
from guidon.errors import BadValue
from guidon.lab.experiment import Findings
from guidon.lab.experiments.ode_vs_sde import OdeVsSde
from guidon.lab.line import moments, powers
from guidon.solvers import DDIM

SMALL = OdeVsSde(weights=(2.0, 7.0), steps=(48, 96))
PRINTED = {  # the reference sheet, section 5: powered, DDPM, DDIM
    2.0: (0.6667, 0.5833, 0.5),
    3.0: (0.5, 0.3875, 0.25),
    5.0: (0.3333, 0.2218, 0.0625),
    7.0: (0.25, 0.1538, 0.0156),
}


@pytest.fixture(scope="module")
def findings() -> Findings:
    return SMALL.run()


def test_the_closed_forms_are_the_printed_ones(findings: Findings) -> None:
    assert OdeVsSde().weights == tuple(PRINTED)
    for row in findings.tables["variances"]:
        found = tuple(round(row[name], 4) for name in ("powered", "ddpm", "ddim"))
        assert found == PRINTED[row["weight"]]


def test_the_solvers_tend_to_them_at_their_order(findings: Findings) -> None:
    runs = findings.tables["convergence"]
    assert len(runs) == 3 * 2 * 2
    for solver, order in (("ddpm", 1), ("ddim", 1), ("heun", 2)):
        low, high = powers([row for row in runs if row["solver"] == solver])
        assert order - 0.15 < low <= high < order + 0.4
    for row in findings.tables["variances"]:
        assert row["ddpm extrapolated"] == pytest.approx(row["ddpm"], rel=0.04)
        assert row["ddim extrapolated"] == pytest.approx(row["ddim"], rel=0.08)
        assert row["heun extrapolated"] == pytest.approx(row["ddim"], rel=0.01)
        assert row["ddpm in 96 steps"] == next(
            run["variance"]
            for run in runs
            if (run["solver"], run["weight"], run["steps"]) == ("ddpm", row["weight"], 96)
        )


def test_the_weight_of_the_ode_for_the_powered_variance(findings: Findings) -> None:
    rows = {row["weight"]: row for row in findings.tables["variances"]}
    assert rows[7.0]["ddim weight for powered"] == pytest.approx(3.0)  # 2^(1 - 3) = 2 / (7 + 1)
    assert moments(DDIM(), rows[2.0]["ddim weight for powered"], 96)[1] == pytest.approx(2 / 3, rel=0.1)


def test_the_sentences_say_the_numbers(findings: Findings) -> None:
    said = " ".join(findings.sees)
    assert "0.2500, DDPM tends to 0.1538 and DDIM to 0.0156" in said
    assert "narrower than the powered density at 2 of 2 weights above 1." in said
    assert set(findings.figures) == {"", "convergence"}


def test_what_is_narrowest_is_counted_from_what_was_measured() -> None:
    plain = OdeVsSde(weights=(1.0,), steps=(8, 16)).run()
    assert not any("weights above 1" in said or "needs the weight" in said for said in plain.sees)
    rough = OdeVsSde(weights=(1.0, 100.0), steps=(8, 32)).run()  # so few steps end wide, whatever the closed forms say
    row = rough.tables["variances"][1]
    assert row["ddim"] < row["ddpm"] < row["powered"] < row["heun extrapolated"]
    assert "at 0 of 1 weights above 1." in rough.sees[1]


def test_settings_have_a_text_form_and_bad_ones_are_refused() -> None:
    assert registry.parse("experiment", registry.to_text(SMALL)) == SMALL
    for change in (
        {"weights": ()},
        {"weights": (0.5,)},
        {"weights": (1500.0,)},
        {"steps": (64, 32)},
        {"steps": (1, 4)},
        {"steps": ()},
    ):
        with pytest.raises(BadValue, match="ode-vs-sde needs"):
            dataclasses.replace(SMALL, **change)
