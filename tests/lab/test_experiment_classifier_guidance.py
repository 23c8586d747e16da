"""Guidance by classifiers: the identity with classifier-free guidance, and what training on clean points costs."""

from __future__ import annotations

import pytest
import torch

from guidon import registry
from guidon.errors import BadValue
from guidon.lab.classifier import SmallClassifier, fit
from guidon.lab.experiments.classifier_guidance import (
    CLASS,
    PROCESS,
    ClassifierGuidanceLearned,
    compared,
    gradient,
    judged,
    noised,
    one_evaluation,
)
from guidon.lab.mixture import NULL_LABEL, ExactClassifier, Mixture, told
from guidon.lab.plane import WEIGHTS, mixture
from guidon.noise import Level

SMALL = ClassifierGuidanceLearned(weights=(1.0, 6.0), count=80, steps=20, training=200)


@pytest.fixture(scope="module")
def findings():
    return SMALL.run()


def test_the_exact_classifier_is_cfg(findings) -> None:
    for row in findings.tables["identity"]:
        assert row["largest difference of eps in one evaluation"] < 1e-10
        assert 0 < row["largest difference at the end of a run"] < 1e-10


def test_the_difference_grows_where_the_weight_does_not_match() -> None:
    assert one_evaluation(mixture(), 3.0, 0) < 1e-12
    truth, level = mixture(), PROCESS.level_at(0.7)
    x = noised(truth, level, 0, 50)
    given, null = (
        truth.believe(x, level.alpha, level.sigma, torch.full((50,), label))[1] for label in (CLASS, NULL_LABEL)
    )
    push = level.sigma * gradient(ExactClassifier(truth), x, level)
    assert (given - null + push).abs().max() < 1e-13 < 0.1 < (given - null - push).abs().max()


def test_samples_at_weight_one_are_of_the_class_only_for_the_right_classifier(findings) -> None:
    rows = {(row["classifier"], row["weight"]): row for row in findings.tables["samples"]}
    assert rows["exact", 1.0]["exact posterior"] == rows["exact", 1.0]["own confidence"] > 0.97
    assert rows["clean only", 6.0]["distance"] > 3 * rows["exact", 6.0]["distance"]
    assert rows["clean only", 6.0]["own confidence"] > rows["clean only", 6.0]["exact posterior"]


def test_training_on_clean_points_pulls_far_too_hard_where_it_is_noisy(findings) -> None:
    rows = {(row["classifier"], row["noise level"]): row for row in findings.tables["gradients"]}
    assert rows["clean only", 5.0]["length over exact, median"] > 10
    assert 0.3 < rows["noisy", 1.0]["length over exact, median"] < 3
    assert rows["noisy", 1.0]["cosine, median"] > 0.9
    assert rows["exact", 1.0]["error, root mean square over exact"] == 0


def test_the_sentences_say_the_numbers(findings) -> None:
    said = " ".join(findings.sees)
    worst = max(row["largest difference at the end of a run"] for row in findings.tables["identity"])
    assert f"{worst:.0e}" in said
    (row,) = (row for row in findings.tables["samples"] if (row["classifier"], row["weight"]) == ("clean only", 6.0))
    assert f"clean only: {row['called the class']:.1%} of the samples, distance {row['distance']:.3f}" in said
    assert set(findings.figures) == {"", "gradients", "weights"}


def test_points_of_the_class_are_judged_as_such() -> None:
    truth = mixture()
    x, other = (truth.sample(4000, CLASS, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = judged(truth, ExactClassifier(truth), x, [other])
    assert found["exact posterior"] == found["own confidence"] > 0.97
    shares = torch.tensor(WEIGHTS[:3]) / sum(WEIGHTS[:3])
    assert [found[f"nearest mode {i}"] for i in (1, 2, 3)] == pytest.approx(shares.tolist(), abs=0.03)
    assert found["distance"] < 0.05


def test_a_trained_classifier_of_two_gaussians_is_logistic() -> None:
    """N(-1, 1/4) against N(1, 1/4), noised: log odds 2 alpha x / (alpha^2 / 4 + sigma^2)."""
    means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    truth = Mixture(torch.ones(2), means, torch.full_like(means, 0.25), torch.tensor([0, 1]))
    network = fit(truth, PROCESS, steps=400, seed=0)
    level = PROCESS.level_at(1.0)
    x = torch.tensor([[-0.8], [0.0], [0.5]], dtype=torch.float64)
    odds = 2 * level.alpha * x[:, 0] / (0.25 * level.alpha**2 + level.sigma**2)
    log_p = network.log_prob(x, level, told([1, 1, 1])["given"])
    assert torch.allclose(log_p.exp(), torch.sigmoid(odds), atol=0.05)
    both = log_p.exp() + network.log_prob(x, level, told([0, 0, 0])["given"]).exp()
    assert torch.allclose(both, torch.ones(3, dtype=torch.float64))


def test_training_is_the_same_again_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    a, b, c = (fit(mixture(), PROCESS, steps=5, seed=seed, points=9) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    x = torch.zeros(1, 2, dtype=torch.float64)
    assert torch.equal(a(x, 1.0, 0.0), b(x, 1.0, 0.0)) and not torch.equal(a(x, 1.0, 0.0), c(x, 1.0, 0.0))


def test_a_classifier_that_knows_the_level_uses_it() -> None:
    torch.manual_seed(0)
    x = torch.ones(2, 2)
    knows, ignores = SmallClassifier(2, 3), SmallClassifier(2, 3, knows_level=False)
    at = torch.tensor([0.9, 0.1]), torch.tensor([0.1, 0.9])
    assert not torch.allclose(*knows(x, *at)) and torch.equal(*ignores(x, *at))
    assert torch.allclose(knows(x[:1], 0.9, 0.1), knows(x, *at)[:1])


def test_the_posterior_of_points_far_outside_is_no_distance() -> None:
    truth = mixture()
    x = torch.tensor([[30.0, 30.0]], dtype=torch.float64)
    found = judged(truth, ExactClassifier(truth), x, [truth.sample(1, CLASS, torch.Generator())])
    assert found["called the class"] == found["exact posterior"] == 1 and found["distance"] > 20


def test_too_little_to_train_with_is_refused() -> None:
    for points in (0, -5, 2):
        with pytest.raises(BadValue, match="too few"):
            fit(mixture(), PROCESS, steps=1, seed=0, points=points)
        with pytest.raises(BadValue, match="3 points or more"):
            ClassifierGuidanceLearned(few=points)
    with pytest.raises(BadValue, match="one step"):
        fit(mixture(), PROCESS, steps=0, seed=0)
    with pytest.raises(BadValue, match="two steps"):
        ClassifierGuidanceLearned(training=1)


def test_few_points_are_as_many_as_asked_for(monkeypatch) -> None:
    drawn = []
    sample = Mixture.sample
    monkeypatch.setattr(Mixture, "sample", lambda self, n, *rest: drawn.append(n) or sample(self, n, *rest))
    fit(mixture(), PROCESS, steps=1, seed=0, points=7)
    assert sorted(drawn) == [2, 2, 3]


def test_the_rows_of_a_comparison() -> None:
    level: Level = PROCESS.level_at(1.0)
    assert level.alpha == pytest.approx(0.5**0.5)
    rows = compared(mixture(), "exact", ExactClassifier(mixture()), 0)
    assert {row["error, root mean square over exact"] for row in rows} == {0.0}


def test_text_form() -> None:
    assert registry.parse("experiment", registry.to_text(SMALL)) == SMALL
    with pytest.raises(BadValue, match="weights >= 0"):
        ClassifierGuidanceLearned(weights=(-1.0,))
