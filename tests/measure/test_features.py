"""The classifier that judges: what it learns, that it repeats itself, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from guidon.errors import BadValue, DamagedCheckpoint, DataError, MissingFile, ShapeMismatch
from guidon.measure.features import ClassifierConfig, FeatureClassifier, _augment, quantise, train_classifier

Digits = tuple[Tensor, Tensor, Tensor, Tensor]


def test_digits_that_it_never_saw_are_recognised(classifier: FeatureClassifier, digits: Digits) -> None:
    _, _, images, labels = digits
    assert classifier.accuracy(images, labels) >= 0.98
    assert classifier.accuracy(images, (labels + 1) % 10) <= 0.02
    assert classifier.features(images).shape == (len(images), classifier.dim)
    assert classifier.features(images).dtype == torch.float64


def test_eight_bit_images_and_floats_near_their_levels_look_the_same(classifier: FeatureClassifier) -> None:
    pixels = torch.randint(0, 256, (20, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    levels = pixels.float() / 127.5 - 1
    torch.testing.assert_close(classifier.features(levels), classifier.features(pixels), rtol=0, atol=0)
    torch.testing.assert_close(classifier.features(levels + 0.003), classifier.features(pixels), rtol=0, atol=0)
    assert not torch.equal(classifier.features(levels + 0.006), classifier.features(pixels))


def test_quantise_knows_the_ends_of_the_range() -> None:
    assert quantise(torch.tensor([-7.0, -1.0, 1.0, 7.0])).tolist() == [-1, -1, 1, 1]
    assert quantise(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_neighbours_and_batch_size_do_not_change_what_it_sees(classifier: FeatureClassifier, digits: Digits) -> None:
    images = digits[2][:50]
    one_by_one = classifier.train().features(
        images, batch=1
    )  # it judges in evaluation mode, whatever mode it was left in
    torch.testing.assert_close(classifier.features(images, batch=50), one_by_one, rtol=1e-4, atol=1e-4)


def test_training_repeats_itself_and_leaves_global_randomness_alone() -> None:
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    labels = torch.arange(40) % 2
    before = torch.get_rng_state()
    first = train_classifier(images, labels, 2, epochs=2, batch=16, seed=5)
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    torch.rand(3)  # a stranger uses the global generator in between
    again = train_classifier(images, labels, 2, epochs=2, batch=16, seed=5)
    other = train_classifier(images, labels, 2, epochs=2, batch=16, seed=6)
    assert torch.equal(first.features(images), again.features(images))
    assert not torch.equal(first.features(images), other.features(images))


def test_augmentation_shifts_within_reach_and_mirrors() -> None:
    ramp = torch.arange(36.0).view(1, 1, 6, 6).expand(200, 1, 6, 6)
    generator = torch.Generator().manual_seed(3)
    windows = {(y, x): ramp[0, 0, y : y + 4, x : x + 4] for y in range(3) for x in range(3)}
    seen = {
        at for image in _augment(ramp, 4, 1, False, generator) for at, w in windows.items() if torch.equal(image[0], w)
    }
    assert seen == set(windows)
    mirrored = sum(bool(image[0, 0, 0] > image[0, 0, -1]) for image in _augment(ramp, 6, 0, True, generator))
    assert 60 < mirrored < 140


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (3, 64), (3, 72)])
def test_every_common_size_has_a_network(channels: int, size: int) -> None:
    model = FeatureClassifier(ClassifierConfig.for_images(5, channels, size))
    images = torch.zeros(2, channels, size, size)
    assert model.logits(images).shape == (2, 5)
    assert model.features(images).shape == (2, model.dim)


def test_what_was_saved_comes_back(classifier: FeatureClassifier, digits: Digits, tmp_path: Path) -> None:
    classifier.save(tmp_path / "judge")
    loaded = FeatureClassifier.load(tmp_path / "judge")
    assert torch.equal(loaded.features(digits[2][:20]), classifier.features(digits[2][:20]))
    (tmp_path / "judge" / "config.json").write_text('{"classes": 10}')
    with pytest.raises(DamagedCheckpoint, match="train it again"):
        FeatureClassifier.load(tmp_path / "judge")
    with pytest.raises(MissingFile):
        FeatureClassifier.load(tmp_path / "nothing")


def test_what_cannot_be_learned_from_is_refused() -> None:
    images, labels = torch.zeros(40, 1, 8, 8), torch.arange(40) % 2
    with pytest.raises(ShapeMismatch, match="square"):
        train_classifier(torch.zeros(40, 1, 8, 9), labels, 2)
    with pytest.raises(ShapeMismatch, match="one label an image"):
        train_classifier(images, labels[:-1], 2)
    with pytest.raises(DataError, match="at least 200"):
        train_classifier(images, labels, 100)
    with pytest.raises(BadValue, match=r"0\.\.1"):
        train_classifier(images, labels + 1, 2)
    with pytest.raises(BadValue, match="bf16"):
        train_classifier(images, labels, 2, precision="fp16")
    with pytest.raises(BadValue, match="two classes"):
        ClassifierConfig(1, 3, 32, (8, 8))
    with pytest.raises(BadValue, match="do not fit"):
        ClassifierConfig(10, 3, 4, (8, 8, 8, 8))


def test_what_cannot_be_looked_at_is_refused(classifier: FeatureClassifier) -> None:
    with pytest.raises(ShapeMismatch, match=r"\(N, 1, 8, 8\)"):
        classifier.features(torch.zeros(2, 3, 8, 8))
    with pytest.raises(DataError, match="at least one"):
        classifier.features(torch.zeros(0, 1, 8, 8))
    with pytest.raises(ShapeMismatch, match="one label an image"):
        classifier.accuracy(torch.zeros(2, 1, 8, 8), [1])
