"""A finite set is a mixture without widths."""

from __future__ import annotations

import time

import pytest
import torch
from support.mixtures import Exact, ExactClassifier, Mixture, told
from support.numbers import agree, f64, normal

from guidon.errors import BadValue, DataError, ShapeMismatch
from guidon.guidance import CFG, ClassifierGuidance
from guidon.lab import Empirical, empirical
from guidon.noise import EDM, Level
from guidon.noise.grids import Karras
from guidon.sampling import Engine, Trajectory
from guidon.solvers import Euler

POINTS, CLASSES = normal(12, 2, 3, seed=2), torch.tensor([2, 0, 1, 0, 2, 1, 1, 0, 2, 2, 0, 2])
LABELS = torch.tensor([0, -1, 2, 1, -1, 0, 2])


@pytest.fixture(params=["whole", "in chunks"])
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Empirical:
    if request.param == "in chunks":
        monkeypatch.setattr(empirical, "MOST", 26)
    return Empirical(POINTS, CLASSES)


def as_mixture() -> Mixture:
    return Mixture(torch.ones(12), POINTS, torch.zeros_like(POINTS), CLASSES)


@pytest.mark.parametrize("sigma", [0.02, 0.6, 40.0])
def test_beliefs(known: Empirical, sigma: float) -> None:
    x = 0.7 * POINTS[:7] + sigma * normal(7, 2, 3)
    for got, want in zip(
        known.believe(x, 0.7, sigma, LABELS), as_mixture().believe(x, 0.7, sigma, LABELS), strict=True
    ):
        agree(got, want, "belief", rtol=1e-8, atol=1e-9)


def test_a_noise_level_for_each_state(known: Empirical) -> None:
    x, alpha, sigma = normal(7, 2, 3), torch.linspace(0.2, 1, 7), torch.linspace(0.9, 0.1, 7)
    for got, want in zip(
        known.believe(x, alpha, sigma, LABELS), as_mixture().believe(x, alpha, sigma, LABELS), strict=True
    ):
        agree(got, want, "belief", rtol=1e-8, atol=1e-9)


def test_posterior(known: Empirical) -> None:
    x, level = normal(7, 2, 3).requires_grad_(), Level(0.5, 0.8, 0.5)
    got, want = (truth.log_posterior(x, level, LABELS) for truth in (known, as_mixture()))
    agree(got, want, "log posterior", atol=1e-10)
    gradients = [torch.autograd.grad(log_p.sum(), x)[0] for log_p in (got, want)]
    agree(*gradients, "gradient", atol=1e-10)


def test_near_the_image_it_remembers() -> None:
    known = Empirical(POINTS, CLASSES)
    x0, _ = known.believe(POINTS + 1e-3 * normal(12, 2, 3), 1.0, 1e-3, torch.full((12,), -1))
    agree(x0, POINTS, "the nearest image", rtol=0, atol=1e-12)
    x0, _ = known.believe(1e4 * normal(1, 2, 3), 1.0, 1e4, torch.tensor([1]))
    agree(x0[0], POINTS[CLASSES == 1].mean(0), "the mean of the class", rtol=0, atol=1e-2)


def test_through_the_engine_classifier_guidance_is_cfg() -> None:
    known, labels = Empirical(POINTS, CLASSES), [0, 1, 2]
    levels, x = Karras(7.0, 0.3, 10.0).levels(EDM(), 6), 10 * normal(3, 2, 3)
    ends = []
    for rule in (CFG(2.5), ClassifierGuidance(2.5)):
        networks = {"main": Exact(known), "classifier": ExactClassifier(known)}
        ends.append(Engine(networks).run([Trajectory(x, levels, Euler(), rule, told(labels), lambda: x)])[0])  # type: ignore[dict-item]
    agree(*ends, "images", rtol=1e-8, atol=1e-8)


def test_thousands_of_images() -> None:
    images = normal(4000, 3, 16, 16).float()
    known = Empirical(images, torch.arange(4000) % 10)
    began = time.perf_counter()
    x0, eps = known.believe(images[:16] + normal(16, 3, 16, 16).float(), 1.0, 1.0, torch.arange(16) % 10)
    assert time.perf_counter() - began < 5
    assert x0.dtype == eps.dtype == torch.float32
    assert (x0 - images[:16]).abs().max() < 1e-3


def test_refusals() -> None:
    known = Empirical(POINTS, CLASSES)
    with pytest.raises(BadValue, match="noise level > 0"):
        known.believe(POINTS, 1.0, 0.0, CLASSES)
    with pytest.raises(BadValue, match=r"label 3; there are: \[-1, 0, 1, 2\]"):
        known.believe(POINTS[:1], 1.0, 1.0, torch.tensor([3]))
    with pytest.raises(DataError):
        Empirical(POINTS[:0], CLASSES[:0])
    with pytest.raises(ShapeMismatch, match="as many labels"):
        Empirical(POINTS, f64([0.0]))
