"""One of two modes: the printed means and deviations, by an exact ODE, paired samples of the SDE and quadrature."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.numbers import normal

from guidon import registry
from guidon.errors import BadValue
from guidon.lab.experiment import Findings
from guidon.lab.experiments.two_modes import TwoModes, by_integrator, paired, powered, spaced, weighted

SMALL = TwoModes(weights=(1.0, 3.0), steps=80, samples=400, points=120)
PRINTED = {3.0: (2.50, 0.31, 2.12, 0.48, 2.000, 0.4997), 7.5: (3.04, 0.24, 2.19, 0.48, 2.000, 0.4995)}  # section 5


@pytest.fixture(scope="module")
def findings() -> Findings:
    return SMALL.run()


def test_the_ode_is_the_printed_one(findings: Findings) -> None:
    mean, std, *_ = PRINTED[7.5]
    found = weighted(by_integrator(7.5, 80))
    assert (round(found[0], 2), round(found[1], 2)) == (mean, std)
    row = findings.tables["moments"][1]
    assert (round(row["ode mean"], 2), round(row["ode std"], 2)) == PRINTED[3.0][:2]
    assert row["heun mean"] == pytest.approx(row["ode mean"], abs=0.01)
    assert row["heun std"] == pytest.approx(row["ode std"], abs=0.005)


def test_without_guidance_the_ode_gives_the_class_but_for_its_start(findings: Findings) -> None:
    row = findings.tables["moments"][0]
    kept = 0.5 / (0.25 + 80**2) ** 0.5  # of the start, and of the distance between its mean and the class's
    assert row["ode mean"] == pytest.approx(2 - 2 * kept, abs=1e-6)
    assert row["ode std"] == pytest.approx(80 * kept, abs=1e-6)


def test_the_sde_is_between_and_its_error_is_small(findings: Findings) -> None:
    plain, guided = findings.tables["moments"]
    assert plain["sde mean error"] == plain["sde std error"] == 0  # every sample is its own twin
    assert plain["sde mean"] == pytest.approx(2.0, abs=1e-3)
    assert plain["sde std"] == pytest.approx(0.5, abs=0.03)
    assert guided["sde mean"] == pytest.approx(2.12, abs=0.03)
    assert 0 < guided["sde mean error"] < 0.5 * 0.48 / 400**0.5
    assert guided["powered mean"] < guided["sde mean"] < guided["ode mean"]


@pytest.mark.parametrize("weight", [3.0, 7.5])
def test_the_powered_density_is_the_printed_one(weight: float) -> None:
    mean, std = powered(weight)
    assert (round(mean, 3), round(std, 4)) == PRINTED[weight][4:]


def test_the_start_is_weighted_as_a_standard_normal() -> None:
    assert weighted(3 + 2 * spaced(60)) == pytest.approx((3, 2), abs=1e-9)
    assert weighted(spaced(60) ** 2) == pytest.approx((1, 2**0.5), abs=1e-8)


def test_pairing_takes_away_what_both_runs_share() -> None:
    plain = 2 + 0.5 * normal(500)
    found = paired(1.2 * plain + 0.3, plain, (2.0, 0.25))
    assert found["sde mean"] == pytest.approx(2.7, abs=4 * found["sde mean error"])
    assert found["sde mean error"] == pytest.approx(0.2 * float(plain.std()) / 500**0.5)
    assert found["sde std"] == pytest.approx(0.6, abs=4 * found["sde std error"])
    same = paired(plain, plain, (2.0, 0.25))
    assert (same["sde mean"], same["sde std"]) == (2.0, 0.5)


def test_errors_of_pairs_are_those_of_repetitions() -> None:
    found = [
        paired(1.2 * plain + 0.2 * normal(300, seed=1000 + seed), plain, (0.0, 1.0))
        for seed in range(200)
        for plain in (normal(300, seed=seed),)
    ]
    for key in ("sde mean", "sde std"):
        spread = torch.tensor([row[key] for row in found]).std()
        stated = torch.tensor([row[f"{key} error"] for row in found]).mean()
        assert float(spread / stated) == pytest.approx(1, abs=0.2)


def test_the_sentences_say_the_numbers(findings: Findings) -> None:
    said = " ".join(findings.sees)
    assert "At w = 3 the ODE ends with mean 2.50" in said
    assert "2.0001 and 0.4997" in said
    assert set(findings.figures) == {"", "moments"}


def test_settings_have_a_text_form_and_bad_ones_are_refused() -> None:
    assert registry.parse("experiment", registry.to_text(SMALL)) == SMALL
    bad = ({"weights": (3.0,)}, {"weights": (3.0, 1.0)}, {"weights": (0.5, 1.0)}, {"steps": 7}, {"samples": 99})
    for change in (*bad, {"points": 10}):
        with pytest.raises(BadValue, match="two-modes needs"):
            dataclasses.replace(SMALL, **change)
