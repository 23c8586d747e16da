"""A mixture's beliefs, scores, densities and classes hang together, and agree with Gaussians by hand and with Bayes."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from support.mixtures import Exact, ExactClassifier, Mixture, field, plane, told
from support.numbers import agree, f64, normal

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported, ShapeMismatch
from guidon.noise import Cosine, EDMOutput, EpsOutput, Flow, Level, Output, VelocityOutput, VOutput, X0Output

LABELS = torch.tensor([0, 1, -1, 1, 0, -1])
ALPHA, SIGMA = 0.8, 0.5
EXAMPLES = {"plane": plane(), "field": field()}


@pytest.fixture(params=EXAMPLES)
def mixture(request: pytest.FixtureRequest) -> Mixture:
    return EXAMPLES[request.param]


def test_beliefs_are_the_score_of_the_density(mixture: Mixture) -> None:
    x = normal(6, *mixture.shape).requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_density(x, ALPHA, SIGMA, LABELS).sum(), x)
    x0, eps = mixture.believe(x.detach(), ALPHA, SIGMA, LABELS)
    agree(eps, -SIGMA * score, "eps")
    agree(mixture.score(x.detach(), ALPHA, SIGMA, LABELS), score, "score")
    agree(ALPHA * x0 + SIGMA * eps, x.detach(), "alpha x0 + sigma eps")


def test_the_density_by_hand() -> None:
    mixture, x = plane(), normal(5, 2)
    cov = torch.einsum("kij,kj,klj->kil", mixture.axes, mixture.variances, mixture.axes)
    noisy = ALPHA**2 * cov + SIGMA**2 * torch.eye(2, dtype=torch.float64)
    away = x[:, None] - ALPHA * mixture.means
    square = torch.einsum("bki,kij,bkj->bk", away, torch.linalg.inv(noisy), away)
    parts = -0.5 * (square + torch.logdet(2 * torch.pi * noisy))
    for label, weights in ((-1, f64([0.3, 0.2, 0.2, 0.3])), (0, f64([0.6, 0.4, 0, 0])), (1, f64([0, 0, 0.4, 0.6]))):
        want = (parts + weights.log()).logsumexp(1)
        # the weights of the example are float32
        agree(mixture.log_density(x, ALPHA, SIGMA, torch.full((5,), label)), want, f"class {label}", rtol=1e-6)


def test_the_density_of_a_class_integrates_to_one() -> None:
    line = Mixture(
        f64([1.0, 3.0, 2.0]), f64([[-1.0], [0.5], [2.0]]), f64([[0.04], [0.3], [0.1]]), torch.tensor([0, 0, 1])
    )
    for label in (-1, 0, 1):
        total = quad(
            lambda x, label=label: line.log_density(f64([[x]]), 0.9, 0.3, torch.tensor([label])).exp().item(),
            -8,
            8,
            limit=200,
        )
        assert math.isclose(total[0], 1.0, rel_tol=1e-7)


def test_the_posterior_is_that_of_bayes(mixture: Mixture) -> None:
    x, level = normal(4, *mixture.shape), Level(0.5, ALPHA, SIGMA)
    shares = {"plane": (0.5, 0.5), "field": (0.6, 0.4)}["plane" if mixture.shape == (2,) else "field"]
    total = torch.zeros(4, dtype=torch.float64)
    for label, share in enumerate(shares):
        labels = torch.full((4,), label)
        got = mixture.log_posterior(x, level, labels)
        joint = math.log(share) + mixture.log_density(x, ALPHA, SIGMA, labels)
        agree(got, joint - mixture.log_density(x, ALPHA, SIGMA, torch.full((4,), -1)), f"class {label}", atol=1e-6)
        total += got.exp()
    agree(total, torch.ones(4), "the sum over classes")
    agree(mixture.log_posterior(x, level, torch.full((4,), -1)), torch.zeros(4), "no class", atol=1e-12)


def test_the_classifier_is_the_difference_of_scores(mixture: Mixture) -> None:
    x, labels = normal(4, *mixture.shape).requires_grad_(), torch.tensor([0, 1, 1, 0])
    level = Level(0.5, f64([0.9, 0.5, 0.7, 0.6]), f64([0.3, 0.8, 0.7, 0.6]))  # one for each state
    log_p = ExactClassifier(mixture).log_prob(x, level, told(labels)["given"])
    (gradient,) = torch.autograd.grad(log_p.sum(), x)
    scores = [mixture.score(x.detach(), level.alpha, level.sigma, which) for which in (labels, torch.full((4,), -1))]
    agree(gradient, scores[0] - scores[1], "gradient")


def test_diagonal_and_full_covariances_agree() -> None:
    diagonal = field()
    means, variances = diagonal.means, diagonal.variances
    full = Mixture(diagonal.log_weights.exp(), means, torch.diag_embed(variances), diagonal.component_class)
    x = normal(6, 2, 3, 3)
    for got, want in zip(
        full.believe(x.flatten(1), ALPHA, SIGMA, LABELS), diagonal.believe(x, ALPHA, SIGMA, LABELS), strict=True
    ):
        agree(got.reshape(want.shape), want, "belief")
    agree(
        full.log_density(x.flatten(1), ALPHA, SIGMA, LABELS),
        diagonal.log_density(x, ALPHA, SIGMA, LABELS),
        "log density",
    )


def test_variances_of_square_states_are_no_covariances() -> None:
    square = Mixture(f64([1.0, 1.0]), normal(2, 3, 3), f64([0.5]).expand(2, 3, 3), torch.tensor([0, 1]))
    assert square.axes is None and square.believe(normal(1, 3, 3), 1.0, 1.0, torch.tensor([0]))[0].shape == (1, 3, 3)


def test_samples_have_the_moments(mixture: Mixture) -> None:
    points = mixture.sample(40000, 0, torch.Generator().manual_seed(3))
    share = mixture.log_weights.exp() * (mixture.component_class == 0)
    mean = (share[:, None] * mixture.means).sum(0) / share.sum()
    agree(points.mean(0).flatten(), mean, "mean", rtol=0, atol=0.03)
    if mixture.axes is not None:
        second = torch.einsum("kij,kj,klj->kil", mixture.axes, mixture.variances, mixture.axes)
        second = second + mixture.means[:, :, None] * mixture.means[:, None]
        want = torch.einsum("k,kij->ij", share / share.sum(), second) - torch.outer(mean, mean)
        agree(torch.cov(points.T), want, "covariance", rtol=0, atol=0.03)


def test_every_sample_of_a_class_is_of_it() -> None:
    points = Mixture(f64([1.0, 1.0]), f64([[-9.0], [9.0]]), f64([[1.0], [1.0]]), torch.tensor([0, 1])).sample(
        500, 1, torch.Generator().manual_seed(0)
    )
    assert (points > 0).all()


@pytest.mark.parametrize("output", [EpsOutput(), X0Output(), VOutput(), VelocityOutput(), EDMOutput()], ids=str)
@pytest.mark.parametrize("process", [Cosine(), Flow()], ids=str)
def test_the_network_says_the_same_through_every_output(output: Output, process: Cosine | Flow) -> None:
    level, x, context = process.level_at(1.7), normal(3, 2), told([0, 1, 1])["given"]
    plain, through = Exact(plane(), fraction=0.3), Exact(plane(), output)
    agree(through(x, level, context).x0, plain(x, level, context).x0, "x0")
    agree(through(x, level, context).eps, plain(x, level, context).eps, "eps")
    assert plain(x, level, context).variance_fraction is not None
    assert (plain.forwards, plain.rows) == (3, 9)


def test_refusals() -> None:
    with pytest.raises(NotSupported, match="classes 0 to 1"):
        plane().believe(normal(1, 2), 1.0, 1.0, torch.tensor([2]))
    with pytest.raises(ShapeMismatch, match="covariances are"):
        Mixture(torch.ones(2), normal(2, 3), normal(2, 2, 2), torch.tensor([0, 1]))
    with pytest.raises(ShapeMismatch, match="each component"):
        Mixture(torch.ones(3), normal(2, 3), normal(2, 3), torch.tensor([0, 1]))
    with pytest.raises(BadValue, match="missing m/weights"):
        Mixture.read({}, "m")
    with pytest.raises(NotSupported, match="vector"):
        Exact(plane())(normal(1, 2), Level(0.5, 1.0, 1.0), Context())
