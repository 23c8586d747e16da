from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import guidon
from guidon import registry
from guidon.errors import (
    BadValue,
    DamagedCheckpoint,
    GuidonError,
    MissingFile,
    NotSupported,
    ShapeMismatch,
    UnknownLabel,
    UnknownName,
)
from guidon.model import Model, ModelConfig

TINY = {
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention": (2,),
    "in_channels": 1,
    "out_channels": 1,
}


def tiny(**changes: object) -> Model:
    torch.manual_seed(0)
    settings = {"shape": (1, 8, 8), "architecture": TINY, "classes": ("cat", "dog", "emu")} | changes
    model = Model(ModelConfig(**settings))  # type: ignore[arg-type]
    with torch.no_grad():  # the last layer starts at zero, which would hide the condition
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def test_the_public_list_is_complete_and_true() -> None:
    for name in guidon.__all__:
        assert getattr(guidon, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        _ = guidon.nothing


def test_a_model_survives_the_disk(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    again = guidon.load(tmp_path / "m")
    assert again.config == model.config
    assert torch.equal(again.sample(seed=3, steps=3).x, model.sample(seed=3, steps=3).x)


def test_an_image_depends_on_its_seed_alone(model: Model) -> None:
    together = model.sample(["cat", "dog", "emu"], seed=[5, 9, 2], rule="cfg(2)", solver="ddim(eta=1)", steps=4).x
    alone = model.sample("dog", seed=9, rule="cfg(2)", solver="ddim(eta=1)", steps=4).x
    chunked = model.sample(
        ["cat", "dog", "emu"], seed=[5, 9, 2], rule="cfg(2)", solver="ddim(eta=1)", steps=4, max_batch=2
    ).x
    sequential = model.sample(
        ["cat", "dog", "emu"], seed=[5, 9, 2], rule="cfg(2)", solver="ddim(eta=1)", steps=4, batching="sequential"
    ).x
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, chunked, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, sequential, atol=1e-5, rtol=1e-5)


def test_half_precision_is_of_the_networks_alone(model: Model) -> None:
    exact, half = (model.sample(seed=3, steps=4, rule="fdg([4, 2])", precision=p) for p in ("fp32", "bf16"))
    assert half.x.dtype == torch.float32 and half.record["precision"] == "bf16"
    apart = (half.x - exact.x).abs().max() / exact.x.abs().max()
    assert 1e-5 < apart < 0.1
    # what the rule does to beliefs, and the solver to states, is not rounded: more than eight bits are left
    assert not torch.equal(half.x, half.x.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        everything = model.sample(seed=3, steps=4, rule="fdg([4, 2])")
    assert not torch.equal(everything.x, half.x)


def test_the_label_and_the_weight_matter(model: Model) -> None:
    cat, dog, none = (model.sample([label], seed=0, steps=3, rule="cfg(1)").x for label in ("cat", "dog", None))
    assert (cat - dog).abs().max() > 1e-3
    assert torch.equal(model.sample("cat", seed=0, steps=3, rule=0.0).x, none)
    assert (model.sample("cat", seed=0, steps=3, rule=3.0).x - cat).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("rule", "solver", "nfe"),
    [
        ("cfg(1)", "euler", 5),
        ("cfg(3)", "euler", 10),
        ("cfg(3)", "heun", 18),
        ("cfg(0)", "dpmpp-2m", 5),
        ("cfg([1, 3])", "ddpm", 10),
    ],
)
def test_evaluations_are_counted(model: Model, rule: str, solver: str, nfe: int) -> None:
    samples = model.sample(["cat", "dog"], rule=rule, solver=solver, steps=5)
    assert samples.nfe == samples.record["nfe"] == nfe


def test_a_record_makes_the_same_images(model: Model) -> None:
    first = model.sample(
        ["cat", None],
        n=2,
        rule="cfg(3, when=interval(0.3, 3))",
        solver="ddim(eta=0.5)",
        grid="log-snr",
        steps=4,
        seed=7,
    )
    record = json.loads(json.dumps(first.record))
    again = model.sample(
        record["labels"],
        rule=record["rule"],
        solver=record["solver"],
        grid=record["grid"],
        steps=record["steps"],
        seed=record["seeds"],
    )
    assert torch.equal(first.x, again.x)
    assert first.labels == (0, 0, None, None)


def test_pictures_are_rounded_and_clipped(model: Model) -> None:
    samples = model.sample(n=2, steps=2)
    expected = ((samples.x.double() + 1) * 127.5).round().clamp(0, 255)
    assert torch.equal(torch.from_numpy(samples.uint8()).permute(0, 3, 1, 2).double(), expected)
    assert [image.size for image in samples.pil()] == [(8, 8)] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"told": "cta"}, UnknownLabel, "did you mean 'cat'"),
        ({"told": 3}, UnknownLabel, "0 to 2"),
        ({"told": -1}, UnknownLabel, "0 to 2"),
        ({"rule": "cfgg(3)"}, UnknownName, "did you mean 'cfg'"),
        ({"rule": "cfg('abc')"}, BadValue, "abc"),
        ({"rule": "cfg(3, wen=1)"}, BadValue, "did you mean 'when'"),
        ({"rule": "cfg(3"}, BadValue, "cannot read"),
        ({"rule": float("nan")}, BadValue, "finite"),
        ({"told": ["cat"], "rule": "cfg([1, 2])"}, ShapeMismatch, "2 weights for 1 images"),
        ({"steps": -1}, BadValue, "at least 1 step"),
        ({"n": 0}, BadValue, "at least 1"),
        ({"seed": [1]}, BadValue, "1 seeds for 3 images"),
        ({"seed": -1}, BadValue, "seed"),
        ({"batching": "parallel"}, BadValue, "joint or sequential"),
        ({"max_batch": 0}, BadValue, "at least 1"),
        ({"told": []}, BadValue, "no label"),
        ({"told": [1.5]}, UnknownLabel, "1.5"),
        ({"steps": 2.5}, BadValue, "whole number"),
        ({"seed": [0.5, 1, 2]}, BadValue, "whole number"),
        ({"seed": 2**32}, BadValue, "seed"),
        ({"solver": 3}, BadValue, "no solver"),
    ],
)
def test_bad_values_are_refused_with_a_remedy(
    model: Model, arguments: dict, error: type[GuidonError], says: str
) -> None:
    with pytest.raises(error, match=says):
        model.sample(**arguments)


