"""Sets of images: the same ones whoever asks, for whichever part, and never those of another set under its fingerprint."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.text_models import text_model

from guidon.app.pictures import SHEET
from guidon.app.sample_command import write_samples
from guidon.errors import BadRecipe, BadValue, DataError, NotSupported, ShapeMismatch
from guidon.measure.observe import observe
from guidon.model import Model, ModelConfig
from guidon.scenes.check import check
from guidon.scenes.read import read
from guidon.study.images import Sampled, Stored
from guidon.training.data import DataConfig


def picture(number: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cats and two dogs; the second cat is cut short."""
    for number, name in enumerate(("cat/a", "cat/b", "cat/c", "dog/a", "dog/b")):
        path = tmp_path / "data" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    broken = tmp_path / "data" / "cat" / "b.png"
    broken.write_bytes(broken.read_bytes()[:80])
    return tmp_path / "data"


def stored(source: Path | str, cache: Path | None = None, **more: object) -> Stored:
    return Stored(DataConfig(source=str(source), **more), cache)


def test_what_cannot_be_read_is_left_out_once_and_for_all(folder: Path) -> None:
    images = stored(folder)
    assert len(images) == 4 and images.shape == (3, 8, 8)
    assert images.labels.tolist() == [0, 0, 1, 1] and images.classes == ("cat", "dog")
    assert images.skipped.report().startswith("1 of 5 images could not be read: cat/b.png")
    want = np.stack([np.asarray(picture(number)).transpose(2, 0, 1) for number in (0, 2, 3, 4)])
    np.testing.assert_array_equal(images.block(0, 4).numpy(), want)
    np.testing.assert_array_equal(images.block(2, 3).numpy(), want[2:3])  # whatever was asked for before


