"""Guiders of diffusers, met by guidon's rules where they stand in for them: between a pipeline and its network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import Attention
from parity.golden import Case, cases
from parity.test_guiders import SET, Run, check
from support.numbers import normal
from torch import Tensor, nn

from guidon.bridges.guide import Asked, Guide
from guidon.bridges.layout import Layout
from guidon.guidance import Rule

KINDS = {"x0": "sample", "eps": "epsilon", "v": "v_prediction"}


class Block(nn.Module):
    """Adds one."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + 1


class Scripted(nn.Module):
    """Answers with what it was handed; weakened in any way it answers with something else."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(4, heads=1, dim_head=4).double()
        self.transformer_blocks = nn.ModuleList([Block()])
        self.mark = torch.arange(12.0, dtype=torch.float64).sin().reshape(1, 3, 4)
        self.weak: Tensor | None = None
        self.plain = self._seen()

    def _seen(self) -> Tensor:
        with torch.no_grad():
            seen: Tensor = self.attention(self.mark) + self.transformer_blocks[0](self.mark)
        return seen

    def forward(self, sample: Tensor, timestep: Tensor, answers: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        if torch.equal(self._seen(), self.plain):
            return (answers,)
        assert self.weak is not None
        return (self.weak,)


class InPipeline(Run):
    """The same calls, through a pipeline's question and answer."""

    def __init__(self, rule: Rule, space: str, steps: int) -> None:
        super().__init__(rule, space, steps)
        scheduler: Any = (
            FlowMatchEulerDiscreteScheduler() if space == "velocity" else DDIMScheduler(prediction_type=KINDS[space])
        )
        scheduler.set_timesteps(steps)
        self.network, self.weak_network = Scripted(), Scripted()
        self.layout = Layout(calls=self.calls)
        asked = Asked({"unet": self.weak_network}, None, {}, "joint", 0)
        self.guide = Guide(rule, scheduler, asked, layout=self.layout, negative=False, tick=lambda rows: None)
        self.time = scheduler.timesteps[0]

    calls: Any = "joint"

    def call(self, index: int, given: Tensor, null: Tensor, weak: Tensor | None) -> Tensor:
        """Return what the pipeline makes of what it is told at a step."""
        weak_answer = null if weak is None else weak
        self.network.weak = weak_answer
        if self.guide.clock.position is not None:
            self.guide.clock.position = index
        x = normal(*given.shape, seed=index)
        states = x if self.calls == "twice" else torch.cat((x, x))
        moment = self.at(index)
        self.asked = len(self.rule.branches(moment, self.guide.state))
        self.weak_network.forward = lambda **words: (weak_answer,)  # type: ignore[method-assign]
        if self.calls == "twice":
            (c,) = self._answer(states, given)
            (u,) = self._answer(states, null)
            guided = u + 2 * (c - u)
        else:
            (both,) = self._answer(states, torch.cat((null, given)))
            u, c = both.chunk(2)
            guided = u + 7.5 * (c - u)
        self.guide.stepped((x,))
        self.state = self.guide.state
        return guided

    def _answer(self, states: Tensor, answers: Tensor) -> Any:
        own = self.network._call_impl
        return self.guide.answer("unet", self.network, own, (states, self.time, answers), {"return_dict": False})


class InTurn(InPipeline):
    """A pipeline that asks twice."""

    calls = "twice"


@pytest.mark.parametrize("kind", [InPipeline, InTurn], ids=["joint", "twice"])
@pytest.mark.parametrize("case", cases(SET, kind="guider"))
def test_guider_in_a_pipeline(case: Case, kind: type[Run]) -> None:
    for space in ("eps", "x0", "v", "velocity"):
        check(case, space, kind)
