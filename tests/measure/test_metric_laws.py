"""Laws of every registered metric: what counting, order, cutting and storing do to a figure, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from guidon import registry
from guidon.errors import BadValue, DataError, GuidonError
from guidon.measure import distances, manifold, metrics
from guidon.measure.estimate import Statistic, estimate
from guidon.measure.metric import Metric
from guidon.measure.observe import Rows

N, M, D, K = 61, 83, 12, 5

ORDERED = {"is", "kid(3, 20)"}  # deal the images out by their place
BIASED = {"fid"}  # divides by n - 1, so that twice the same images have a smaller covariance
TEXTS = [
    *registry.names("metric"),
    "kid(3, 20)",
    "is(1)",
    "precision(5, most=40)",
    "adherence('colour')",
]
EVERY = pytest.mark.parametrize("text", TEXTS)


def every_but(*others: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("text", [text for text in TEXTS if text not in others])


def rows(n: int, seed: int, wide: int = D) -> Rows:
    draw = np.random.default_rng(seed)
    arrays = {
        "net/features": (draw.standard_normal((n, wide)) * np.linspace(0.5, 2, wide) + 0.2 * seed).astype(np.float32),
        "net/logits": draw.standard_normal((n, K)).astype(np.float32) * 2,
        "net/text": draw.standard_normal((n, wide)).astype(np.float32) + 1,
        "adherence/whole": draw.integers(0, 2, n).astype(np.float32),
        "adherence/colour": np.stack([draw.integers(0, 2, n), np.full(n, 2)], 1).astype(np.float32),
        **{f"pixels/{what}": draw.random(n).astype(np.float32) for what in ("saturation", "contrast", "clipping")},
    }
    labels = draw.integers(0, K, n)
    return Rows.of(arrays, labels=labels, captions=[f"a {label}" for label in labels], observers={"net": "f"})


def taken(source: Rows, order: np.ndarray) -> Rows:
    arrays = {aspect: source[aspect][order] for aspect in source.aspects}
    assert source.labels is not None and source.captions is not None
    captions = [source.captions[i] for i in order]
    return Rows.of(arrays, labels=source.labels[order], captions=captions, observers=source.observers)


def metric(text: str) -> Metric:
    found: Metric = registry.parse("metric", text)
    return found


def statistic(text: str, sample: Rows, reference: Rows) -> Statistic:
    found = metric(text)
    return found.statistic(sample, reference if found.compares else None, "net")


def ones(n: int) -> torch.Tensor:
    return torch.ones(1, n, dtype=torch.float64)


def counts(n: int = N, seed: int = 0, resamples: int = 7) -> torch.Tensor:
    drawn = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))
    return torch.stack([row.bincount(minlength=n) for row in drawn]).double()


@EVERY
def test_says_what_it_is(text: str) -> None:
    found = metric(text)
    assert found.title and found.about.endswith(".") and found.source  # type: ignore[attr-defined]
    assert found.better in ("higher", "lower", None)
    assert registry.parse("metric", registry.to_text(found)) == found


@EVERY
def test_a_figure_is_what_ones_give_and_lies_in_its_interval(text: str) -> None:
    sample, reference = rows(N, 0), rows(M, 1)
    made = statistic(text, sample, reference)
    assert made.n == N and made.n_reference == ((40 if "most" in text else M) if metric(text).compares else 0)
    figure = estimate(made, resamples=50)
    assert figure.value == float(made.values(ones(N))[0]) and math.isfinite(figure.value)
    assert figure.low <= figure.value <= figure.high


@every_but(*ORDERED, "diversity", "kid", "recall")
def test_counts_are_copies(text: str) -> None:
    """An image that counts c times is c images, but for pairs and neighbours of copies, which the metrics say they leave out."""
    sample, reference = rows(N, 0), rows(M, 1)
    weights = counts()
    found = statistic(text, sample, reference).values(weights)
    for row, value in zip(weights, found, strict=True):
        copies = taken(sample, np.repeat(np.arange(N), row.long().numpy()))
        expected = statistic(text, copies, reference).values(ones(len(copies)))
        torch.testing.assert_close(value, expected[0], rtol=1e-9, atol=1e-12)


@EVERY
def test_resamples_do_not_know_of_each_other(text: str) -> None:
    made, weights = statistic(text, rows(N, 0), rows(M, 1)), counts()
    apart = torch.cat([made.values(row[None]) for row in weights])
    torch.testing.assert_close(made.values(weights), apart, rtol=1e-12, atol=1e-13)
    assert made.values(weights).shape == (7,) and made.values(weights).dtype == torch.float64


@every_but(*ORDERED)
def test_the_order_of_the_images_does_not_matter(text: str) -> None:
    sample, reference = rows(N, 0), rows(M, 1)
    order = np.random.default_rng(3).permutation(N)
    turned = statistic(text, taken(sample, order), reference)
    found = statistic(text, sample, reference).values(counts())
    torch.testing.assert_close(turned.values(counts()[:, order]), found, rtol=1e-9, atol=1e-12)


@EVERY
def test_everything_twice_is_everything_once(text: str) -> None:
    made = statistic(text, rows(N, 0), rows(M, 1))
    once, twice = made.values(ones(N)), made.values(2 * ones(N))
    if text in BIASED:
        assert twice < once and not torch.isclose(twice, once, rtol=1e-6)
    else:
        torch.testing.assert_close(twice, once, rtol=1e-12, atol=1e-13)


@every_but("recall")
def test_images_that_do_not_count_are_not_there(text: str) -> None:
    """Whatever images that count no times look like, the figure stays, but for balls that keep the size of the whole sample."""
    sample, reference, weights = rows(N, 0), rows(M, 1), ones(N)
    weights[0, 40:] = 0
    other = rows(N, 0)
    for aspect in other.aspects:
        other[aspect][40:] = rows(N, 9)[aspect][40:]
    found = statistic(text, sample, reference).values(weights)
    torch.testing.assert_close(statistic(text, other, reference).values(weights), found, rtol=1e-9, atol=1e-12)


@EVERY
def test_rows_on_disk_and_in_small_blocks_give_the_same(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, reference, weights = rows(N, 0), rows(M, 1), counts()
    whole = statistic(text, sample, reference).values(weights)
    stored = [on_disk(seen, tmp_path / str(i)) for i, seen in enumerate((sample, reference))]

    monkeypatch.setattr(distances, "_ROWS", 10)
    for module in (metrics.inception_score, metrics.memorised):
        monkeypatch.setattr(module, "_ROWS", 10)
    for module in (manifold, metrics.frechet, metrics.kernel):
        monkeypatch.setattr(module, "_ENTRIES", 300)
    torch.testing.assert_close(statistic(text, stored[0], stored[1]).values(weights), whole, rtol=1e-9, atol=1e-12)


def on_disk(seen: Rows, folder: Path) -> Rows:
    folder.mkdir()
    arrays = {}
    for i, aspect in enumerate(seen.aspects):
        np.save(folder / f"{i}.npy", seen[aspect])
        arrays[aspect] = np.load(folder / f"{i}.npy", mmap_mode="r")
    return Rows.of(arrays, labels=seen.labels, captions=seen.captions, observers=seen.observers)


@EVERY
@pytest.mark.parametrize("case", ["alike", "one", "three", "wide"])
def test_degenerate_samples_give_a_number_or_an_error(text: str, case: str) -> None:
    sample, reference = rows(N, 0), rows(M, 1)
    match case:
        case "alike":
            sample = taken(sample, np.zeros(N, np.int64))
        case "one":
            sample = taken(sample, np.arange(1))
        case "three":
            sample = taken(sample, np.arange(3))
        case "wide":
            sample, reference = rows(N, 0, 300), rows(M, 1, 300)
    try:
        figure = estimate(statistic(text, sample, reference), resamples=0)
    except (BadValue, DataError):
        assert case in ("one", "three")
    else:
        assert math.isfinite(figure.value)


@pytest.mark.parametrize("text", [t for t in TEXTS if "features" in metric(t).needs or "logits" in metric(t).needs])
def test_a_nan_is_refused(text: str) -> None:
    sample = rows(N, 0)
    for aspect in ("net/features", "net/logits"):
        sample[aspect][7] = np.nan
    with pytest.raises(GuidonError, match="1 of 61"):
        statistic(text, sample, rows(M, 1))


@pytest.mark.parametrize("text", [t for t in TEXTS if metric(t).compares])
def test_other_features_and_no_reference_are_refused(text: str) -> None:
    with pytest.raises(GuidonError, match="one network for both"):
        statistic(text, rows(N, 0), rows(M, 1, D + 1))
    with pytest.raises(GuidonError, match="give a reference"):
        metric(text).statistic(rows(N, 0), None, "net")