def test_the_fingerprint_is_of_what_the_images_are(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = stored(folder, cache).fingerprint
    assert stored(folder).fingerprint == stored(folder, cache).fingerprint == first
    prints = {first, stored(folder, cache, size=4).fingerprint, stored(folder, cache, channels=1).fingerprint}
    prints.add(stored(folder, cache, limit=3).fingerprint)
    prints.add(stored(folder, cache, label_column="none").fingerprint)
    assert len(prints) == 5
    other = folder / "dog" / "b.png"
    before = other.stat()
    os.utime(other, ns=(0, 0))  # another date makes no other image
    assert stored(folder, cache).fingerprint == first
    raw = bytearray(Path(other).read_bytes())
    buffer = io.BytesIO()
    changed = picture(4)
    changed.putpixel((0, 0), (1, 2, 3))
    changed.save(buffer, "PNG")
    other.write_bytes(buffer.getvalue())
    assert stored(folder, cache).fingerprint not in prints
    other.write_bytes(raw)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stored(folder, cache).fingerprint == first


def test_files_that_stay_the_same_are_read_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = stored(folder, cache)

    def never(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("guidon.study.images.read_all", never)
    again = stored(folder, cache)
    assert (again.fingerprint, len(again), again.skipped.report()) == (
        first.fingerprint,
        len(first),
        first.skipped.report(),
    )
    with pytest.raises(AssertionError, match="read again"):
        stored(folder)
    (memory,) = (cache / "stored").glob("[!.]*")
    memory.write_text("damaged")
    with pytest.raises(AssertionError, match="read again"):
        stored(folder, cache)


def test_labels_may_be_missing_and_captions_are_the_first_wording(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as Pixels

    def encoded(number: int) -> dict[str, bytes]:
        picture(number).save(buffer := io.BytesIO(), "PNG")
        return {"bytes": buffer.getvalue()}

    rows = {
        "image": [encoded(0), {"bytes": b"no image"}, encoded(2), {"bytes": b""}],
        "label": ["b", "a", None, "a"],
        "text": ["one", "two", "", "four"],
    }
    features = Features({"image": Pixels(decode=False), "label": Value("string"), "text": Value("string")})
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    images = stored(tmp_path)
    assert images.labels.tolist() == [1, -1] and images.classes == ("a", "b") and images.captions == ("one", "")
    assert torch.equal(images.block(1, 2)[0], torch.from_numpy(np.asarray(picture(2)).transpose(2, 0, 1).copy()))
    assert len(images.skipped) == 2
    streamed = stored(tmp_path, streaming=True, limit=1)
    assert len(streamed) == 1 and streamed.captions == ("one",)


def test_sizes_are_brought_together_or_refused(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    picture(1, (12, 10), "L").save(tmp_path / "b.png")
    with pytest.raises(ShapeMismatch, match=r"b\.png: it is 10x12 pixels"):
        stored(tmp_path)
    images = stored(tmp_path, size=6)
    assert images.shape == (3, 6, 6) and images.block(0, 2).shape == (2, 3, 6, 6) and images.labels is None
    grey = images.block(1, 2)[0]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="holds no readable image: 2 of 2"):
        stored(tmp_path, size=6)


def test_digits_and_shapes_need_no_files() -> None:
    digits = stored("digits", limit=30)
    assert digits.shape == (1, 8, 8) and len(digits) == 30 and digits.labels[:4].tolist() == [0, 1, 2, 3]
    assert digits.fingerprint != stored("digits", limit=29).fingerprint
    shapes = Stored(DataConfig(source="shapes", size=32).model_copy(update={"limit": 20}))
    assert len(shapes) == len(shapes.captions) == 20 and shapes.labels is None
    pixels = shapes.block(0, 20)
    assert torch.equal(pixels[7:9], shapes.block(7, 9))
    for caption, image in zip(shapes.captions, pixels.permute(0, 2, 3, 1).numpy(), strict=True):
        assert check(caption, read(image)).all
    with pytest.raises(BadRecipe, match="too small for shapes"):
        stored("shapes", size=4)


def test_a_contact_sheet_is_no_image(tmp_path: Path) -> None:
    samples = tiny().sample(n=2, steps=1)
    write_samples(samples, samples.record, tmp_path)
    assert (tmp_path / f"{SHEET}.png").exists()
    images = stored(tmp_path)
    assert len(images) == 2 and f"{SHEET}.png (it is a contact sheet)" in images.skipped.report()
    np.testing.assert_array_equal(images.block(0, 2).permute(0, 2, 3, 1).numpy(), samples.uint8())


ARCHITECTURE = {"model_channels": 8, "channel_mult": [1], "num_res_blocks": 1, "attention": []}


def tiny(seed: int = 0, classes: tuple[str, ...] | None = ("cat", "dog", "owl"), **more: object) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        architecture = ARCHITECTURE | ({} if classes else {"vector": None})
        model = Model(ModelConfig(shape=(3, 8, 8), architecture=architecture, classes=classes, **more))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def test_samples_are_those_of_the_model_whatever_the_block() -> None:
    model, request = tiny(), {"rule": "cfg(2)", "steps": 3, "solver": "euler"}
    images = Sampled(model, ["owl", 0], seeds=range(7, 14), **request)
    assert images.labels.tolist() == [2, 0, 2, 0, 2, 0, 2] and images.classes == ("cat", "dog", "owl")
    want = model.sample(["owl", 0, "owl", 0, "owl", 0, "owl"], seed=range(7, 14), **request)
    whole = images.block(0, 7)
    np.testing.assert_array_equal(whole.permute(0, 2, 3, 1).numpy(), want.uint8())
    for size in (1, 3):
        parts = torch.cat([images.block(start, min(start + size, 7)) for start in range(0, 7, size)])
        assert (parts.int() - whole.int()).abs().max() <= 1  # which is rounding
        assert (parts != whole).double().mean() < 0.01
    assert images.nfe[3] == want.nfe == 6 and set(images.seconds) == {*range(7)}
    assert Sampled(model, seeds=range(5)).labels.tolist() == [0, 1, 2, 0, 1]
    assert Sampled(model, [None], seeds=range(2)).labels.tolist() == [-1, -1]
    assert Sampled(tiny(classes=None), seeds=[3]).labels is None


def test_samples_of_another_request_have_another_fingerprint() -> None:
    model = tiny()

    def of(model: Model = model, told: object = ("cat",), seeds: object = range(4), **request: object) -> str:
        return Sampled(model, told, seeds=seeds, **request).fingerprint

    assert of() == of(tiny()) == of(max_batch=7) == of(seeds=[0, 1, 2, 3])
    others = [
        of(tiny(1)),
        of(tiny(sample={"steps": 7})),
        of(told=("dog",)),
        of(seeds=range(1, 5)),
        of(seeds=range(5)),
        of(rule="cfg(2)"),
        of(steps=3),
        of(weak=model),
        of(weak=model.degraded()),
        of(negative=["dog"]),
    ]
    assert len({of(), *others}) == 1 + len(others)


def test_texts_are_captions() -> None:
    model = text_model()
    images = Sampled(model, ["a red circle", None], seeds=range(3), steps=1)
    assert images.captions == ("a red circle", "", "a red circle") and images.labels is None
    assert images.block(0, 3).dtype == torch.uint8


def test_what_cannot_be_sampled_is_refused() -> None:
    model = tiny()
    with pytest.raises(BadValue, match="no seed"):
        Sampled(model, seeds=[])
    with pytest.raises(BadValue, match="nothing is told"):
        Sampled(model, [], seeds=[0])
    with pytest.raises(BadValue, match="no class 'cta'"):
        Sampled(model, ["cta"], seeds=[0])
    with pytest.raises(NotSupported, match="measured where they are stored"):
        Sampled(model, seeds=[0], image=[picture(0)])
    wide = ARCHITECTURE | {"in_channels": 4, "out_channels": 4, "vector": None}
    latent = Model(ModelConfig(shape=(4, 8, 8), architecture=wide))
    with pytest.raises(NotSupported, match="latents of 4 channels"):
        Sampled(latent, seeds=[0])


def test_rows_of_samples_are_resumed(tmp_path: Path) -> None:
    images = Sampled(tiny(), seeds=range(4), steps=1)
    rows = observe(images, [], tmp_path / "rows", block=2, keep_images=4)
    np.testing.assert_array_equal(rows["images"], images.block(0, 4).numpy())
    images.seconds.clear()
    observe(Sampled(tiny(), seeds=range(4), steps=1), [], tmp_path / "rows", block=2, keep_images=4)
    with pytest.raises(BadValue, match="another measurement"):
        observe(Sampled(tiny(), seeds=range(4), steps=2), [], tmp_path / "rows", block=2, keep_images=4)
