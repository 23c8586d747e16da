"""Which times of a table training visits: those where the loss is large more often, each visit then counting less."""

from __future__ import annotations

import torch
from torch import Tensor

from guidon.training.batches import random_for

HISTORY = 10  # losses that are remembered of every time
UNIFORM = 0.001  # part of the visits that is spread evenly, so that no time is forgotten


class ImportanceTimes:
    """Draws times with a probability proportional to the root of the mean square of their last losses.

    Every loss counts by 1 / (T p), so that its mean stays that of T equally likely times, with less variance. Until there are
    enough losses of every time all are equally likely.

    Args:
        steps: length T of the table, >= 1.
        stratified: as in `Process.sample_times`.

    Attributes:
        losses: the last losses of every time, float64 (T, 10), in no order.
        seen: how many losses there were of every time, int64 (T,).

    Source: Nichol & Dhariwal, arXiv 2102.09672, eq. 18; improved-diffusion's ``LossSecondMomentResampler``.
    """

    def __init__(self, steps: int, stratified: bool = True) -> None:
        self.stratified = stratified
        self.losses = torch.zeros(steps, HISTORY, dtype=torch.float64)
        self.seen = torch.zeros(steps, dtype=torch.long)

    @property
    def probabilities(self) -> Tensor:
        """The probability of every time, float64 (T,)."""
        steps = len(self.seen)
        even = torch.full((steps,), 1 / steps, dtype=torch.float64)
        sizes = self.losses.square().mean(1).sqrt()
        if int(self.seen.min()) < HISTORY or not sizes.sum() > 0:
            return even
        return (1 - UNIFORM) * sizes / sizes.sum() + UNIFORM * even

    def draw(self, n: int, *, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Draw times (n,) and what their losses count (n,), both float64: a function of seed, step and what was seen.

        Args:
            n: images of the whole batch, over all processes.
            seed, step: of the run.
        """
        chance = random_for("times", seed, step)
        u = chance.random(n)
        if self.stratified:
            u = (chance.permutation(n) + u) / n
        p = self.probabilities
        times = torch.searchsorted(p.cumsum(0), torch.from_numpy(u), right=True).clamp(max=len(p) - 1)
        return times.double(), 1 / (len(p) * p[times])

    def update(self, times: Tensor, losses: Tensor) -> None:
        """Remember the losses (n,) of the times (n,) of a whole batch, before they were weighed."""
        for time, loss in zip(times.long().tolist(), losses.tolist(), strict=True):
            self.losses[time, int(self.seen[time]) % HISTORY] = loss
            self.seen[time] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was seen."""
        return {"losses": self.losses, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it up."""
        self.losses.copy_(state["losses"])
        self.seen.copy_(state["seen"])
