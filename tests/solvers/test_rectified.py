"""The solver of Rectified-CFG++: one path for all processes, and the guided flow in the limit of many steps."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
from support.drive import no_noise, sample
from support.mixtures import Exact, plane, told
from support.numbers import agree, normal

from guidon.errors import NotSupported
from guidon.guidance import CFG, Guided, Moment, RectifiedCFGpp
from guidon.guidance.rule import Predictions
from guidon.noise import EDM, Cosine, Flow, Process, VOutput, VPTable
from guidon.noise.grids import Karras, LogSNR, Trailing
from guidon.sampling import Engine, Trajectory
from guidon.solvers import Heun, Rectified

POINTS, LABELS = 48, [0, 1] * 24


def run(process: Process, steps: int, rule: object, solver: object) -> object:
    levels = Karras(7.0, 0.02, 20.0).levels(process, steps + 1)[:-1]
    x = levels[0].alpha * 20 * normal(POINTS, 2)
    return sample(Exact(plane()), levels, solver, rule, x, told(LABELS)) / levels[-1].alpha  # type: ignore[arg-type]


@pytest.mark.parametrize("process", [EDM(), Cosine(), VPTable()], ids=lambda p: type(p).__name__)
def test_every_process_takes_the_path_of_flow(process: Process) -> None:
    for rule in (RectifiedCFGpp(3.0), RectifiedCFGpp(4.0, 1.0)):
        agree(run(process, 12, rule, Rectified()), run(Flow(), 12, rule, Rectified()), "images", rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_many_steps_lead_where_cfg_leads(weight: float) -> None:
    exact = run(Flow(), 1024, CFG(weight), Heun())
    errors = [
        (run(Flow(), n, RectifiedCFGpp(weight), Rectified()) - exact).norm(dim=1).median().item()  # type: ignore[operator]
        for n in (64, 128, 256)
    ]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert abs(orders[-1] - Rectified.order) < 0.2, (errors, orders)
    assert errors[-1] < 0.03


def test_starts_where_no_signal_is_left() -> None:
    levels = Trailing().levels(VPTable(zero_snr=True), 10)
    got = sample(Exact(plane(), VOutput()), levels, Rectified(), RectifiedCFGpp(2.0), normal(4, 2), told([0, 1, 1, 0]))
    assert got.isfinite().all()
    assert got.abs().max() < 5


def test_rules_that_do_not_tell_the_plain_belief_are_refused() -> None:
    levels = LogSNR(0.02, 20.0).levels(EDM(), 4)
    with pytest.raises(NotSupported, match="made for it"):
        sample(Exact(plane()), levels, Rectified(), CFG(3.0), normal(2, 2), told([0, 1]))


@dataclass(frozen=True)
class Counting(RectifiedCFGpp):
    """Counts its steps in its state."""

    def init(self) -> int:
        return 0

    def combine(self, predictions: Predictions, at: Moment, state: int) -> tuple[Guided, int]:
        assert state == at.index
        assert at.began is not None
        assert at.began.noise_level > at.noise_level > at.there.noise_level
        return super().combine(predictions, at, None)[0], state + 1


def test_the_rule_is_asked_once_a_step() -> None:
    levels, asked = LogSNR(0.02, 20.0).levels(EDM(), 5), []
    rule = Counting(3.0)
    run = Trajectory(
        normal(2, 2),
        levels,
        Rectified(),
        rule,
        told([0, 1]),
        no_noise,
        look_on=lambda e: asked.append(len(e.predictions)),
    )
    Engine({"main": Exact(plane())}).run([run])
    assert asked == [1, 2] * 5
