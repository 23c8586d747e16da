"""Every metric against a closed form, or what can be counted by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from guidon import registry
from guidon.errors import BadValue, DataError
from guidon.measure.adherence import adherence
from guidon.measure.distances import FeatureStatistics, frechet_distance
from guidon.measure.estimate import Statistic, estimate
from guidon.measure.metric import Metric
from guidon.measure.metrics import Pixels, Shapes, nearest
from guidon.measure.metrics.frechet import FrechetStatistic, Gaussian
from guidon.measure.observe import Rows
from guidon.scenes.draw import draw
from guidon.scenes.render import render


def features(n: int, wide: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, wide)) * scale


def seen(array: np.ndarray, what: str = "features", **told: object) -> Rows:
    return Rows.of({f"net/{what}": array}, **told)  # type: ignore[arg-type]


def statistic(text: str, sample: Rows, reference: Rows | None = None) -> Statistic:
    found: Metric = registry.parse("metric", text)
    return found.statistic(sample, reference, "net")


def value(text: str, sample: Rows, reference: Rows | None = None, counts: list[float] | None = None) -> float:
    made = statistic(text, sample, reference)
    weights = torch.ones(1, made.n) if counts is None else torch.tensor([counts])
    return float(made.values(weights.double())[0])


# --- fid


def test_fid_of_known_moments_is_the_closed_form() -> None:
    axes = np.concatenate([np.eye(3), -np.eye(3)])  # mean 0, covariance 2/5 of the identity
    here, there = axes * [1, 2, 3] + [5, 0, 0], axes * [4, 4, 0]
    expected = 25 + 0.4 * ((1 - 4) ** 2 + (2 - 4) ** 2 + 3**2)
    assert value("fid", seen(here), seen(there)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "wide"), [(200, 300, 24), (20, 300, 24), (200, 15, 24), (10, 12, 64), (24, 25, 24)])
def test_fid_is_the_distance_of_moments_also_with_fewer_images_than_dimensions(n: int, m: int, wide: int) -> None:
    here, there = features(n, wide, 0) @ features(wide, wide, 1), features(m, wide, 2) + 0.3
    moments = [FeatureStatistics.of(torch.from_numpy(x)) for x in (here, there)]
    assert value("fid", seen(here), seen(there)) == pytest.approx(frechet_distance(*moments), rel=1e-9)
    assert value("fid", seen(here), seen(here)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("wide", [8, 60])
def test_fid_of_counts_is_that_of_weighted_moments(wide: int) -> None:
    here, there = features(40, wide, 0), features(90, wide, 1, 1.5)
    counts = torch.from_numpy(np.random.default_rng(2).integers(0, 4, 40)).double()
    mean = np.average(here, axis=0, weights=counts)
    scatter = torch.from_numpy(np.cov(here, rowvar=False, fweights=counts.long().numpy())) * (counts.sum() - 1)
    weighted = FeatureStatistics(int(counts.sum()), torch.from_numpy(mean), scatter)
    expected = frechet_distance(weighted, FeatureStatistics.of(torch.from_numpy(there)))
    assert value("fid", seen(here), seen(there), counts.tolist()) == pytest.approx(expected, rel=1e-9)


def test_fid_of_steep_spectra_is_that_of_their_axes() -> None:
    """Covariances that share their axes have a distance axis by axis, however far apart their variances are."""
    turn = np.linalg.qr(features(40, 40, 5))[0]
    base = np.concatenate([np.eye(40), -np.eye(40)])
    deviations = np.logspace(0, -5, 40)
    here, there = base * deviations @ turn, base * deviations[::-1] @ turn
    expected = 2 / 79 * np.square(deviations - deviations[::-1]).sum()
    assert value("fid", seen(here), seen(there)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [5000, 500])
def test_fid_of_inception_size_is_stable(n: int) -> None:
    """Features that are scaled and moved have a distance known beforehand, with more images than dimensions and with fewer."""
    rows = torch.randn(n, 2048, generator=torch.Generator().manual_seed(0))
    moved = rows * 1.1
    moved[:, 0] += 3
    apart = float((moved.double().mean(0) - rows.double().mean(0)).square().sum())
    expected = apart + 0.1**2 * float(rows.double().var(0).sum())
    assert value("fid", seen(moved.numpy()), seen(rows.numpy())) == pytest.approx(expected, rel=1e-6)


def test_large_features_have_fewer_resamples_and_the_figure_says_so() -> None:
    rows, gaussian = np.zeros((5000, 2048), np.float32), Gaussian(9, torch.zeros(2048), torch.ones(()), torch.eye(2048))
    assert 20 <= (FrechetStatistic(rows, gaussian).affordable or 0) < 50
    small = statistic("fid", seen(features(2000, 256, 0)), seen(features(300, 256, 1)))
    assert (small.affordable or 0) >= 200
    small.affordable = 3
    assert estimate(small, resamples=200).resamples == 3


# --- kid


def mmd(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    w = np.ones(len(x)) if weights is None else weights
    pairs = [(w[i] * w[j], k(x[i], x[j])) for i, j in itertools.permutations(range(len(x)), 2)]
    own = sum(a * b for a, b in pairs) / sum(a for a, _ in pairs)
    other = np.mean([k(y[i], y[j]) for i, j in itertools.permutations(range(len(y)), 2)])
    across = sum(w[i] * np.mean([k(x[i], b) for b in y]) for i in range(len(x))) / w.sum()
    return float(own + other - 2 * across)


def test_kid_is_the_mean_over_pairs_and_counts_weigh_pairs_of_different_images() -> None:
    here, there = features(9, 4, 0), features(12, 4, 1) + 0.5
    assert value("kid", seen(here), seen(there)) == pytest.approx(mmd(here, there), rel=1e-12)
    counts = [0, 1, 2, 0, 3, 1, 1, 0, 1]
    expected = mmd(here, there, np.array(counts, float))
    assert value("kid", seen(here), seen(there), [float(c) for c in counts]) == pytest.approx(expected, rel=1e-12)


def test_kid_of_subsets_is_that_of_all_pairs_on_average_and_where_they_are_everything() -> None:
    here, there = seen(features(60, 4, 0)), seen(features(60, 4, 1) + 1)
    assert value("kid(1, 60)", here, there) == pytest.approx(value("kid", here, there), rel=1e-12)
    assert value("kid(2000, 30)", here, there) == pytest.approx(value("kid", here, there), rel=0.02)
    with pytest.raises(BadValue, match="kid\\(5, 60\\)"):
        statistic("kid(5, 61)", here, there)
    with pytest.raises(BadValue, match="at least two images"):
        registry.parse("metric", "kid(5, 1)")


def test_kid_stays_unbiased_when_resampled() -> None:
    """Two draws from one distribution are at distance 0 on average, and so are their resamples."""
    found = []
    for seed in range(40):
        made = statistic("kid", seen(features(40, 6, 2 * seed)), seen(features(40, 6, 2 * seed + 1)))
        drawn = torch.randint(40, (50, 40), generator=torch.Generator().manual_seed(seed))
        found.append(float(made.values(torch.stack([row.bincount(minlength=40) for row in drawn]).double()).mean()))
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found))


# --- inception score


def test_inception_score_of_sure_and_of_unsure_predictions() -> None:
    sure = np.eye(10)[np.arange(100) % 10] * 1000.0  # far beyond where a softmax leaves nothing of the others
    assert value("is(1)", seen(sure, "logits")) == pytest.approx(10)
    assert value("is(4)", seen(np.ones((100, 10)), "logits")) == pytest.approx(1)
    collapsed = [1.0 if i % 10 == 3 else 0.0 for i in range(100)]
    assert value("is(1)", seen(sure, "logits"), None, collapsed) == pytest.approx(1)
    halves = [1.0 if i % 10 < 5 else 0.0 for i in range(100)]
    assert value("is(1)", seen(sure, "logits"), None, halves) == pytest.approx(5)


def test_a_split_of_which_no_image_counts_is_left_out() -> None:
    logits = features(20, 5, 0, 3)
    made = statistic("is(2)", seen(logits, "logits"))
    first = torch.randperm(20, generator=torch.Generator().manual_seed(0)).chunk(2)[0]
    counts = torch.zeros(1, 20).double()
    counts[0, first] = 1
    alone = value("is(1)", seen(logits[first.numpy()], "logits"))
    assert float(made.values(counts)[0]) == pytest.approx(alone, rel=1e-12)


# --- precision, recall, density, coverage


def line(*points: float) -> Rows:
    return seen(np.array(points)[:, None])


def test_balls_on_a_line_counted_by_hand() -> None:
    # Real balls (k = 1): 0±1, 1±1, 2±1, 10±8. Generated balls: 0.5±3, 3.5±3, 30±26.5.
    real, made = line(0, 1, 2, 10), line(0.5, 3.5, 30)
    assert value("precision(1)", made, real) == pytest.approx(2 / 3)
    assert value("recall(1)", made, real) == 1
    assert value("density(1)", made, real) == pytest.approx(
        (2 + 1 + 0) / 3
    )  # 0.5 in those of 0 and 1, 3.5 in that of 10
    assert value("coverage(1)", made, real) == pytest.approx(3 / 4)  # nothing is near 2 but 3.5, which is 1.5 away

    assert value("precision(1)", made, real, [1, 1, 0]) == 1
    assert value("density(1)", made, real, [3, 0, 1]) == pytest.approx(6 / 4)
    assert value("recall(1)", made, real, [1, 0, 0]) == pytest.approx(3 / 4)  # -2.5 to 3.5 leaves out 10
    assert value("coverage(1)", made, real, [0, 2, 0]) == pytest.approx(1 / 4)


def test_a_set_against_itself_has_density_and_coverage_one() -> None:
    same = seen(features(80, 5, 0))
    for k in (1, 3, 5):
        assert value(f"density({k})", same, same) == pytest.approx(1, rel=1e-12)
        assert [value(f"{name}({k})", same, same) for name in ("precision", "recall", "coverage")] == [1, 1, 1]


def test_of_a_large_reference_as_many_as_the_paper_takes_are_drawn() -> None:
    here, real = seen(features(30, 3, 0)), features(90, 3, 1)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))[:50]
    drawn = seen(real[order.numpy()])
    for name in ("precision", "recall", "density", "coverage"):
        made = statistic(f"{name}(k=4, most=50)", here, seen(real))
        assert made.n_reference == 50
        assert float(made.values(torch.ones(1, 30).double())[0]) == value(f"{name}(4)", here, drawn)
    with pytest.raises(BadValue, match="1 to 49 of 50"):
        registry.parse("metric", "recall(50, 50)")


# --- accuracy, CLIP score


def test_accuracy_counts_hits_among_images_that_have_a_label() -> None:
    logits = np.eye(4)[[0, 1, 2, 3, 3]]
    sample = seen(logits, "logits", labels=[0, 1, 3, 3, -1])
    assert value("accuracy", sample) == pytest.approx(3 / 4)
    assert value("accuracy", sample, None, [0, 1, 2, 1, 9]) == pytest.approx(2 / 4)
    with pytest.raises(BadValue, match="labels reach to 4"):
        statistic("accuracy", seen(logits, "logits", labels=[0, 1, 2, 3, 4]))
    with pytest.raises(DataError, match="no image has a label"):
        statistic("accuracy", seen(logits, "logits", labels=[-1] * 5))


def test_clip_score_is_the_cosine_in_hundredths_and_never_negative() -> None:
    images = np.array([[1.0, 0], [2, 2], [-1, 0]])
    sample = Rows.of({"net/features": images, "net/text": np.array([[3.0, 0], [1, 0], [1, 0]])})
    assert value("clip-score", sample) == pytest.approx((100 + 100 / math.sqrt(2) + 0) / 3)


# --- memorised, diversity


def test_memorised_images_are_far_nearer_to_one_than_to_any_other() -> None:
    train = line(0, 3, 3, 100)
    made = line(0.7, 0.8, 3, 99, 50)  # 0.7 / 2.3 < 1/3; 0.8 / 2.2 > 1/3; one of two equal ones; 1 / 96; between
    assert value("memorised", made, train) == pytest.approx(3 / 5)
    assert value("memorised(0.3)", made, train) == pytest.approx(2 / 5)
    assert value("memorised", made, train, [1, 1, 0, 0, 0]) == pytest.approx(1 / 2)


def test_nearest_training_images_in_order_and_exactly() -> None:
    far = 1e6 + features(50, 6, 0)
    which, apart = nearest(far[[7, 3]], far, 3)
    assert which[:, 0].tolist() == [7, 3] and apart[:, 0].tolist() == [0, 0]
    exact = torch.from_numpy(np.linalg.norm(far[[7, 3]][:, None] - far, axis=2)).topk(3, largest=False)
    torch.testing.assert_close(apart, exact.values)
    assert torch.equal(which, exact.indices)
    with pytest.raises(DataError, match="51"):
        nearest(far, far, 51)


def test_diversity_is_the_mean_distance_within_what_was_told() -> None:
    points = np.array([0.0, 3, 6, 100, 101, 1e6, 7])[:, None]
    labelled = seen(points, labels=[0, 0, 0, 1, 1, 2, -1])
    assert value("diversity", labelled) == pytest.approx(((3 + 6 + 3) / 3 + 1) / 2)
    captions = ["a", "a", "a", "b", "b", "c", "d"]
    assert value("diversity", seen(points, captions=captions)) == pytest.approx((4 + 1) / 2)
    everything = np.abs(points - points.T)[~np.eye(7, dtype=bool)].mean()
    assert value("diversity", seen(points)) == pytest.approx(everything)
    # 0 twice and 3 once make two pairs of 3; the class of 100 has one image left
    assert value("diversity", labelled, None, [2, 1, 0, 1, 0, 1, 1]) == pytest.approx(3)
    with pytest.raises(DataError, match="told the same"):
        statistic("diversity", seen(points, labels=range(7)))


# --- pixels, adherence


def solid(*colour: int) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(-1, 4, 4)


def test_pixels_of_plain_and_halved_images() -> None:
    red, pale, grey, black = solid(255, 0, 0), solid(200, 100, 100), solid(90, 90, 90), solid(0, 0, 0)
    halved = torch.cat([solid(255, 255, 255)[:, :2], black[:, :2]], 1)
    found = Pixels().look(torch.stack([red, pale, grey, black, halved]), None)
    assert found["pixels/saturation"].tolist() == pytest.approx([1, 0.5, 0, 0, 0])
    assert found["pixels/contrast"].tolist() == pytest.approx([0, 0, 0, 0, 0.5], abs=1e-6)
    assert found["pixels/clipping"].tolist() == [1, 0, 0, 1, 1]
    red_and_green = torch.cat([red[:, :2], solid(0, 255, 0)[:, :2]], 1)
    weighed = Pixels().look(red_and_green[None], None)["pixels/contrast"][0]
    assert weighed == pytest.approx((0.587 - 0.299) / 2, rel=1e-5)
    single = Pixels().look(halved[None, :1], None)
    assert [single[f"pixels/{what}"][0] for what in ("saturation", "contrast", "clipping")] == [0, 0.5, 1]
    assert value("clipping", Rows.of(found)) == pytest.approx(3 / 5)
    with pytest.raises(BadValue, match="uint8"):
        Pixels().look(torch.zeros(1, 3, 4, 4), None)


def test_adherence_is_that_of_the_scenes_counted_part_by_part() -> None:
    rng = np.random.default_rng(0)
    scenes, captions = zip(*(draw(rng) for _ in range(24)), strict=True)
    pictures = np.stack([render(scene, 32) for scene in scenes])
    said = captions[1:12] + captions[:1] + captions[12:]  # half of them of another picture
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    sample = Rows.of(Shapes().look(images, said), captions=said)
    counted = adherence(pictures, said)
    assert 0.4 < counted.whole.share < 0.9
    expected = {"whole": counted.whole, "things": counted.things, **counted.parts}
    assert {"colour", "shape", "size", "place", "count", "relation"} <= set(expected)
    for part, share in expected.items():
        assert value(f"adherence('{part}')", sample) == pytest.approx(share.share)
    assert value("adherence", sample, None, [0] * 12 + [1] * 12) == 1


def test_adherence_needs_a_part_that_was_said() -> None:
    images = torch.from_numpy(render(draw(np.random.default_rng(1), "single")[0], 32)).permute(2, 0, 1)[None]
    sample = Rows.of(Shapes().look(images, ["a circle"]), captions=["a circle"])
    with pytest.raises(DataError, match="no caption says anything of relation"):
        statistic("adherence('relation')", sample)
    with pytest.raises(BadValue, match="colour, shape"):
        registry.parse("metric", "adherence('taste')")
    with pytest.raises(BadValue, match="have none"):
        Shapes().look(images, None)
