"""What real images are compared by is computed once for the same, and never used for another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from guidon.errors import BadValue, NotSupported, UnknownLabel
from guidon.measure.features import ClassifierConfig, FeatureClassifier
from guidon.measure.metrics import Pixels
from guidon.measure.networks.classifier import ClassifierObserver
from guidon.measure.networks.network import NetworkObserver
from guidon.study import reference
from guidon.study.images import Stored
from guidon.study.reference import aligned, auto_classifier, cache_folder, reference_rows
from guidon.training.data import DataConfig


class Means(NetworkObserver):
    """Sees the mean of each channel, times a weight."""

    def __init__(self, weight: float = 1.0, name: str = "means") -> None:
        network = nn.Linear(1, 1)
        nn.init.constant_(network.weight, weight)
        nn.init.zeros_(network.bias)
        super().__init__(name, network, "cpu")
        self.looks = 0

    def see(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, Tensor]:
        self.looks += len(images)
        return {"features": images.float().mean((2, 3)) * self.network.weight}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 2 * number, 0)).save(path)
    return tmp_path / "data"


def test_a_reference_is_looked_at_once(folder: Path, tmp_path: Path) -> None:
    config, cache = DataConfig(source=str(folder)), tmp_path / "cache"
    first = Means()
    rows = reference_rows(config, [first, Pixels()], cache)
    want = np.array([[number, 2 * number, 0] for number in (0, 2, 4, 1, 3, 5)], np.float32)
    np.testing.assert_array_equal(rows["means/features"], want)
    assert rows.aspects == ("means/features",) and rows.observers == {"means": first.fingerprint}
    assert (len(rows), rows.labels.tolist(), rows.classes) == (6, [0, 0, 0, 1, 1, 1], ("a", "b"))
    again, other = Means(), Means(2.0)
    assert np.array_equal(reference_rows(config, [again], cache)["means/features"], want) and again.looks == 0
    assert np.array_equal(reference_rows(config, [other], cache)["means/features"], 2 * want) and other.looks > 0
    beside = Means(name="others")  # one more network is no reason to ask the first again
    both = reference_rows(config, [again, beside], cache)
    assert both.aspects == ("means/features", "others/features") and again.looks == 0 and beside.looks > 0
    assert np.array_equal(reference_rows(config, [again], tmp_path / "elsewhere")["means/features"], want)
    assert again.looks > 0


def test_other_images_are_looked_at_anew(folder: Path, tmp_path: Path) -> None:
    config, cache = DataConfig(source=str(folder)), tmp_path / "cache"
    before = reference_rows(config, [Means()], cache)
    Image.new("RGB", (8, 8), (99, 0, 0)).save(folder / "a" / "0.png")
    after = reference_rows(config, [Means()], cache)
    assert after.fingerprint != before.fingerprint and after["means/features"][0].tolist() == [99, 0, 0]
    small = reference_rows(config.model_copy(update={"limit": 2}), [Means()], cache)
    assert len(small) == 2 and small.fingerprint != after.fingerprint


def test_the_classifier_is_trained_once_for_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, epochs = DataConfig(source="digits", limit=256), []
    found = auto_classifier(config, tmp_path, lambda done, of: epochs.append((done, of)))
    assert epochs == [(number, 40) for number in range(1, 41)]
    observer = found.open()
    assert observer.classes == tuple("0123456789")
    images = Stored(config)
    told = observer.look(images.block(0, 256), None)["classifier/logits"].argmax(1)
    assert (told == images.labels).mean() > 0.9

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(reference, "train_classifier", never)
    assert auto_classifier(config, tmp_path) == found == auto_classifier(config, tmp_path, images=images)
    for change in ({"limit": 255}, {"flip": True}, {"size": 16}):
        with pytest.raises(AssertionError, match="trained again"):
            auto_classifier(config.model_copy(update=change), tmp_path)


def test_what_it_is_trained_on_is_what_has_a_label(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Stored(DataConfig(source=str(folder)))
    images.labels = np.array([0, -1, 0, 1, -1, 1])
    seen = {}

    def train(pixels: Tensor, labels: Sequence[int], classes: int, **more: object) -> FeatureClassifier:
        seen.update(pixels=pixels, labels=labels, flip=more["flip"])
        return FeatureClassifier(more["config"])

    monkeypatch.setattr(reference, "train_classifier", train)
    auto_classifier(DataConfig(source=str(folder), flip=True), tmp_path / "cache", images=images)
    assert seen["labels"] == [0, 0, 1, 1] and seen["flip"] is True
    assert torch.equal(seen["pixels"], images.block(0, 6)[[0, 2, 3, 5]])
    monkeypatch.setattr(reference, "MEMORY", 3 * 8 * 8 * 1.25**2 * 2)  # room for two
    auto_classifier(DataConfig(source=str(folder)), tmp_path / "cache", images=images)
    assert len(seen["labels"]) == 2


def test_images_without_classes_train_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"no labels of two classes or more; name the column"):
        auto_classifier(DataConfig(source=str(folder), label_column="none"), tmp_path)
    with pytest.raises(BadValue, match="no labels of two classes"):
        auto_classifier(DataConfig(source=str(folder), limit=3), tmp_path)
    with pytest.raises(NotSupported, match="up to 64x64, these are 65x65"):
        auto_classifier(DataConfig(source=str(folder), size=65), tmp_path)


def test_labels_are_numbered_as_the_classifier_does(folder: Path) -> None:
    def eyes(*names: str) -> list[ClassifierObserver]:
        return [ClassifierObserver(FeatureClassifier(ClassifierConfig(3, 3, 8, (4, 8), names=names)))]

    before = Stored(DataConfig(source=str(folder)))
    images = aligned(Stored(DataConfig(source=str(folder))), eyes("b", "c", "a"))
    assert images.labels.tolist() == [2, 2, 2, 0, 0, 0] and images.classes == ("b", "c", "a")
    assert images.fingerprint != before.fingerprint
    assert aligned(Stored(DataConfig(source=str(folder))), eyes()).fingerprint == before.fingerprint
    assert aligned(Stored(DataConfig(source=str(folder))), [Means()]).classes == ("a", "b")
    with pytest.raises(UnknownLabel, match="no class 'a'"):
        aligned(before, eyes("b", "c", "d"))
    before.labels[:3] = -1  # a class that none shows need not be known
    assert aligned(before, eyes("b", "c", "d")).labels.tolist() == [-1, -1, -1, 0, 0, 0]


def renamed(folder: Path, **names: str) -> Stored:
    """Return the images of a folder when its classes have other names, which do not change their order."""
    for old, new in names.items():
        (folder / old).rename(folder / f"new-{new}")
    for new in names.values():
        (folder / f"new-{new}").rename(folder / new)
    return Stored(DataConfig(source=str(folder)))


def untrained(pixels: Tensor, labels: Sequence[int], classes: int, **more: Any) -> FeatureClassifier:
    return FeatureClassifier(more["config"])


def test_a_classifier_is_that_of_the_names_of_its_classes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "train_classifier", untrained)
    config, cache = DataConfig(source=str(folder)), tmp_path / "cache"
    before, images = auto_classifier(config, cache), Stored(config)
    other = renamed(folder, a="b", b="c")
    assert other.fingerprint == images.fingerprint and other.classes == ("b", "c")
    after = auto_classifier(config, cache, images=other)
    assert (before.open().classes, after.open().classes) == (("a", "b"), ("b", "c"))


def test_renamed_classes_are_not_taken_for_what_they_were_called(folder: Path) -> None:
    eyes = [ClassifierObserver(FeatureClassifier(ClassifierConfig(3, 3, 8, (4, 8), names=("c", "b", "a"))))]
    before = aligned(Stored(DataConfig(source=str(folder))), eyes)
    after = aligned(renamed(folder, a="b", b="c"), eyes)
    assert (before.labels.tolist(), after.labels.tolist()) == ([2, 2, 2, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    assert before.fingerprint != after.fingerprint


COMMAND = """
import sys, time
from pathlib import Path
from study.test_reference import DataConfig, auto_classifier, reference, untrained

def train(*given, **more):
    time.sleep(1)
    with open(sys.argv[3], "a") as log:
        log.write("trained\\n")
    return untrained(*given, **more)

reference.train_classifier = train
assert auto_classifier(DataConfig(source=sys.argv[1]), Path(sys.argv[2])).open().classes == ("a", "b")
"""


def test_two_commands_train_once(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, str(folder), str(tmp_path / "cache"), str(tmp_path / "log")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        said = one.communicate(timeout=300)[1]
        assert one.returncode == 0, said
    assert (tmp_path / "log").read_text() == "trained\n"


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GUIDON_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("GUIDON_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "guidon"
