"""The plane in which any rule finds what it asks for: each part of it is what it says."""

from __future__ import annotations

import math

import pytest
import torch

from guidon.conditioning.condition import Context
from guidon.guidance import CFG, Autoguidance
from guidon.lab.mixture import told
from guidon.lab.plane import CLASS, CLASSES, PERTURBED, WEIGHTS, WORSE, Plane, Weakenable, mixture
from guidon.noise import EDM
from guidon.noise.grids import Karras
from guidon.perturbation import Perturbation
from guidon.solvers import DDPM, Euler

LEVEL = EDM().level_at(0.6)
X = torch.tensor([[0.2, -0.1], [1.0, 0.4], [-0.8, -0.9]], dtype=torch.float64)


def test_classes_weigh_as_their_components() -> None:
    drawn = mixture().sample(20000, -1, torch.Generator().manual_seed(0))
    clean = EDM().clean
    for label in range(CLASSES):
        share = mixture().log_posterior(drawn, clean, torch.full((len(drawn),), label)).exp().mean()
        stated = sum(weight for weight, own in zip(WEIGHTS, CLASS, strict=True) if own == label)
        assert abs(float(share) - stated) < 0.012
    one = mixture(classes=range(len(CLASS)))
    assert math.isclose(float(one.log_weights[4].exp()), WEIGHTS[4])


def test_components_lie_along_their_axes() -> None:
    first = mixture()
    cov = first.axes[0] @ first.variances[0].diag() @ first.axes[0].T
    long, short, angle = 0.36**2, 0.17**2, 0.5
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert math.isclose(float(direction @ cov @ direction), long, rel_tol=1e-12)
    assert math.isclose(float(cov.trace()), long + short, rel_tol=1e-12)
    torch.testing.assert_close(mixture(3.0).variances, 3 * first.variances)


@pytest.mark.parametrize("name", ["attention-identity", "query-blur", "skip", "time-noise"])
def test_a_perturbed_row_is_a_worse_model_and_the_others_are_exact(name: str) -> None:
    labels = torch.tensor([0, 1, -1])
    network = Weakenable()
    network.check(Perturbation(name))
    found = network(X, LEVEL, told(labels)["given"], ((Perturbation(name), slice(1, 3)),))
    exact, worse = (mixture(by).believe(X, LEVEL.alpha, LEVEL.sigma, labels) for by in (1.0, PERTURBED))
    for got, right, wrong in zip((found.x0, found.eps), exact, worse, strict=True):
        torch.testing.assert_close(got, torch.cat([right[:1], wrong[1:]]))
    assert found.inner is not None
    torch.testing.assert_close(found.inner.x0, worse[0])


def test_a_blurred_class_is_the_nearest_one() -> None:
    blurred = Context(vector=torch.tensor([[0.6], [2.9], [-3.0]], dtype=torch.float64))
    exact = mixture().believe(X, LEVEL.alpha, LEVEL.sigma, torch.tensor([1, 2, -1]))[0]
    torch.testing.assert_close(Weakenable()(X, LEVEL, blurred).x0, exact)


def test_conditions_are_the_other_classes() -> None:
    contexts = Plane(2).contexts(4)
    labels = {name: told.vector[:, 0].tolist() for name, told in contexts.items() if isinstance(told, Context)}
    assert labels["given"] == [2.0] * 4 and labels["null"] == [-1.0] * 4
    assert labels["negative"] == [0.0] * 4 and labels["negative-2"] == [1.0] * 4
    random = contexts["random"]
    assert callable(random) and {float(random(step).vector[0, 0]) for step in range(6)} == {0.0, 1.0}


def test_a_step_of_autoguidance_goes_away_from_the_worse_network() -> None:
    levels = Karras(7.0, 0.1, 2.0).levels(EDM(), 3)[:2]
    end = Plane(1).run(Autoguidance(2.5), Euler(), levels, X, range(3)).x
    given, weak = (mixture(by).believe(X, 1.0, levels[0].sigma, torch.tensor([1, 1, 1]))[1] for by in (1.0, WORSE))
    torch.testing.assert_close(end, X + (weak + 2.5 * (given - weak)) * (levels[1].sigma - levels[0].sigma))


def test_the_noise_of_a_point_is_that_of_its_seed() -> None:
    levels = Karras(7.0, 0.1, 2.0).levels(EDM(), 4)
    both = Plane().run(CFG(2.0), DDPM(), levels, X[:2], [5, 9]).x
    alone = Plane().run(CFG(2.0), DDPM(), levels, X[1:2], [9]).x
    torch.testing.assert_close(both[1:], alone)
    other = Plane().run(CFG(2.0), DDPM(), levels, X[1:2], [8]).x
    assert not torch.allclose(other, alone, atol=1e-3)
