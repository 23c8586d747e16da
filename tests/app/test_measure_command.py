"""``guidon measure``: what it measures is what the metrics say, once, however many processes do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import guidon
from guidon.measure.distances import FeatureStatistics, frechet_distance
from guidon.measure.features import ClassifierConfig, FeatureClassifier
from guidon.measure.manifold import precision_recall


def pictures(folder: Path, count: int, seed: int, side: int = 12, mean: int = 128) -> Path:
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = folder / ("cat", "dog", "sea lion")[number % 3] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(mean, 40 + 10 * (number % 3), (side, side, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def judge(tmp_path: Path) -> FeatureClassifier:
    """A classifier with random weights, saved as "judge"; its classes stand in an order of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        names = ("dog", "sea lion", "cat")
        network = FeatureClassifier(ClassifierConfig(3, 3, 12, (8, 16), names=names)).eval()
        torch.nn.init.constant_(network.head.bias[2:], 100.0)  # it takes everything for a cat
    network.save(tmp_path / "judge")
    return network


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def loaded(folder: Path) -> torch.Tensor:
    files = sorted(folder.rglob("*.png"), key=lambda path: str(path.relative_to(folder)))
    return torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).permute(0, 3, 1, 2)


def told(folder: Path | str, name: str = "measure.json") -> Any:
    return json.loads((Path(folder) / name).read_text())


SEEN = "--features \"classifier('judge')\""


def test_figures_are_those_of_the_metrics(guidon: Callable[..., Any], judge: FeatureClassifier) -> None:
    here, there = pictures(Path("made"), 31, 0, mean=100), pictures(Path("real"), 42, 1)
    answer = guidon(f"measure made -r real -m fid precision recall accuracy saturation {SEEN} -o out")
    assert answer.code == 0, answer.err
    found = told("out")
    sample, real = judge.features(loaded(here)), judge.features(loaded(there))
    want = {"fid": frechet_distance(FeatureStatistics.of(sample), FeatureStatistics.of(real))}
    want["precision"], want["recall"] = precision_recall(real, sample)
    labels = [2] * 11 + [0] * 10 + [1] * 10  # cats, dogs and sea lions as the classifier numbers them
    want["accuracy"] = judge.accuracy(loaded(here), labels)
    for name, value in want.items():
        assert found["figures"][name]["value"] == pytest.approx(value, rel=1e-4), name
        assert found["figures"][name]["low"] <= value <= found["figures"][name]["high"]
    assert {name: figure["n_reference"] for name, figure in found["figures"].items()} == {
        "fid": 42,
        "precision": 42,
        "recall": 42,
        "accuracy": 0,
        "saturation": 0,
    }
    print_ = found["networks"]["classifier"]
    assert found["figures"]["fid"]["network"] == print_ and found["figures"]["saturation"]["network"] == ""
    assert found["images"]["n"] == 31 and found["reference"]["n"] == 42 and found["resamples"] == 200
    (line,) = [line for line in answer.out.splitlines() if line.lstrip().startswith("fid")]
    assert line.split() == ["fid", "↓", f"{want['fid']:.4g}", *line.split()[3:6], "31", "42", "classifier", print_[:6]]
    assert line.split()[4] == "to" and "wrote out/measure.json" in answer.out


