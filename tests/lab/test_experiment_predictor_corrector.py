"""Guided DDPM as a predictor-corrector: one limit for both, one exponent only, and the sharpened density with corrections."""

from __future__ import annotations

import dataclasses

import pytest

from guidon import registry
from guidon.errors import BadValue
from guidon.lab.endpoints import by_ode, counterexample, sharpened_at, with_corrections
from guidon.lab.experiment import Findings
from guidon.lab.experiments.predictor_corrector import PredictorCorrector, extremes
from guidon.lab.line import powers

SMALL = PredictorCorrector(weights=(2.0, 3.0), steps=(32, 64, 128), corrections=(1, 4))


@pytest.fixture(scope="module")
def findings() -> Findings:
    return SMALL.run()


def test_both_samplers_tend_to_one_variance(findings: Findings) -> None:
    runs = findings.tables["convergence"]
    assert {round(row["closed form"], 10) for row in runs if row["weight"] == 3.0} == {0.3875}
    assert {row["rule"] for row in runs if row["weight"] == 3.0} == {"cfg(3)", "cfg(5)"}
    for name in ("pcg", "ddpm"):
        low, high, off = extremes(runs, name)
        assert (low, high) == powers([row for row in runs if row["solver"] == name])
        assert 0.75 < low <= high < 1.1
        assert off < 0.03


def test_only_one_exponent_meets_ddpm(findings: Findings) -> None:
    for row in findings.tables["exponents"]:
        exact = counterexample((row["exponent"] + 1) / 2)[1]
        assert row["pcg extrapolated"] == pytest.approx(exact, rel=0.01)
        assert (abs(row["relative difference"]) < 0.01) == row["2w - 1"] == (row["exponent"] == 5)


def test_corrections_approach_the_sharpened_density(findings: Findings) -> None:
    one, four = findings.tables["corrections"]
    assert one["closed form"] == pytest.approx(counterexample(2.0)[1])  # g = 2 w - 1 = 3: DDPM of w = 2
    for row in (one, four):
        assert row["sharpened"] == 0.5
        assert row["pcg extrapolated"] == pytest.approx(row["closed form"], rel=0.02)
        assert row["excess"] == pytest.approx(row["closed form"] / 0.5 - 1)
    assert four["excess"] < one["excess"] / 4
    assert (one["evaluations a step"], four["evaluations a step"]) == (3, 9)


def test_the_way_down_is_that_of_the_closed_forms(findings: Findings) -> None:
    way = findings.tables["way"]
    assert way[-1]["noise level"] == 0
    assert (way[-1]["ddpm closed form"], way[-1]["ddim closed form"], way[-1]["powered"]) == pytest.approx(
        (0.3875, 0.25, 0.5)
    )
    for row in way:
        assert row["ddpm"] == pytest.approx(row["ddpm closed form"], rel=0.13)
        assert row["pcg"] == pytest.approx(row["ddpm closed form"], rel=0.06)
        assert row["ddim"] == pytest.approx(row["ddim closed form"], rel=0.08)


def test_many_corrections_leave_an_excess_of_one_sixteenth_over_k() -> None:
    """By the linear equation: P / K times P' - P / (1 + s), with the sharpened variance P(s), at s = 0."""
    for exponent, wanted in ((3.0, 0.0625), (1.0, 0.0)):
        excess = with_corrections(exponent, 4000) - sharpened_at(exponent, 0.0)
        assert 4000 * excess == pytest.approx(wanted, abs=1e-4)
    for noise_level in (0.0, 0.7):
        assert with_corrections(1.0, 3, noise_level) == pytest.approx(1 + noise_level**2)  # w = 1 keeps the class
        assert by_ode(1.0, noise_level) == pytest.approx(1 + noise_level**2)


def test_strong_weights_keep_their_closed_forms() -> None:
    for exponent in (1.5, 21.0, 2e6, 1e30):  # (2 - 2^(2 - 2w)) / (2w - 1) with g = 2w - 1
        assert with_corrections(exponent, 1) == pytest.approx((2 - 2 ** (1 - exponent)) / exponent)
        assert with_corrections(exponent, 1, 1.0) == pytest.approx(6 * (1 - (2 / 3) ** exponent) / exponent)
    # K = 2 and g = 2 at the noise level 0: 2 times the integral of u ((1 + u) / 2)^2 from 0 to 1
    assert with_corrections(2.0, 2) == pytest.approx(2 * (1 / 2 + 2 / 3 + 1 / 4) / 4)


@pytest.mark.parametrize("weight", [11.0, 100.0])
def test_strong_weights_are_looked_at_closely_too(weight: float) -> None:
    said = " ".join(PredictorCorrector((weight,), weight, (8, 16), (1, 2)).run().sees)
    # of the exponent g whose 2 / g is 2^(1 - w)
    assert f"ends with {2 ** (1 - weight):.4g}. The exponent {2**weight:.3g} would bring" in said


def test_the_sentences_say_the_numbers(findings: Findings) -> None:
    said = " ".join(findings.sees)
    assert "the closed form of both is 0.3875" in said
    assert "is 5, which is 2w − 1" in said
    assert "DDIM under `cfg(3)` ends with 0.25." in said
    assert set(findings.figures) == {"", "corrections"}


def test_settings_have_a_text_form_and_bad_ones_are_refused() -> None:
    assert registry.parse("experiment", registry.to_text(SMALL)) == SMALL
    bad = (
        {"weights": (1.0,)},
        {"weight": 0.5},
        {"weight": 101.0},
        {"steps": (32,)},
        {"steps": (64, 32)},
        {"corrections": (0,)},
    )
    for change in (*bad, {"corrections": ()}):
        with pytest.raises(BadValue, match="predictor-corrector needs"):
            dataclasses.replace(SMALL, **change)
