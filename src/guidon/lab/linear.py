"""What guidance is made of under linear beliefs: amplified directions, suppressed ones, and a shift of the mean.

With A = Sigma (Sigma + tau^2 I)^-1 at noise level tau, and c for the class, u for no class,

    D_c - D_u = (A_c - A_u)(z - mu_c) + (I - A_u)(mu_c - mu_u),    z = x / alpha.

Along eigenvectors of A_c - A_u with positive values guidance stretches what sets the class apart; along those with negative
values it shrinks what is more typical of all; the last term moves every image alike.

Source: Li, Wang & Qu, arXiv 2505.19210, sections 3 and 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guidon.errors import ShapeMismatch, UnknownName
from guidon.guidance.rule import GIVEN, About, Branch, Guided, Moment, Predictions, Rule, State
from guidon.lab.gaussian import Gaussian, Gaussians
from guidon.lab.mixture import NULL_LABEL

PARTS = ("positive", "negative", "mean")


def shrinkage(gaussian: Gaussian, noise_level: float) -> Tensor:
    """Return the eigenvalues (D,) of A, in [0, 1], along the axes of a Gaussian."""
    return gaussian.variances / (gaussian.variances + noise_level**2)


def gains(variances: Tensor, variances_all: Tensor, weight: float, start: float, end: float = 0.0) -> Tensor:
    """Return how much guidance stretches each common axis by the end of the ODE, relative to no guidance (w = 1).

    Args:
        variances: (D,) of the class, along axes that its covariance shares with that of no class.
        variances_all: (D,) of no class.
        weight: w; the paper's gamma is w - 1.
        start, end: the noise levels of the run.

    Source: arXiv 2505.19210, theorem 1.
    """
    quotient = (variances + end**2) / (variances_all + end**2)
    at_start = (variances + start**2) / (variances_all + start**2)
    return (quotient / at_start) ** ((weight - 1) / 2)


@dataclass(frozen=True, eq=False)
class Split:
    """D_c - D_u at one noise level.

    Args:
        values: (D,) eigenvalues of A_c - A_u, in (-1, 1).
        axes: (D, D), a column for each eigenvector; None: the axes of the flattened state.
        centre: (D,) the mean of the class.
        shift: (D,) the shift of the mean, (I - A_u)(mu_c - mu_u).
    """

    values: Tensor
    axes: Tensor | None
    centre: Tensor
    shift: Tensor

    def part(self, name: str, z: Tensor) -> Tensor:
        """Return one of `PARTS` of D_c - D_u at states ``z`` = x / alpha (B, *shape); together they are all of it.

        Raises:
            UnknownName: there is no such part.
        """
        _known(name)
        if name == "mean":
            return self.shift.reshape(1, *z.shape[1:]).expand_as(z)
        values = self.values.clamp_min(0) if name == "positive" else self.values.clamp_max(0)
        away = z.flatten(1) - self.centre
        stretched = away * values if self.axes is None else (away @ self.axes * values) @ self.axes.T
        return stretched.reshape(z.shape)


class Difference:
    """How the Gaussian of a class differs from that of no class, at every noise level.

    With full covariances a noise level costs an eigendecomposition, seconds at 3072 dimensions, and its axes are kept for the
    next time.

    Args:
        gaussians: the beliefs.
        label: the class.
    """

    def __init__(self, gaussians: Gaussians, label: int) -> None:
        self.given, self.null = gaussians[label], gaussians[NULL_LABEL]
        if (self.given.axes is None) != (self.null.axes is None):
            raise ShapeMismatch("one Gaussian has variances and the other covariances; give both the same way")
        self._splits: dict[float, Split] = {}

    def at(self, noise_level: float) -> Split:
        """Return the parts of D_c - D_u at a noise level > 0, which may be infinite."""
        if noise_level not in self._splits:
            self._splits[noise_level] = self._split(noise_level)
        return self._splits[noise_level]

    def _split(self, noise_level: float) -> Split:
        given, null = shrinkage(self.given, noise_level), shrinkage(self.null, noise_level)
        apart = (self.given.mean - self.null.mean).flatten()
        shift = apart - self.null.back(self.null.turned(apart[None]) * null)[0]
        values, axes = given - null, None
        if self.given.axes is not None and self.null.axes is not None:
            values, axes = torch.linalg.eigh(
                (self.given.axes * given) @ self.given.axes.T - (self.null.axes * null) @ self.null.axes.T
            )
        return Split(values, axes, self.given.mean.flatten(), shift)


@dataclass(frozen=True, eq=False)
class LinearGuidance(Rule):
    """What a network believes given the class, and chosen parts of the guidance of a Gaussian model on top.

    One evaluation a step. With every part, over the beliefs of the Gaussian model itself, it is cfg of the same weight.

    Args:
        difference: the Gaussian model.
        weight: w, 1 is plain conditional.
        parts: those of `PARTS` to apply.

    Raises:
        UnknownName: there is no such part.

    Source: Li, Wang & Qu, arXiv 2505.19210, section 4.
    """

    about: ClassVar[About] = About(
        formula="D = D_c + (w - 1) parts of [(A_c - A_u)(z - mu_c) + (I - A_u)(mu_c - mu_u)]",
        cost="1, and a product with a matrix of the size of an image",
    )

    difference: Difference
    weight: float
    parts: tuple[str, ...] = PARTS

    def __post_init__(self) -> None:
        for name in self.parts:
            _known(name)

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return (GIVEN,)

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        belief, split = predictions[GIVEN], self.difference.at(at.noise_level)
        if math.isinf(at.noise_level):  # A x / alpha vanishes there
            moved = split.shift.reshape(1, *belief.x.shape[1:]) * float("mean" in self.parts)
        else:
            z = belief.x.double() / float(at.here.alpha)
            moved = sum((split.part(name, z) for name in self.parts), torch.zeros_like(z))
        return Guided.plain(belief.moved("x0", ((self.weight - 1) * moved).to(belief.x.dtype))), state


def _known(name: str) -> None:
    if name not in PARTS:
        raise UnknownName("part of guidance", name, PARTS)
