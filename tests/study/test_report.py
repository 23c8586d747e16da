"""The page of a sweep: it holds what was measured, carries everything with it, and runs nothing that a text says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from support import cells
from support.cells import figure, sweep

from guidon.errors import DataError, MissingFile
from guidon.study import sprites
from guidon.study.columns import columns
from guidon.study.report import best_cells, command, page, write_report
from guidon.study.store import Store

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{data}}\u2028"


def figures(rule: str, w: float) -> dict:
    return {
        "fid": figure(10 / w, 0.5),
        "recall": figure(math.nan if w == 4 else 0.9 - w / 10, 0.01),
        "saturation": figure(w / 8),
    }


@pytest.fixture
def folder(tmp_path):
    sweep(tmp_path / "s", figures, rules=("plain", HOSTILE), captions=["a cat", HOSTILE, "a fox", "an owl"])
    return tmp_path / "s"


def data_in(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_the_page_holds_what_the_store_holds(folder):
    finished, data = Store(folder).cells(), data_in(write_report(folder).read_text())
    keys = [column["key"] for column in data["columns"]]
    assert keys == ["fid", "recall", "saturation", "nfe", "seconds", "peak_memory"]
    assert [axis["values"] for axis in data["axes"]] == [["plain", HOSTILE], ["1", "2", "4"]]
    assert data["axes"][1]["numbers"] == [1, 2, 4] and data["axes"][0]["numbers"] is None
    assert len(data["cells"]) == len(finished) == 6
    for told, cell in zip(data["cells"], finished, strict=True):
        assert [axis["values"][i] for axis, i in zip(data["axes"], told["axes"], strict=True)] == [
            str(v) for v in cell.axes.values()
        ]
        fid, recall = cell.figures["fid"], cell.figures["recall"]
        assert told["values"][0] == [fid.value, fid.low, fid.high]
        assert told["values"][1] == (None if math.isnan(recall.value) else [recall.value, recall.low, recall.high])
        assert told["values"][3] == [cell.cost.nfe, None, None] and told["n"] == 100
    assert data["lines"] == [[0, 1, 2], [3, 4, 5]] and data["names"] == ["plain", HOSTILE]
    assert (data["along"], data["pair"]) == ("a1", ["c3", "c0"])
    assert data["facts"]["model"] == "runs/tiny" and "f00d" in data["facts"]["features"]
    titles = [row[0] for row in data["metrics"]]
    assert titles[0] == "FID" and all(row[4] == "100" and row[5] == "500" and row[6] for row in data["metrics"][:2])


def test_texts_cannot_leave_the_data(folder):
    text = write_report(folder).read_text()
    assert text.count("</script>") == 2 and "onerror" not in text.replace('onerror=\\"', "")
    assert "<img src=x" not in text and "<script>document" not in text
    titled = page({**data_in(text), "title": HOSTILE})
    assert data_in(titled)["title"] == HOSTILE and "<title>&lt;/script&gt;" in titled


def test_the_page_loads_nothing_and_runs_its_own_script_only(folder):
    text = write_report(folder).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    script = re.search(r"<script>(.*?)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert set(re.findall(r"https?://[^\"'\s)]+", script)) == {
        "http://www.w3.org/2000/svg"
    }  # the name of SVG, not a place
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|innerHTML|insertAdjacent|document\.write|eval\(", text)
    assert not re.search(r"<(link|iframe|object|script src|img)\b", text)


def test_images_are_inside_pixel_for_pixel(folder):
    data = data_in(write_report(folder).read_text())
    tile = data["tile"]
    assert (tile["width"], tile["height"], tile["count"]) == (8, 8, 4)
    assert tile["names"] == ["a cat", HOSTILE, "a fox", "an owl"]
    for c, cell in enumerate(data["cells"]):
        kind, _, content = cell["images"].partition(",")
        assert kind == "data:image/webp;base64"
        whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        for i in range(cell["count"]):
            row, column = divmod(i, tile["across"])
            assert (whole[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] == (c, 10 * i, 200)).all()


def test_large_images_leave_a_page_that_can_be_mailed(tmp_path, monkeypatch):
    monkeypatch.setattr(sprites, "ROOM", 150_000)
    noise = np.random.default_rng(0).integers(0, 256, (16, 3, 120, 120), np.uint8)
    monkeypatch.setattr(cells.Plates, "block", lambda self, start, stop: torch.from_numpy(noise[start:stop]))
    sweep(tmp_path / "s", figures, images=16)
    written = write_report(tmp_path / "s")
    tile = data_in(written.read_text())["tile"]
    assert (tile["width"], tile["count"]) == (96, 4)  # nine of them are twice too many
    assert written.stat().st_size < 150_000 * 4 / 3 + 50_000


def test_a_sweep_without_the_images_of_its_cells_has_a_page_too(folder):
    shutil.rmtree(folder / "cells")
    data = data_in(write_report(folder).read_text())
    assert data["tile"] is None and len(data["cells"]) == 6


def test_strips_beside_it_are_put_in(folder):
    Image.new("RGB", (3, 3)).save(folder / "film-1-w-2.png")
    (film,) = data_in(write_report(folder).read_text())["films"]
    assert film["about"] == "1-w-2" and base64.b64decode(film["image"].partition(",")[2])[:4] == b"\x89PNG"


def test_the_best_cells_and_their_commands(folder):
    finished = Store(folder).cells()
    best = [(cell.axes["w"], [column.key for column in won]) for cell, won in best_cells(finished, columns(finished))]
    assert best == [(4, ["fid"]), (1, ["recall"])]  # the first of equals; neither way of saturation is better
    words = shlex.split(command(finished[1]), comments=True)
    assert words[:3] == ["guidon", "sample", "runs/tiny"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert options == {"--rule": "cfg(2)", "--steps": "10", "--seed": "3", "--n": "100"}


def test_a_command_for_texts_makes_the_first_images_whatever_they_say(tmp_path):
    told = ["a cat", "$(rm -rf ~)", 'it\'s; "so"']
    (cell, *_) = sweep(tmp_path, figures, settings={"told": told, "negative": ["red"], "average": 0.05})
    line = command(cell)
    words = shlex.split(line, comments=True)
    assert words[words.index("--prompt") + 1 :] == [*told, "--n", "1", "--negative", "red"]
    assert "first 3 of its 100" in line and "0.05" in line


def test_a_command_says_the_precision_and_never_the_word_none(tmp_path):
    (cell, *_) = sweep(
        tmp_path, figures, settings={"told": ["a", None], "negative": [None, "red"], "precision": "bf16"}
    )
    words = shlex.split(command(cell), comments=True)
    assert words[words.index("--precision") + 1] == "bf16" and words[-2:] == ["--negative", "red"]
    assert words[words.index("--label") + 1 :][:3] == ["a", "--n", "1"] and "None" not in words
    assert "nothing to steer away from" in command(cell) and "first 1 of" in command(cell)
    (cell, *_) = sweep(tmp_path / "b", figures, settings={"told": [None], "precision": "fp32"})
    words = shlex.split(command(cell), comments=True)
    assert words[-2:] == ["--n", "100"] and "--label" not in words and "--precision" not in words


def test_what_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(MissingFile, match="no sweep"):
        write_report(tmp_path)
    Store(tmp_path)
    with pytest.raises(DataError, match="no finished cell"):
        write_report(tmp_path)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_a_browser_draws_it_and_is_not_taken_in(folder, tmp_path):
    written = write_report(folder)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=3000",
    ]
    done = subprocess.run(
        ["chromium", *flags, "--dump-dom", written.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    if not done.stdout:
        pytest.skip("the browser does not start here")
    dom = done.stdout
    assert "<title>Guidance of runs/tiny</title>" in dom  # nobody renamed it
    assert dom.count('class="dot') == 2 * 6 and len(re.findall(r"<tr[^>]*><td>●?</td>", dom)) == 6
    assert "&lt;/script&gt;&lt;script&gt;" in dom and dom.count("<script") == 2 and "<img" not in dom
    assert dom.count("<canvas") == 3 * 4
