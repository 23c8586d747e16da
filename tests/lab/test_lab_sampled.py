"""A run of the engine in a known world: where it starts, whose noise it draws, what it ends with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from support import mixtures
from support.numbers import agree
from torch import Tensor

from guidon.errors import NotSupported
from guidon.guidance import CFG, Moment
from guidon.lab.mixture import Exact
from guidon.lab.sampled import AHEAD, sample
from guidon.noise import EDM, Cosine, Flow, Level, Process
from guidon.noise.grids import LogSNR
from guidon.registry import parse
from guidon.solvers import DDIM, DDPM, Ask, Solver
from guidon.solvers.solver import Carry, Noise, Step


@dataclass(frozen=True)
class Listens(Solver):
    """Keeps the state and hears every noise."""

    order = 1
    heard: list[Tensor] = field(default_factory=list, compare=False)

    def step(self, x: Tensor, at: Moment, carry: Carry, noise: Noise) -> Step:
        yield Ask(x, at)
        self.heard.append(noise())
        return x, carry


def listen(process: Process, labels: list[int], seeds: list[int], steps: int) -> tuple[Tensor, Tensor]:
    """Return the start of a run, and every draw of noise after it (draws, B, *shape)."""
    solver: Any = Listens()
    levels = LogSNR(sigma_min=0.1, sigma_max=20.0).levels(process, steps)
    start = sample(mixtures.field(), CFG(2.0), solver, levels, labels, seeds)
    return start, torch.stack(solver.heard)


@pytest.mark.parametrize("process", [EDM(), Cosine(), Flow()], ids=str)
def test_the_start_is_noise_of_the_first_level(process: Process) -> None:
    start, _ = listen(process, [0] * 400, list(range(400)), 1)
    scale = process.start_scale(process.level_at(20.0))
    assert start.shape == (400, 2, 3, 3)
    assert float(start.mean()) == pytest.approx(0, abs=0.05 * scale)
    assert float(start.std()) == pytest.approx(scale, rel=0.03)


def test_every_draw_is_new_and_of_its_seed_alone() -> None:
    steps = 3 * AHEAD // 18 + 2  # images of 18 numbers: more draws than are drawn ahead at once
    start, heard = listen(EDM(), [0, 1, 0], [7, 8, 9], steps)
    assert len(heard) == steps
    draws = torch.cat([start[None] / 20, heard]).flatten(2)  # (draws, images, 18)
    assert float(draws.std()) == pytest.approx(1, abs=0.06)
    everything = draws.flatten(0, 1)
    assert float((torch.corrcoef(everything) - torch.eye(len(everything))).abs().max()) < 0.98
    alone_start, alone = listen(EDM(), [1], [8], steps)
    assert torch.equal(alone_start[0], start[1]) and torch.equal(alone[:, 0], heard[:, 1])


def test_images_are_those_of_the_rule_and_of_their_labels() -> None:
    levels = LogSNR(sigma_min=0.02, sigma_max=40.0).levels(EDM(), 40)
    mixture = mixtures.field()
    x = sample(mixture, CFG(1.0), DDPM(), levels, [0] * 150 + [1] * 150, range(300))
    for label, mine in ((0, x[:150]), (1, x[150:])):
        want = mixture.sample(4000, label, torch.Generator().manual_seed(1))
        agree(mine.mean(0), want.mean(0), f"class {label}", atol=0.35)
        sure = mixture.log_posterior(mine, levels[-1], torch.full((150,), label))
        assert float(sure.exp().mean()) > 0.97


def test_a_start_may_be_given_and_networks_added() -> None:
    levels = LogSNR(sigma_min=0.1, sigma_max=2.0).levels(EDM(), 3)
    start = torch.ones(2, 2, 3, 3, dtype=torch.float64)
    weak = Exact(mixtures.field())
    x = sample(
        mixtures.field(), parse("rule", "autoguidance(2)"), DDIM(), levels, [0, 1], [0, 1], {"weak": weak}, start
    )
    assert weak.forwards == 3
    agree(x, sample(mixtures.field(), CFG(1.0), DDIM(), levels, [0, 1], [5, 6], start=start), "same networks, no pull")


def test_what_cannot_be_done_is_refused() -> None:
    levels = [Level(1.0, 1.0, 1.0), Level(0.0, 1.0, 0.0)]
    with pytest.raises(NotSupported, match="make them with a grid"):
        sample(mixtures.field(), CFG(1.0), DDIM(), levels, [0], [0])
    with pytest.raises(NotSupported, match="blurs conditions"):
        sample(mixtures.field(), parse("rule", "cfg(2) | cads"), DDIM(), LogSNR().levels(EDM(), 3), [0], [0])