def test_an_unconditional_model_has_no_labels() -> None:
    model = tiny(classes=None, architecture=TINY | {"vector": None})
    samples = model.sample(n=3, steps=2)
    assert (samples.x.shape, samples.nfe) == ((3, 1, 8, 8), 2)
    with pytest.raises(NotSupported, match="without classes"):
        model.sample(rule="cfg(3)")
    with pytest.raises(UnknownLabel, match="no classes"):
        model.sample("cat")


@pytest.mark.parametrize(
    "grid",
    [
        "ends(karras, at='last')",
        "ends(karras, at='least')",
        "ends(aligned(karras, [0.5]), at='least')",
        "ends(listed([9, 1, 0.1]), at='last')",
        "aligned(log-snr, [3, 0.3])",
        "listed([9, 1, 0.1])",
        "finite(linspace)",
    ],
)
def test_a_record_makes_the_same_images_on_any_grid(grid: str) -> None:
    model = tiny()
    first = model.sample(n=2, seed=3, grid=grid, solver="churn(solver=euler, amount=5)", steps=6)
    record = first.record
    again = model.sample(n=2, seed=3, grid=record["grid"], solver=record["solver"], steps=record["steps"])
    assert torch.equal(again.x, first.x)
    assert record["steps"] == 6 or "listed" in grid


def test_a_respacing_says_its_own_number_of_steps() -> None:
    samples = tiny(process="vp-table", output="eps").sample(n=1, grid="respaced('ddim4')", steps=20)
    assert (samples.record["steps"], samples.nfe) == (4, 8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": None}, "without a door"),
        ({"architecture": TINY | {"model_chanels": 8}}, "model_chanels"),
        ({"architecture": TINY | {"channel_mult": ()}}, "channel_mult"),
    ],
)
def test_configs_that_cannot_work_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        tiny(**changes)


@pytest.mark.parametrize(("shape", "says"), [((1, 9, 8), "multiples of 2"), ((3, 8, 8), "in_channels 3")])
def test_images_that_the_network_cannot_take_are_refused(shape: tuple[int, int, int], says: str) -> None:
    with pytest.raises(ShapeMismatch, match=says):
        tiny(shape=shape)


@pytest.mark.parametrize("damage", ["config", "tensors", "swapped"])
def test_a_folder_that_does_not_fit_is_refused(model: Model, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "m"
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    if damage == "config":
        config["shpae"] = config.pop("shape")
    elif damage == "tensors":
        config["classes"] = ["cat", "dog"]
    else:
        config["architecture"]["model_channels"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DamagedCheckpoint):
        guidon.load(folder)


def test_a_name_that_is_nowhere_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingFile):
        guidon.load("runs")
    with pytest.raises(MissingFile, match="hub"):
        guidon.load("nobody/nothing-of-this-name")


@pytest.mark.parametrize("output", registry.names("output"))
@pytest.mark.parametrize("process", ["vp-table", "vp-table('scaled-linear', zero_snr=True)", "cosine", "edm", "flow"])
def test_every_process_and_output_samples(process: str, output: str) -> None:
    model = tiny(process=process, output=output)
    signal_left = float(model.process.alpha(model.process.t_max)) > 0
    grid = "log-snr" if not signal_left and output in ("eps", "edm") else "trailing"
    assert model.sample(n=1, steps=3, grid=grid).x.isfinite().all()


def test_push_to_hub_uploads_what_from_pretrained_reads(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub:
        def __init__(self, token: str | None = None) -> None:
            assert token == "secret"

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            assert (repo_id, private, exist_ok) == ("me/model", True, True)

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> str:
            shutil.copytree(folder_path, tmp_path / repo_id)
            return f"hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert model.push_to_hub("me/model", private=True, token="secret") == "hub/me/model"
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo_id, **_: str(tmp_path / repo_id))
    again = guidon.load("me/model")
    assert torch.equal(again.sample(seed=1, steps=2).x, model.sample(seed=1, steps=2).x)


def test_a_model_that_is_told_nothing_but_shown_an_image_refuses_what_steers_by_a_class() -> None:
    shown = tiny(classes=None, low_res=(4, 4), architecture=TINY | {"vector": None, "spatial_channels": 1})
    small = torch.zeros(1, 1, 4, 4)
    assert shown.sample(None, image=small, rule="cfg(1)", steps=2).x.shape == (1, 1, 8, 8)
    with pytest.raises(NotSupported, match="it changes nothing"):
        shown.sample(None, image=small, rule="cfg(3)", steps=2)
