"""What the engine tells a solver at given states, against beliefs by hand."""

from __future__ import annotations

import pytest
import torch

from guidon.errors import NotSupported
from guidon.guidance.cfg import CFG
from guidon.guidance.energy import ClassifierGuidance
from guidon.lab.guided import guided
from guidon.lab.mixture import Exact, ExactClassifier, told
from guidon.lab.plane import mixture
from guidon.noise import Cosine, Level


def test_it_is_what_the_rule_says() -> None:
    truth, level = mixture(), Cosine().level_at(0.7)
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.ones(5)
    given, null = (truth.believe(x, level.alpha, level.sigma, k)[1].detach() for k in (labels, labels * 0 - 1))
    (gradient,) = torch.autograd.grad(truth.log_posterior(x, level, labels).sum(), x)
    networks = {"main": Exact(truth), "classifier": ExactClassifier(truth)}
    free = guided(networks, CFG(3.0), x.detach(), level, told(labels)).eps
    classified = guided(networks, ClassifierGuidance(3.0), x.detach(), level, told(labels)).eps
    torch.testing.assert_close(free, null + 3 * (given - null))
    torch.testing.assert_close(classified, null - 3 * level.sigma * gradient)


def test_levels_by_hand_are_refused() -> None:
    with pytest.raises(NotSupported, match="by hand"):
        guided({}, CFG(3.0), torch.zeros(1, 1), Level(0.5, 0.8, 0.6), told([0]))
