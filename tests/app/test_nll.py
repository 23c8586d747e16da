"""``guidon nll``: what it measures, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cyclopts import App
from PIL import Image
from torch import nn

from guidon.app import nll_command
from guidon.app.nll_command import EXAMPLES, chain, nll, read_images
from guidon.app.nll_plot import account, nll_figure
from guidon.errors import BadValue, ShapeMismatch, UnknownLabel
from guidon.measure.likelihood import BitsPerDim, bits_per_dim
from guidon.model import Model, ModelConfig
from guidon.noise.grids import Trailing

TINY = {
    "in_channels": 1,
    "out_channels": 1,
    "model_channels": 8,
    "channel_mult": [1],
    "num_res_blocks": 1,
    "attention": [],
}


def tiny(process: str = "vp-table('cosine', steps=12)", classes: str = "0123456789", **more: object) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"shape": (1, 8, 8), "architecture": TINY, "process": process, "classes": tuple(classes) or None}
        model = Model(ModelConfig(**{**config, **more}))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny().save_pretrained(tmp_path / "model")
    return tmp_path


def test_what_is_written_is_what_is_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "deep" / "nll.json"
    nll(str(folder / "model"), "digits", n=5, seed=3, out=out, max_batch=2)
    told = json.loads(out.read_text())
    model = tiny()
    batch = read_images(model, "digits", "train", 5, 3)
    want = bits_per_dim(model, batch.images, batch.labels, seed=3)
    assert told["bits_per_dim"] == pytest.approx(want.mean, rel=1e-5)
    assert told["standard_error"] == pytest.approx(want.standard_error, rel=1e-4)
    assert [term["bits"] for term in told["terms"]] == pytest.approx(want.terms.mean(0).tolist(), rel=1e-4, abs=1e-6)
    assert [term["noise_level"] for term in told["terms"]] == [float(level.noise_level) for level in want.levels[:-1]]
    assert told["images"] == pytest.approx(want.total.tolist(), rel=1e-5)
    assert told["bits_per_dim"] == pytest.approx(told["prior"] + sum(term["bits"] for term in told["terms"]))
    assert told["record"]["steps"] == 12 and told["record"]["images"] == 5 and told["record"]["labels"] is True
    assert len(told["record"]["weights"]) == 64
    shown = capsys.readouterr().out
    assert f"{want.mean:.4f} ± {want.standard_error:.4f} bits/dim of 5 images" in shown and str(out) in shown
    assert Image.open(out.with_suffix(".png")).size == (1100, 396)


def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "nll.json"
    out.with_suffix(".png").write_text("a picture of another")
    for seed in (1, 2):
        nll(str(folder / "model"), "digits", n=1, seed=seed, steps=2, out=out)
    assert out.with_suffix(".png").read_text() == "a picture of another" and not out.exists()
    seeds = [json.loads((folder / f"nll-{run}.json").read_text())["record"]["seed"] for run in (2, 3)]
    assert seeds == [1, 2] and (folder / "nll-3.png").exists()
    assert f"wrote {folder / 'nll-3.json'} and {folder / 'nll-3.png'}" in capsys.readouterr().out
    with pytest.raises(BadValue, match=r"call it .*likely\.json"):
        nll(str(folder / "model"), "digits", out=folder / "likely.png")


def test_the_chain_is_the_table_or_what_is_asked_for() -> None:
    table, smooth = tiny(), tiny("cosine")
    name, levels = chain(table, None, None)
    assert name == "respaced" and [level.t for level in levels] == [*range(11, -1, -1), -1]
    assert [level.t for level in chain(table, None, 3)[1]] == [11, 6, 0, -1]
    assert chain(table, "trailing", 4)[1] == Trailing().levels(table.process, 4)
    name, levels = chain(smooth, None, None)
    assert (name, len(levels)) == ("log-snr", 251)
    assert len(chain(smooth, "karras(rho=5)", 7)[1]) == 8
    assert len(chain(table, "respaced", None)[1]) == 13
    assert len(chain(table, "respaced('ddim4')", 50)[1]) == 5  # a spec says how many
    for grid in (None, "respaced"):
        with pytest.raises(BadValue, match="the model's chain has 12 steps, 13 are asked for; ask for --steps 1 to 12"):
            chain(table, grid, 13)


def test_images_come_with_the_models_own_classes() -> None:
    batch = read_images(tiny(), "digits", "train", 8, 0)
    turned = read_images(tiny(classes="9876543210"), "digits", "train", 8, 0)
    assert torch.equal(batch.images, turned.images) and batch.labels is not None and turned.labels is not None
    assert torch.equal(batch.labels, 9 - turned.labels)
    assert not torch.equal(batch.images, read_images(tiny(), "digits", "train", 8, 1).images)
    assert len(read_images(tiny(), "digits", "train", 5000, 0)) == 1797
    assert read_images(tiny(classes="", architecture=TINY | {"vector": None}), "digits", "train", 8, 0).labels is None
    with pytest.raises(
        UnknownLabel, match=r"^7 of the data's 10 classes .*: 3, 4, 5, 6, 7, 8, 9; it knows a, b, c\. Give"
    ):
        read_images(tiny(classes="abc"), "digits", "train", 8, 0)


def test_other_images_are_made_to_fit_or_refused(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "red.png")
    alone = tiny(classes="", architecture=TINY | {"vector": None})
    batch = read_images(alone, str(tmp_path), "train", 1, 0)
    assert batch.images.shape == (1, 1, 8, 8)
    wide = tiny(classes="", architecture=TINY | {"vector": None}, shape=(1, 8, 16))
    with pytest.raises(ShapeMismatch, match=r"\(1, 10, 20\).*\(1, 8, 16\)"):
        read_images(wide, str(tmp_path), "train", 1, 0)


def test_a_level_without_signal_has_no_number_and_is_left_out_of_the_picture() -> None:
    model = tiny("vp-table('cosine', steps=12, zero_snr=true)")
    found = bits_per_dim(model, read_images(model, "digits", "train", 1, 0).images)
    told = account(found)
    assert told["terms"][0]["noise_level"] is None and told["terms"][1]["noise_level"] > 1
    assert told["standard_error"] is None
    line = nll_figure(found, "").axes[0].lines[0]
    assert len(line.get_xdata()) == 11
    assert line.get_ydata().tolist() == pytest.approx(found.terms[0, 1:].tolist())


def test_the_second_panel_ends_at_the_total() -> None:
    model = tiny()
    found: BitsPerDim = bits_per_dim(model, read_images(model, "digits", "train", 4, 0).images)
    assert nll_figure(found, "").axes[1].lines[0].get_ydata()[-1] == pytest.approx(found.mean)


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    app = App(name="guidon", result_action="return_value", exit_on_error=False, help_format="plaintext")
    app.command(nll_command.nll, help_epilogue=EXAMPLES)
    app(["nll", "--help"])
    shown = capsys.readouterr().out
    assert shown.count("\n  guidon ") == EXAMPLES.count("\n  guidon ") > 0
    assert max(map(len, EXAMPLES.splitlines())) <= 80