def test_a_second_time_nothing_is_looked_at_or_overwritten(
    guidon: Callable[..., Any], judge: FeatureClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(Path("made"), 12, 0)
    pictures(Path("real"), 12, 1)
    line = f"measure made -r real -m fid --resamples 0 {SEEN} -o out"
    assert guidon(line).code == 0

    def never(*_: object) -> None:
        raise AssertionError("looked again")

    monkeypatch.setattr("guidon.measure.networks.classifier.ClassifierObserver.look", never)
    assert guidon(line).code == 0
    first, second = told("out"), told("out", "measure-2.json")
    assert first == second and first["figures"]["fid"]["low"] is None
    Image.new("RGB", (12, 12)).save("made/cat/000.png")
    with pytest.raises(AssertionError, match="looked again"):
        guidon(line)


def test_samples_of_a_model_are_measured_as_they_are_sampled(
    guidon: Callable[..., Any], judge: FeatureClassifier, model_folder: Path
) -> None:
    pictures(Path("real"), 12, 1, side=16)  # brought to the model's 12
    line = f'measure MODEL -r real -m fid accuracy --n 9 --rule "cfg(2.0)" --steps 2 --seed 5 --label cat dog {SEEN}'
    answer = guidon(line)
    assert answer.code == 0, answer.err
    model = load(model_folder)
    names = ["cat", "dog"] * 5
    samples = model.sample(names[:9], rule="cfg(2)", steps=2, seed=5)
    images = torch.from_numpy(samples.uint8()).permute(0, 3, 1, 2)
    found = told("measured")
    numbers = [2, 0] * 5
    assert found["figures"]["accuracy"]["value"] == pytest.approx(judge.accuracy(images, numbers[:9])) == 5 / 9
    assert found["images"]["request"] == {"rule": "cfg(2)", "steps": 2} and len(found["images"]["weights"]) == 64
    assert (found["images"]["n"], found["images"]["seed"], found["images"]["told"]) == (9, 5, ["cat", "dog"])
    assert found["reference"]["shape"] == [3, 12, 12]


load = guidon.load


def test_auto_is_a_classifier_of_the_reference(guidon: Callable[..., Any], cache: Path) -> None:
    for number in range(12):
        path = Path("real", "ab"[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 255 * (number % 2)).save(path)
    answer = guidon("measure real -r real -m accuracy fid --resamples 5")
    assert answer.code == 0, answer.err
    figures = told("measured")["figures"]
    assert figures["accuracy"]["value"] == 1 and figures["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert len(list((cache / "classifiers").glob("[!.]*"))) == 1


def test_without_a_reference_pixels_are_measured(guidon: Callable[..., Any]) -> None:
    pictures(Path("made"), 4, 0)
    answer = guidon("measure made --size 8 --n 3")
    assert answer.code == 0, answer.err
    found = told("measured")
    assert list(found["figures"]) == ["saturation", "contrast", "clipping"] and "reference" not in found
    assert found["images"]["shape"] == [3, 8, 8] and found["images"]["n"] == 3
    assert guidon("measure digits --n 5 -m contrast").code == 0
    shapes = guidon("measure shapes --n 20 -m adherence -o shapes")
    assert shapes.code == 0 and told("shapes")["figures"]["adherence"]["value"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("made -r nowhere", "there is no file, folder or pattern 'nowhere'"),
        ("made -r real -m fdi", "did you mean 'fid'"),
        ("made -r real -m fid@clpi", "did you mean 'clip'"),
        ("made -r real --features atuo", "did you mean 'auto'"),
        ("made -r real --features \"dinov2('a')\" \"dinov2('b')\"", "two networks called dinov2"),
        ("made -r real --features inception", "pip install torch-fidelity"),
        ("made -m fid --features \"classifier('judge')\"", "fid compares with real images; give --reference"),
        ("made -m fid", "fid compares with real images; give --reference"),
        ("made -m accuracy", "auto is a classifier trained on the reference"),
        (
            "flat -r real -m accuracy " + SEEN,
            "accuracy needs labels, and the images have none; put them into a folder for each class",
        ),
        ("flat -m adherence", "adherence needs captions"),
        ("made -r real --size 8 " + SEEN, "the classifier looks at images (3, 12, 12)"),
        ("made -r real -m precision --n 2 " + SEEN, "too few"),
        ("made -r real --rule cfg(2)", "--rule says how a model samples, and made is no folder of a model"),
        ("MODEL -r real --size 8", "leave --size out"),
        ("MODEL -r real --rule cfgg(2)", "did you mean 'cfg'"),
        ("made --metric saturation@clip", "measured without a network"),
        ("flat -r flat", "has no labels of two classes"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(
    guidon: Callable[..., Any], judge: FeatureClassifier, words: str, message: str
) -> None:
    pictures(Path("made"), 6, 0)
    pictures(Path("real"), 6, 1)
    Path("flat").mkdir()
    for file in Path("made").rglob("*.png"):
        Path("flat", file.name).write_bytes(file.read_bytes())
    answer = guidon(f"measure {words}")
    assert answer.code == 2 and message in answer.err, answer.err
    assert answer.err.startswith("guidon: ") and answer.err.count("\n") == 1
    assert not Path("measured", "measure.json").exists()


@pytest.mark.filterwarnings("default::guidon.errors.GuidonWarning")
def test_what_cannot_be_measured_does_not_keep_the_other_figures(
    guidon: Callable[..., Any], judge: FeatureClassifier
) -> None:
    pictures(Path("made"), 6, 0)
    pictures(Path("real"), 6, 1)
    Path("flat").mkdir()
    for file in Path("made").rglob("*.png"):
        Path("flat", file.name).write_bytes(file.read_bytes())
    answer = guidon(f"measure flat -r real --n 50 -m accuracy precision(300) fid contrast --resamples 5 {SEEN}")
    assert answer.code == 2 and answer.out.lstrip().startswith("figure"), answer.out
    assert "accuracy could not be measured: accuracy needs labels" in answer.err
    assert "precision(300) could not be measured" in answer.err and "note: asked for 50 images, there are" in answer.err
    found = told("measured")
    assert list(found["figures"]) == ["fid", "contrast"] and set(found["failed"]) == {"accuracy", "precision(300)"}
    assert "are fewer than the 16 features: fid says little" in answer.out


def test_two_processes_measure_what_one_does(
    tmp_path: Path, guidon: Callable[..., Any], judge: FeatureClassifier, model_folder: Path
) -> None:
    pictures(Path("real"), 20, 1)
    Path("real/cat/000.png").write_bytes(b"no image")
    words = ["measure", str(model_folder), "-r", "real", "-m", "fid", "accuracy", "saturation", "-n", "110"]
    words += ["--steps", "1", "--resamples", "20", "--features", "classifier('judge')"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "guidon"]
    done = subprocess.run(
        [*torchrun, *words, "-o", "two"],
        env=environment | {"GUIDON_CACHE": str(tmp_path / "another")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("wrote two/measure.json") == 1 and "1 of 20 images could not be read" in done.stdout
    answer = guidon(" ".join(f'"{word}"' for word in words) + " -o one")
    assert answer.code == 0, answer.err
    assert told("one") == told("two")
    (one,), (two,) = (list((Path(name) / "rows").glob("[!.]*")) for name in ("one", "two"))
    assert np.array_equal(np.load(one / "classifier.features.npy"), np.load(two / "classifier.features.npy"))
    assert json.loads((two / "rows.json").read_text())["block"] == 100  # two blocks, one for each process


def test_what_can_be_measured_is_listed(guidon: Callable[..., Any]) -> None:
    assert {"  fid", "  accuracy"} <= {
        line.partition("(")[0].rstrip() for line in guidon("list metrics").out.splitlines()
    }
    assert "  dinov2(source='facebook/dinov2-large')" in guidon("list features").out.splitlines()
