"""Gaussians: one is a mixture of one component, fitted ones have the moments of the images, and no class is its own."""

from __future__ import annotations

import pytest
import torch
from support.mixtures import Mixture, Pair
from support.numbers import agree, f64, normal

from guidon.errors import BadValue, DataError, ShapeMismatch
from guidon.lab import Gaussian, Gaussians

IMAGES, LABELS = normal(60, 2, 2, 2, seed=4) @ f64([[1.0, 0.4], [0.0, 0.6]]) + 0.5, torch.arange(60) % 3
ALPHA, SIGMA = 0.8, 0.5


def one(gaussian: Gaussian) -> Mixture:
    cov = (
        torch.diag(gaussian.variances)
        if gaussian.axes is None
        else gaussian.axes * gaussian.variances @ gaussian.axes.T
    )
    return Mixture(torch.ones(1), gaussian.mean.flatten()[None], cov[None], torch.tensor([0]))


@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_a_gaussian_is_a_mixture_of_one(full: bool) -> None:
    root = normal(8, 8, seed=1)
    gaussian = Gaussian.of(normal(2, 2, 2), root @ root.T if full else root[0].reshape(2, 2, 2).square())
    x, nobody = normal(5, 2, 2, 2), torch.full((5,), -1)
    for alpha, sigma in ((ALPHA, SIGMA), (f64([0.1, 0.3, 0.5, 0.7, 1.0]), f64([0.9, 0.8, 0.7, 0.6, 0.1]))):
        for got, want in zip(
            gaussian.believe(x, alpha, sigma), one(gaussian).believe(x.flatten(1), alpha, sigma, nobody), strict=True
        ):
            agree(got.flatten(1), want, "belief")
        agree(
            gaussian.log_density(x, alpha, sigma),
            one(gaussian).log_density(x.flatten(1), alpha, sigma, nobody),
            "log p",
        )
    points = gaussian.sample(50000, torch.Generator().manual_seed(0)).flatten(1)
    if full:
        agree(torch.cov(points.T), root @ root.T, "covariance of samples", rtol=0, atol=0.4)
    agree(points.mean(0), gaussian.mean.flatten(), "mean of samples", rtol=0, atol=0.06)


def test_fitted_moments() -> None:
    fitted = Gaussians.fit(IMAGES, LABELS)
    for label, images in ((0, IMAGES[LABELS == 0]), (2, IMAGES[LABELS == 2]), (-1, IMAGES)):
        gaussian = fitted[label]
        agree(gaussian.mean, images.mean(0), "mean")
        assert gaussian.axes is not None
        agree(
            gaussian.axes * gaussian.variances @ gaussian.axes.T,
            torch.cov(images.flatten(1).T),
            "covariance",
            atol=1e-9,
        )


def test_fewer_images_than_dimensions_leave_directions_without_width() -> None:
    fitted = Gaussians.fit(IMAGES[:8], LABELS[:8], classes=[0])
    assert (fitted[0].variances >= 0).all() and (fitted[0].variances > 1e-9).sum() == 2
    with pytest.raises(BadValue, match=r"label 1; there are: \[-1, 0\]"):
        fitted[1]


def test_no_class_is_a_gaussian_of_its_own() -> None:
    fitted, x = Gaussians.fit(IMAGES, LABELS), normal(4, 2, 2, 2).float()
    x0, eps = fitted.believe(x, f64([1.0, 0.5, 0.7, 0.2]), SIGMA, torch.tensor([1, -1, 0, 1]))
    assert x0.dtype == eps.dtype == torch.float32
    for row, (alpha, label) in enumerate(((1.0, 1), (0.5, -1), (0.7, 0), (0.2, 1))):
        for got, want in zip((x0, eps), fitted[label].believe(x[row : row + 1], alpha, SIGMA), strict=True):
            agree(got[row], want[0], f"row {row}", rtol=1e-5, atol=1e-6)


def test_a_pair_by_hand() -> None:
    pair = Pair(1.0, 0.5, -0.2, 0.9)
    x0, eps = pair.believe(f64([[0.4], [0.4]]), ALPHA, SIGMA, torch.tensor([0, -1]))
    for row, (mean, std) in enumerate(((1.0, 0.5), (-0.2, 0.9))):
        pull = (0.4 - ALPHA * mean) / (ALPHA**2 * std**2 + SIGMA**2)
        agree(x0[row], f64([mean + ALPHA * std**2 * pull]), "x0")
        agree(eps[row], f64([SIGMA * pull]), "eps")
    assert (pair.ratio, pair.gap) == (0.5 / 0.9, 1.2)


def test_refusals() -> None:
    with pytest.raises(ShapeMismatch, match="a covariance for the mean"):
        Gaussian.of(normal(3), normal(2, 2))
    with pytest.raises(DataError, match="two points"):
        Gaussian.fit(normal(1, 3))
    with pytest.raises(ShapeMismatch, match="one shape"):
        Gaussians({0: Gaussian.of(normal(3), f64([1.0] * 3)), -1: Gaussian.of(normal(2), f64([1.0] * 2))})
    with pytest.raises(BadValue, match="deviations > 0"):
        Pair(0.0, 0.0, 0.0, 1.0)
