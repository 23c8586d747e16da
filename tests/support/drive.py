"""Ways to run solvers: one by hand over any moments, and whole trajectories through the engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.guidance import Branch, Guided, Moment, Rule
from guidon.noise import Level
from guidon.sampling import Denoises, Engine, Trajectory
from guidon.solvers import Solver
from guidon.solvers.solver import Ask, Noise

Believe = Callable[[Tensor, Moment], Guided]


def no_noise() -> Tensor:
    raise AssertionError("a deterministic solver drew noise")


def moments(levels: Sequence[Level]) -> list[Moment]:
    """Return the steps along ``levels``."""
    steps = len(levels) - 1
    return [Moment(levels[i], levels[i + 1], i, steps) for i in range(steps)]


def guided_by(rule: Rule, network: Denoises, contexts: Mapping[str, Context]) -> Believe:
    """Return what a memoryless rule makes of a network's beliefs."""

    def believe(x: Tensor, at: Moment) -> Guided:
        def ask(branch: Branch):  # type: ignore[no-untyped-def]
            return network(x, at.here, contexts[branch.condition])

        return rule.combine({branch: ask(branch) for branch in rule.branches(at, rule.init())}, at, rule.init())[0]

    return believe


def turned(guided: Guided, x: Tensor, at: Moment) -> Guided:
    """Return what CFG++ tells on the way from image to noise, its two halves exchanged; other rules tell the same."""
    if guided.noise_x0 is None:
        return guided
    return Guided(guided.noise_x0, (x - at.here.alpha * guided.x0) / at.here.sigma)


def drive(
    solver: Solver,
    steps: Sequence[Moment],
    x: Tensor,
    believe: Believe,
    noise: Noise = no_noise,
    forget_before: Collection[int] = (),
) -> tuple[list[Tensor], list[Ask]]:
    """Run a solver by hand over moments that need not form a chain.

    Args:
        forget_before: steps before which the solver's carry is thrown away.

    Returns:
        The states (the start and after each step), and everything that was asked.
    """
    carry, states, asked = solver.init(), [x], []
    for i, at in enumerate(steps):
        step = solver.step(states[-1], at, solver.init() if i in forget_before else carry, noise)
        ask = next(step)
        while True:
            asked.append(Ask(ask.x.clone(), ask.at, ask.plain, ask.advance))
            try:
                ask = step.send(believe(ask.x, ask.at))
            except StopIteration as end:
                state, carry = end.value
                states.append(state.clone())
                break
    return states, asked


def sample(
    network: Denoises,
    levels: Sequence[Level],
    solver: Solver,
    rule: Rule,
    x: Tensor,
    contexts: Mapping[str, Context],
    noise: Noise = no_noise,
    **engine: object,
) -> Tensor:
    """Run one trajectory through an engine of its own."""
    trajectory = Trajectory(x, levels, solver, rule, contexts, noise)
    return Engine({"main": network}, **engine).run([trajectory])[0]  # type: ignore[arg-type]
