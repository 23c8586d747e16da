"""Laws 2, 3 and 5 of solvers: any parameterisation, any batching, the stated number of evaluations."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.drive import drive, guided_by, moments, no_noise, sample
from support.examples import dataclasses_of, plain, processes, solvers
from support.mixtures import Exact, field, plane, told
from support.numbers import agree, normal

from guidon.guidance import CFG, Interval
from guidon.noise import EDM, Flow, Level, Process, VOutput, VPTable
from guidon.noise.grids import Listed, LogSNR, Trailing
from guidon.sampling import Engine, PerImageNoise, RecordedNoise, Trajectory
from guidon.solvers import (
    DDPM,
    PLMS,
    DPM2Ancestral,
    DPMFast,
    DPMpp2MSDE,
    DPMpp2SAncestral,
    DPMpp3MSDE,
    DPMppSDE,
    Langevin,
    Solver,
    UniPC,
)

SOLVERS = pytest.mark.parametrize("solver", solvers(), ids=str)
PROCESSES = pytest.mark.parametrize("process", processes(), ids=str)
OUTPUTS = [plain(name, member) for name, member in dataclasses_of("output")]
LABELS = [0, 1, 1, 0]
ONCE_MORE = {PLMS: 1}  # evaluations beyond those of every step: its first step is Heun's
DRAWS = {DPMppSDE: lambda _: 2, Langevin: lambda solver: solver.corrections}  # of noise a step, where not one
NEED_MANY = (DPMFast, Langevin)  # for which eight steps from nothing but noise are too few


def noise(n: int = 100, *shape: int) -> RecordedNoise:
    return RecordedNoise([normal(4, *(shape or (2,)), seed=100 + i) for i in range(n)])


@SOLVERS
@PROCESSES
def test_any_parameterisation_gives_the_same_images(solver: Solver, process: Process) -> None:
    levels = LogSNR().levels(process, 8)
    x = process.start_scale(levels[0]) * normal(4, 2)
    results = [
        sample(Exact(plane(), output, fraction=0.4), levels, solver, CFG(2.5), x, told(LABELS), noise())
        for output in (None, *OUTPUTS)
    ]
    for output, result in zip(OUTPUTS, results[1:], strict=True):
        agree(result, results[0], str(output), rtol=1e-9, atol=1e-9)
    assert results[0].abs().max() < (1000 if isinstance(solver, NEED_MANY) else 20)


OF_NOISE_LEVELS = pytest.mark.parametrize(
    "solver", [s for s in solvers() if s not in (DDPM("large"), DDPM("learned"))], ids=str
)


@OF_NOISE_LEVELS
def test_processes_with_the_same_noise_levels_give_the_same_images(solver: Solver) -> None:
    """A solver works in noise level: what differs between processes is only how the state is scaled.

    But for variances between that of the posterior and that of the forward step: the latter is the process's own.
    """
    made = []
    for process in processes():
        levels = LogSNR(0.02, 20.0).levels(process, 9)
        x = levels[0].sigma * normal(4, 2)
        made.append(sample(Exact(plane()), levels, solver, CFG(2.0), x, told(LABELS), noise()))
    for result in made[1:]:
        agree(result, made[0], "images", rtol=1e-8, atol=1e-8)


@OF_NOISE_LEVELS
def test_no_number_but_zero_is_special(solver: Solver) -> None:
    """At noise level 1 sigma is 1 on one process and 1/2 on another."""
    made = []
    for process in (EDM(), Flow()):
        levels = Listed((6.0, 3.0, 1.0, 0.4)).levels(process, 4)
        made.append(
            sample(Exact(plane()), levels, solver, CFG(2.0), levels[0].sigma * normal(4, 2), told(LABELS), noise())
        )
    assert levels[2].sigma == pytest.approx(0.5, rel=1e-15)
    agree(made[1], made[0], "images", rtol=1e-8, atol=1e-8)


def images(solver: Solver, seeds: list[int], labels: list[int], weights: list[float], **engine: object) -> torch.Tensor:
    levels = LogSNR(0.02, 20.0).levels(EDM(), 6)
    draw = PerImageNoise(seeds, (2, 3, 3), dtype=torch.float64)
    return sample(Exact(field(), fraction=0.3), levels, solver, CFG(weights), 20 * draw(), told(labels), draw, **engine)


@SOLVERS
def test_batches_do_not_matter(solver: Solver) -> None:
    seeds, labels, weights = [11, 5, 7, 2**31, 0], [0, 1, 0, -1, 1], [1.0, 3.0, 0.0, 2.0, 7.5]
    whole = images(solver, seeds, labels, weights)
    for options in (
        {"batching": "sequential"},
        {"max_batch": 1},
        {"max_batch": 3},
        {"max_batch": 4},
        {"max_batch": 100},
    ):
        agree(images(solver, seeds, labels, weights, **options), whole, str(options), rtol=1e-10, atol=1e-10)
    order = [3, 0, 4, 1, 2]
    turned = images(solver, *([values[i] for i in order] for values in (seeds, labels, weights)))
    agree(turned, whole[order], "another order", rtol=1e-10, atol=1e-10)
    for i in range(len(seeds)):
        alone = images(solver, seeds[i : i + 1], labels[i : i + 1], weights[i : i + 1])
        agree(alone, whole[i : i + 1], f"image {i} alone", rtol=1e-10, atol=1e-10)


@SOLVERS
def test_evaluations_are_counted_as_stated(solver: Solver) -> None:
    steps, levels, x = 7, LogSNR(0.02, 20.0).levels(EDM(), 7), 20 * normal(4, 2)
    evaluations = solver.evaluations * (steps - 1) + 1 + ONCE_MORE.get(type(solver), 0)
    believe = guided_by(CFG(2.0), Exact(plane(), fraction=0.4), told(LABELS))
    _, asked = drive(solver, moments(levels), x, believe, noise())
    assert len(asked) == evaluations
    assert all(ask.plain is None for ask in asked)
    halfway = (levels[3].noise_level + levels[4].noise_level) / 2
    counts = {
        CFG(1.0): evaluations,
        CFG(0.0): evaluations,
        CFG(3.0): 2 * evaluations,
        CFG(3.0, when=Interval(halfway)): evaluations + sum(ask.at.noise_level > halfway for ask in asked),
    }
    for rule, stated in counts.items():
        network = Exact(plane(), fraction=0.5)
        run = Trajectory(x, levels, solver, rule, told(LABELS), noise())
        engine = Engine({"main": network})
        engine.run([run])
        assert run.nfe == stated, rule
        assert engine.rows == network.rows == 4 * stated
        assert engine.forwards == network.forwards == evaluations
        assert run.done
        assert run.index == run.steps == steps


@SOLVERS
def test_one_evaluation_a_step_advances_the_rule(solver: Solver) -> None:
    levels = LogSNR(0.02, 20.0).levels(EDM(), 7)
    believe = guided_by(CFG(2.0), Exact(plane(), fraction=0.4), told(LABELS))
    _, asked = drive(solver, moments(levels), 20 * normal(4, 2), believe, noise())
    assert [ask.at.index for ask in asked if ask.advance] == list(range(7))


@SOLVERS
def test_solvers_are_pure(solver: Solver) -> None:
    """One solver serves any number of runs, keeps its hands off what it is given, and is a value."""
    levels, x = LogSNR(0.02, 20.0).levels(EDM(), 4), 20 * normal(4, 2)
    before = x.clone()
    first, second = (
        sample(Exact(plane(), fraction=0.4), levels, solver, CFG(2.5), x, told(LABELS), noise()) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(x, before)
    assert hash(solver) == hash(type(solver)(**vars(solver)))


@SOLVERS
def test_noise_is_drawn_only_where_said(solver: Solver) -> None:
    levels, x = LogSNR(0.02, 20.0).levels(EDM(), 4), 20 * normal(4, 2)
    if solver.stochastic:
        results = [
            sample(
                Exact(plane(), fraction=0.4),
                levels,
                solver,
                CFG(2.5),
                x,
                told(LABELS),
                lambda s=s: normal(4, 2, seed=s),
            )
            for s in (1, 2)
        ]
        assert not torch.allclose(*results)
        drawn = itertools.count()
        sample(Exact(plane(), fraction=0.4), levels, solver, CFG(1.0), x, told(LABELS), lambda: (next(drawn), x)[1])
        a_step = DRAWS[type(solver)](solver) if type(solver) in DRAWS else 1
        assert next(drawn) == a_step * (len(levels) - 2)  # none in the step to the clean image
    else:
        sample(Exact(plane()), levels, solver, CFG(2.5), x, told(LABELS), no_noise)


@pytest.mark.parametrize("solver", [s for s in solvers() if getattr(s, "clock", None) in (None, Flow())], ids=str)
def test_a_step_to_the_clean_image_returns_what_is_believed(solver: Solver) -> None:
    network, x, here = Exact(plane(), fraction=0.4), normal(4, 2), EDM().level(0.04)  # below where churn is
    got = sample(network, [here, Level(0.0, 1.0, 0.0)], solver, CFG(2.5), x, told(LABELS))
    given, null = (network(x, here, context).x0 for context in told(LABELS).values())
    agree(got, null + 2.5 * (given - null), "x0")


@SOLVERS
def test_starts_where_no_signal_is_left(solver: Solver) -> None:
    levels = Trailing().levels(VPTable(zero_snr=True), 10)
    assert levels[0].alpha == 0
    got = sample(Exact(plane(), VOutput(), 0.4), levels, solver, CFG(1.5), normal(4, 2), told(LABELS), noise())
    assert torch.isfinite(got).all()
    assert got.abs().max() < 5


@pytest.mark.parametrize("solver", [DPM2Ancestral, DPMpp2SAncestral, DPMpp2MSDE, DPMpp3MSDE, DPMppSDE])
def test_any_fresh_noise_leaves_order_one(solver: type[Solver]) -> None:
    assert [solver(eta=eta).order for eta in (0.0, 1e-3, 1.0)] == [2, 1, 1]  # type: ignore[call-arg]


def test_the_corrector_adds_one_to_the_order_of_unipc() -> None:
    assert [UniPC(2, corrector_from=first).order for first in (0, 3, None)] == [3, 3, 2]
