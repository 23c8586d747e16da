"""The demo, small: a few steps of training on a few real digits, everything else as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from guidon.app.demo import MEASURED, SHOWN, run_demo
from guidon.errors import BadValue
from guidon.training.recipe import read_recipe

RECIPE = {
    "data": {"source": "digits", "limit": 200},
    "model": {
        "architecture": {"model_channels": 8, "channel_mult": [1], "num_res_blocks": 1, "attention": [], "heads": 1}
    },
    "train": {"steps": 3, "batch_size": 8, "threads": 1, "sample_every": None, "trackers": []},
    "sample": {"steps": 2},
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    run_demo(folder, recipe=read_recipe(RECIPE), per_class=9)
    return folder


def test_the_report_stands_alone_and_tells_every_measure(out):
    page = (out / "report.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:|/)""", page) is None
    assert page.count("<svg") == 1
    facts = json.loads((out / "report.json").read_text())
    assert [row["weight"] for row in facts["rows"]] == list(MEASURED) and {3.0, *SHOWN} <= set(MEASURED)
    for row in facts["rows"]:
        assert {"accuracy", "frechet", "precision", "recall", "nfe", "seconds"} <= row.keys()
        assert row["n"] == 90 == sum(row["classes_seen"])
        assert row["nfe"] == (2 if row["weight"] in (0, 1) else 4)
        assert f"<td>{row['accuracy']:.1%}</td>" in page


def test_the_picture_has_a_row_for_every_weight_and_a_column_for_every_digit(out):
    with Image.open(out / "guidance.png") as picture:
        assert picture.width > 10 * 3 * 8 and picture.height > len(SHOWN) * 3 * 8
        assert (220, 38, 38) in {colour for _, colour in picture.getcolors(1 << 24)}  # an untrained model errs


def test_a_second_time_the_training_is_used_again(out, capsys):
    weights = out / "run" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    run_demo(out, recipe=read_recipe(RECIPE), per_class=9)
    assert "was done before" in capsys.readouterr().out and weights.stat().st_mtime_ns == before


def test_another_run_in_the_way_is_left_alone(out):
    other = read_recipe(RECIPE | {"train": RECIPE["train"] | {"steps": 4}})
    with pytest.raises(BadValue, match="not made by this recipe"):
        run_demo(out, recipe=other, per_class=9)
    assert (out / "run" / "model").exists()
