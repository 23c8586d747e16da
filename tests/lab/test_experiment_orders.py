"""Orders of convergence as the experiment measures them: every solver once, and numbers that closed forms know."""

from __future__ import annotations

import dataclasses
import math

import pytest

from guidon import registry
from guidon.errors import BadValue
from guidon.lab import endpoints
from guidon.lab.convergence import PAIR, Run, Starts, followers, in_distribution, noises
from guidon.lab.experiments import orders
from guidon.lab.experiments.orders import Orders
from guidon.solvers import DDPM, LMS, PLMS, Euler, Heun, Solver


@pytest.fixture(scope="module")
def world() -> Starts:
    return Starts.of(3, (1.0, 3.0))


@pytest.mark.parametrize(("solver", "near"), [(Euler(), 0.02), (Heun(), 0.05), (LMS(3), 0.15)], ids=str)
def test_measured_orders_are_the_stated_ones(world: Starts, solver: Solver, near: float) -> None:
    run = world.measure(solver, (96, 192), 20)
    for weight in (1.0, 3.0):
        assert abs(run.order(weight) - solver.order) < near, run.errors
    assert run.asked == {
        w: [n * solver.evaluations * branches for n in (96, 192)] for w, branches in ((1.0, 1), (3.0, 2))
    }


def test_errors_at_equal_evaluations_take_half_the_steps_where_a_step_takes_two(world: Starts) -> None:
    few = world.measure(Heun(), (10, 12), 20)
    assert few.few == {weight: errors[0] for weight, errors in few.errors.items()}
    assert few.row()["asked"] == 20


def test_a_solver_with_a_dearer_first_step_takes_one_step_less(world: Starts) -> None:
    run = world.measure(PLMS(), (19, 20), 20)
    assert run.asked[1.0] == [20, 21] and run.evaluations == 20
    assert run.few == {weight: errors[0] for weight, errors in run.errors.items()}


def test_an_order_is_the_slope_of_the_last_refinement() -> None:
    run = Run(Euler(), {1.0: [9.0, 8e-3, 1e-3]}, {1.0: [5, 10, 30]}, {1.0: 0.1}, 20)
    assert math.isclose(run.order(1.0), math.log(8) / math.log(3))


def test_every_registered_solver_has_a_place() -> None:
    listed = [registry.to_text(solver) for solver in (*followers(), *noises())]
    listed += [row["solver"] for row in orders._others()]
    assert {text.partition("(")[0] for text in listed} == set(registry.names("solver"))
    assert len(listed) == len(set(listed))
    assert not any(solver.stochastic for solver in followers()) and all(solver.stochastic for solver in noises())


def test_ddpm_ends_where_the_reverse_sde_does() -> None:
    row, errors = in_distribution(DDPM(), (100, 200), 3.0)
    sde = endpoints.sde(PAIR, 3.0)
    r = PAIR.ratio
    assert math.isclose(sde.mean, 1 + (r**2 - r**6) / (1 - r**2)) and math.isclose(sde.mean, 1.3125)
    assert math.isclose(sde.std, math.sqrt((r**2 - r**12) / (5 * (1 - r**2))))
    assert abs(row["guided_mean"] - sde.mean) < 0.004 and abs(row["guided_std"] - sde.std) < 0.015
    assert abs(row["order"] - 1) < 0.08 and errors[1] < 0.02
    assert math.isclose(row["error"], errors[1], rel_tol=1e-3)


@pytest.mark.parametrize(
    ("measured", "how"), [((2.1, 1.9), "at"), ((2.1, 2.9), "above"), ((1.8, 2.9), "below"), ((2.0, 1.84), "below")]
)
def test_what_holds(measured: tuple[float, float], how: str) -> None:
    assert orders._holds({"stated": 2, "order": measured[0], "order_guided": measured[1]}) == how


@pytest.mark.parametrize(
    ("order", "before", "nearing"),
    [(1.21, 1.33, True), (2.0, 2.01, False), (0.7, 0.5, True), (1.3, 1.2, False), (1.3, None, False)],
)
def test_what_is_on_its_way_is_not_called_faster(order: float, before: float | None, nearing: bool) -> None:
    row = {"solver": "pcg", "stated": 1, "order": order, "order_before": before, "guided_mean": 1.0, "guided_std": 0.3}
    assert orders._nearing(row) == nearing
    rows = [
        {"solver": "euler", "stated": 1, "order": 1.0, "order_guided": 1.0, "error": 0.1, "error_guided": 0.1},
    ]
    said = Orders()._sees(rows, [(row, [0.1])])[3]
    assert ("Not there yet" in said) == nearing
    assert ("Faster" in said) == (not nearing and order > 1)


def test_equal_lines_share_a_label() -> None:
    noisy = [({"solver": name, "order": 1.0}, errors) for name, errors in (("a", [0.2, 0.1]), ("b", [0.4, 0.3]))]
    noisy.append(({"solver": "c", "order": 1.0}, [0.2, 0.1 + 1e-12]))
    labels = [label for label, _ in orders._together(noisy)]
    assert labels == ["b: 1.00", "c, a: 1.00"]


def test_the_findings_agree_with_their_tables() -> None:
    found = Orders(steps=(6, 12), noisy_steps=(6, 12), points=1).run()
    rows = {row["solver"]: row for row in found.tables["deterministic"]}
    assert rows["ddim"] == {**rows["euler"], "solver": "ddim"}  # one method under two names
    best = min(rows.values(), key=lambda row: row["error_guided"])
    assert (
        f"`{best['solver']}` is nearest to the ODE, with a median error of {best['error_guided']:.1e}" in found.sees[2]
    )
    holding = sum(orders._holds(row) == "at" for row in rows.values())
    assert found.sees[0].startswith(f"{holding} of {len(rows)} solvers")
    assert set(found.figures) == {"", "cost", "noise"}


def test_settings_have_a_text_form() -> None:
    made = registry.parse("experiment", "orders(steps=[6, 12], weight=2)")
    assert made == Orders(steps=(6, 12), weight=2)
    assert registry.parse("experiment", registry.to_text(made)) == made
    with pytest.raises(BadValue, match="each larger than the one before"):
        dataclasses.replace(made, steps=(12, 6))
    for change in ({"points": 0}, {"evaluations": 0}, {"weight": 1e6}, {"steps": (1, 2)}, {"noisy_steps": (0, 2)}):
        with pytest.raises(BadValue, match="orders needs"):
            dataclasses.replace(made, **change)
    with pytest.raises(BadValue, match="another weight"):
        Orders(weight=1.0)
