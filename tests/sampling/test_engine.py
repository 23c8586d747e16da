"""The engine: many trajectories in one run are what each is alone, in as few forwards as their shapes allow."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import pytest
import torch
from support.drive import sample
from support.examples import solvers
from support.mixtures import Exact, field, plane, told
from support.numbers import agree, normal
from torch import Tensor

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported, NumericalError, ShapeMismatch
from guidon.guidance import CFG, FBG, Autoguidance, Branch, CosineWeight, Guided, Interval, Moment, Rule
from guidon.noise import EDM, Cosine, Flow, Level, Prediction, VPTable
from guidon.noise.grids import Karras, LogSNR
from guidon.sampling import Engine, PerImageNoise, Query, RecordedNoise, RecordingNoise, Trajectory
from guidon.solvers import (
    DDIM,
    DPM2,
    PCG,
    Churn,
    DPMpp2M,
    DPMppSDE,
    Euler,
    EulerAncestral,
    Heun,
    Langevin,
    Solver,
)

RULES = [CFG(1.0), CFG(0.0), CFG(4.0), CFG(2.0, when=Interval(0.3, 3)), CFG(CosineWeight(1, 6))]
PROCESSES = [EDM(), Cosine(), Flow(), VPTable()]
SHAPE = (2, 3, 3)


def request(i: int) -> Trajectory:
    """Return one of many different trajectories; the same for the same number."""
    pick = random.Random(i)
    solver, rule, process = pick.choice(solvers()), pick.choice(RULES), pick.choice(PROCESSES)
    levels = pick.choice([Karras, LogSNR])(sigma_min=0.02, sigma_max=pick.choice([5.0, 20.0])).levels(
        process, pick.randint(1, 9)
    )
    levels = levels[pick.randint(0, len(levels) - 2) :]  # some begin half-way, as edits do
    seeds = [pick.randrange(2**32) for _ in range(pick.randint(1, 4))]
    noise = PerImageNoise(seeds, SHAPE, dtype=torch.float64)
    labels = [pick.choice([-1, 0, 1]) for _ in seeds]
    return Trajectory(levels[0].sigma * noise(), levels, solver, rule, told(labels), noise)


@pytest.mark.parametrize("options", [{}, {"batching": "sequential"}, {"max_batch": 3}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_joining_and_leaving_at_any_round(seed: int, options: dict[str, object]) -> None:
    pick, count = random.Random(seed), 14
    network = Exact(field(), fraction=0.3)
    engine, waiting, joined, left = Engine({"main": network}, **options), list(range(count)), {}, {}  # type: ignore[arg-type]
    while waiting or engine.live:
        for _ in range(pick.randint(0, 3)):
            if waiting:
                number = waiting.pop()
                joined[number] = request(number)
                engine.join(joined[number])
        if engine.live and pick.random() < 0.1:
            gone = pick.choice(engine.live)
            engine.leave(gone)
            left[next(n for n, run in joined.items() if run is gone)] = gone
        live, forwards = list(engine.live), network.forwards
        engine.round()
        if live and not options:
            assert network.forwards == forwards + 1  # all shapes agree
    assert len(left) < count
    for number, run in joined.items():
        assert run.done != (number in left)
        if run.done:
            alone = Engine({"main": Exact(field(), fraction=0.3)}).run([request(number)])[0]
            agree(run.x, alone, f"request {number}", rtol=1e-9, atol=1e-9)
    assert engine.forwards == network.forwards
    assert engine.rows == network.rows == sum(run.nfe * run.x.shape[0] for run in joined.values())


def test_a_trajectory_that_left_can_go_on_later() -> None:
    run, engine = run_of(CFG(3.0), DPMpp2M()), Engine({"main": Exact(plane())})
    engine.join(run)
    engine.join(run)  # already there
    engine.round()
    assert run.index == 1
    engine.leave(run)
    engine.leave(run)
    engine.run([run_of(CFG(1.0))])
    assert run.index == 1
    got = engine.run([run])[0]
    agree(got, Engine({"main": Exact(plane())}).run([run_of(CFG(3.0), DPMpp2M())])[0], "images")
    engine.leave(run)


def test_runs_only_what_it_is_given() -> None:
    engine = Engine({"main": Exact(field(), fraction=0.3)})
    assert engine.run([]) == []
    engine.round()
    assert engine.forwards == 0
    finished = request(3)
    engine.run([finished])
    assert engine.run([finished])[0] is finished.x
    assert engine.live == []


def test_groups_by_shape_dtype_and_context() -> None:
    """Only what one forward can take goes together; token sequences of different lengths can."""
    seen: list[int] = []

    def network(x: Tensor, level: Level, context: Context) -> Prediction:
        seen.append(len(x))
        return Prediction(x, level, 0 * x, x)

    def run(x: Tensor, context: Context) -> Trajectory:
        return Trajectory(x, [EDM().level(1.0), EDM().clean], Euler(), CFG(1.0), {"given": context}, lambda: x)

    tokens = [Context(tokens=torch.zeros(1, n, 4)) for n in (3, 5)]
    runs = [
        run(normal(2, 1, 4, 4), told([0, 1])["given"]),
        run(normal(3, 1, 4, 4), told([0, 1, 1])["given"]),
        run(normal(1, 1, 8, 8), told([0])["given"]),
        run(normal(1, 1, 4, 4).float(), told([0])["given"]),
        run(normal(1, 1, 4, 4), tokens[0]),
        run(normal(1, 1, 4, 4), tokens[1]),
        run(normal(1, 1, 4, 4), Context()),
    ]
    Engine({"main": network}).run(runs)
    assert sorted(seen) == [1, 1, 1, 2, 5]


@dataclass(frozen=True)
class Compare(Rule):
    """Counts its steps in its state; asks two networks."""

    def init(self) -> int:
        return 0

    def branches(self, at: Moment, state: object) -> tuple[Branch, ...]:
        return Branch("given"), Branch("given", network="weak")

    def combine(self, predictions: dict[Branch, Prediction], at: Moment, state: int) -> tuple[Guided, int]:
        assert state == at.index  # both evaluations of a step start from the state before it
        main, weak = (predictions[branch] for branch in self.branches(at, state))
        return Guided(2 * main.x0 - weak.x0, 2 * main.eps - weak.eps), state + 1


def run_of(rule: Rule, solver: object = Heun(), steps: int = 5, x: Tensor | None = None) -> Trajectory:
    levels = LogSNR(0.02, 20.0).levels(EDM(), steps)
    return Trajectory(20 * normal(2, 2) if x is None else x, levels, solver, rule, told([0, 1]), lambda: normal(2, 2))  # type: ignore[arg-type]


def test_several_networks_and_rule_state() -> None:
    main, weak = Exact(plane()), Exact(plane())
    engine = Engine({"main": main, "weak": weak})
    both = engine.run([run_of(Compare())])[0]
    agree(both, Engine({"main": main}).run([run_of(CFG(1.0))])[0], "images")  # the same network twice
    assert (weak.forwards, engine.forwards, engine.rows) == (9, 18, 36)


def test_missing_network_is_refused() -> None:
    with pytest.raises(NotSupported, match=r"'weak'.*main"):
        Engine({"main": Exact(plane())}).run([run_of(Compare())])


def test_missing_condition_is_refused_before_any_forward() -> None:
    contexts, levels = {"given": told([0, 1])["given"]}, LogSNR(0.02, 20.0).levels(EDM(), 5)
    with pytest.raises(NotSupported, match=r"'null'.*given"):
        Trajectory(normal(2, 2), levels, Euler(), CFG(3.0), contexts, lambda: normal(2, 2))
    assert Trajectory(normal(2, 2), levels, Euler(), CFG(1.0), contexts, lambda: normal(2, 2)).queries


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_reported(value: float) -> None:
    def broken(x: Tensor, level: Level, context: Context) -> Prediction:
        return Prediction(x, level, x * value, x)

    with pytest.raises(NumericalError, match="NaN or infinity"):
        Engine({"main": broken}).run([run_of(CFG(3.0))])


def test_wrong_batch_of_weights() -> None:
    with pytest.raises(ShapeMismatch, match="3 weights for 2 images"):
        Engine({"main": Exact(plane())}).run([run_of(CFG([1.0, 2.0, 3.0]))])


def test_bad_settings() -> None:
    for options in ({"batching": "maybe"}, {"max_batch": 0}, {"precision": "fp16"}):
        with pytest.raises(BadValue):
            Engine({}, **options)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="two levels"):
        Trajectory(normal(2, 2), [EDM().clean], Euler(), CFG(1.0), told([0, 1]), lambda: normal(2, 2))


def test_progress_and_preview() -> None:
    run, engine = run_of(CFG(2.0), Heun(), 4), Engine({"main": Exact(plane())})
    engine.join(run)
    indices = []
    while not run.done:
        assert all(isinstance(query, Query) and query.x.shape == run.x.shape for query in run.queries)
        engine.round()
        indices.append(run.index)
        assert run.x0.abs().max() < 20
    assert indices == [0, 1, 1, 2, 2, 3, 4]
    agree(run.x0, run.x, "the last estimate is the image")


@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMpp2M(), DDIM(0.5)], ids=str)
def test_states_are_not_overwritten(solver: object) -> None:
    """What a query holds stays as it was when it was asked; a solver may reuse only what it made itself."""
    run, engine = run_of(CFG(2.0), solver, 6), Engine({"main": Exact(plane())})
    engine.join(run)
    kept = []
    while not run.done:
        kept += [(query.x, query.x.clone()) for query in run.queries]
        kept.append((run.x, run.x.clone()))
        engine.round()
        kept.append((run.x0, run.x0.clone()))
    assert all(torch.equal(now, then) for now, then in kept)


def test_no_gradients_are_kept() -> None:
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def network(x: Tensor, level: Level, context: Context) -> Prediction:
        return Prediction(x, level, x * 0.1 * weight, x * weight)

    assert not Engine({"main": network}).run([run_of(CFG(2.0))])[0].requires_grad


def test_noise_is_a_function_of_the_seed_alone() -> None:
    seeds = [3, 2**32 - 1, 0]
    together = PerImageNoise(seeds, (2, 4))
    draws = [together() for _ in range(3)]
    for i, seed in enumerate(seeds):
        alone = PerImageNoise([seed], (2, 4))
        assert all(torch.equal(alone()[0], draw[i]) for draw in draws)
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0][0], draws[0][1])
    many = PerImageNoise(range(3000), (3,))()
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.03
    half = PerImageNoise(seeds, (2, 4), dtype=torch.bfloat16)()
    assert torch.equal(half, draws[0].bfloat16())
    for bad in (-1, 2**32):
        with pytest.raises(BadValue, match="seed"):
            PerImageNoise([bad], (2,))


def test_a_recorded_run_can_be_replayed() -> None:
    levels = LogSNR(0.02, 20.0).levels(EDM(), 5)
    kept = RecordingNoise(PerImageNoise([3, 4], SHAPE, dtype=torch.float64))
    ends = []
    for noise in (kept, RecordedNoise(kept.draws)):
        x = 20 * noise()
        ends.append(sample(Exact(field()), levels, EulerAncestral(), CFG(2.0), x, told([0, 1]), noise))
    assert torch.equal(*ends)
    assert len(kept.draws) == 5  # the start, and every step but the one to the clean image


def test_recorded_noise_runs_out() -> None:
    noise = RecordedNoise([torch.ones(1)])
    assert noise().item() == 1
    with pytest.raises(BadValue, match="more noise than was recorded"):
        noise()


def test_global_randomness_is_left_alone() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    for number in itertools.islice(itertools.count(), 5):
        Engine({"main": Exact(field(), fraction=0.3)}).run([request(number)])
    assert torch.equal(torch.get_rng_state(), before)


@dataclass(frozen=True)
class FailsAt(Euler):
    """Fails in one of its steps."""

    index: int = 2

    def step(self, x: Tensor, at: Moment, carry: object, noise: object) -> object:
        if at.index == self.index and x.numel() > 1:  # on images; a rehearsal finds nothing wrong
            raise ValueError("broken")
        return super().step(x, at, carry, noise)  # type: ignore[arg-type]


def test_one_that_fails_leaves_and_the_others_go_on() -> None:
    broken, whole = run_of(CFG(3.0), FailsAt()), run_of(CFG(3.0), Euler())
    alone = Engine({"main": Exact(plane())}).run([run_of(CFG(3.0), Euler())])[0]
    engine = Engine({"main": Exact(plane())})
    engine.join(broken)
    engine.join(whole)
    engine.round()
    with pytest.raises(ValueError, match="broken"):
        engine.round()
    assert (broken.failed, broken.done, engine.live) == (True, False, [whole])
    while not whole.done:
        engine.round()
    agree(whole.x, alone, "the image of the one that went on")
    with pytest.raises(BadValue, match="start a new one"):
        engine.join(broken)


@pytest.mark.parametrize(
    "solver",
    [Heun(0.5), Heun(clock=Flow(), alpha=0.3), DPMppSDE(r=0.2), DPM2(), Churn(Euler(), 4.0), Langevin(2)],
    ids=str,
)
def test_what_a_step_asks_between_levels_is_known_before_the_first(solver: Solver) -> None:
    """Guidance opens only where no level is; the null condition is asked for there, and missing."""
    levels = [EDM().level(tau) for tau in (4.0, 1.0, 0.25)]
    plain = Trajectory(4 * normal(2, 2), levels, solver, CFG(1.0), told([0, 1]), lambda: normal(2, 2))
    engine, asked = Engine({"main": Exact(plane())}), []
    engine.join(plain)
    while not plain.done:
        asked.append(plain.queries[0].level.noise_level)
        engine.round()
    for tau in {tau for tau in asked if all(abs(tau - level.noise_level) > 1e-9 for level in levels[:-1])}:
        rule = CFG(3.0, when=Interval(tau * (1 - 1e-6), tau * (1 + 1e-6)))
        with pytest.raises(NotSupported, match="null"):
            Trajectory(4 * normal(2, 2), levels, solver, rule, {"given": told([0, 1])["given"]}, lambda: normal(2, 2))


def test_a_rule_that_follows_the_path_refuses_solvers_that_ask_elsewhere() -> None:
    for solver in (Langevin(), PCG(), Churn(PCG())):
        for rule in (FBG(), CFG(2.0) | FBG()):
            with pytest.raises(NotSupported, match="choose another solver"):
                run_of(rule, solver)
    run_of(FBG(), Churn(Heun()))


def test_only_solvers_without_noise_go_up() -> None:
    up = [EDM().level(tau) for tau in (0.1, 1.0, 10.0)]
    for solver in solvers():
        make = lambda s=solver: Trajectory(normal(2, 2), up, s, CFG(1.0), told([0, 1]), lambda: normal(2, 2))  # noqa: E731
        if solver.stochastic:
            with pytest.raises(NotSupported, match="noisier"):
                make()
        else:
            end = Engine({"main": Exact(plane())}).run([make()])[0]
            assert torch.isfinite(end).all(), solver


def test_a_run_is_refused_as_a_whole_and_ends_when_its_trajectories_have_left() -> None:
    engine = Engine({"main": Exact(plane())})
    with pytest.raises(NotSupported, match="'weak'"):
        engine.run([run_of(CFG(2.0)), run_of(Autoguidance(2.0))])
    assert engine.live == []
    gone = run_of(CFG(2.0))
    levels = [EDM().level(s) for s in (3.0, 2.0, 1.0)]
    watcher = Trajectory(
        normal(1, 2), levels, Euler(), CFG(1.0), told([0]), normal, look_on=lambda _: engine.leave(gone)
    )
    engine.run([watcher, gone])
    assert watcher.done and not gone.done


def test_a_network_that_fails_fails_only_those_who_asked_it() -> None:
    def broken(x: Tensor, level: Level, context: Context) -> Prediction:
        raise RuntimeError("out of memory")

    engine = Engine({"main": Exact(plane()), "weak": broken})
    good, bad = run_of(CFG(3.0)), run_of(Autoguidance(2.0))
    engine.join(good)
    engine.join(bad)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.round()
    assert bad.failed and engine.live == [good]
    agree(engine.run([good])[0], Engine({"main": Exact(plane())}).run([run_of(CFG(3.0))])[0], "the other one")
