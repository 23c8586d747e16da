"""Models of texts from the command line: prompts, pictures to complete, an upsampler, and the same image again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.text_models import text_model

import guidon as package
from guidon.app.pictures import contact_sheet, file_stems, of_size
from guidon.app.png import read_record
from guidon.cascade import OTHER_STREAM


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("texts")
    large = {"shape": (3, 16, 16), "low_res": (8, 8), "sample": {"rule": "cfg(1)", "steps": 2, "temperature": 0.997}}
    models = {
        "TEXT": text_model("cross", channels=3),
        "INPAINT": text_model("cross", channels=3, inpaint=True, architecture={"spatial_channels": 4}),
        "LARGE": text_model("append", channels=3, architecture={"spatial_channels": 3}, **large),
        "LARGE_INPAINT": text_model("append", channels=3, inpaint=True, architecture={"spatial_channels": 7}, **large),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name.lower())
    return {name: str(folder / name.lower()) for name in models}


@pytest.fixture
def text(guidon, folders):
    """Run a command line in which the names of ``folders`` stand for the models."""
    return lambda line: guidon(" ".join(folders.get(word, word) for word in line.split(" ")))


def pixels(path):
    return np.asarray(Image.open(path))


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_images_are_named_by_seed_and_text(text, folders):
    answer = text('sample TEXT --prompt "a red circle" "two green triangles" --n 2 --seed 7 --steps 2 -o out')
    assert answer.code == 0, answer.err
    stems = ["0007-a_red_circle", "0008-a_red_circle", "0009-two_green_triangles", "0010-two_green_triangles", "sheet"]
    assert names("out") == [f"{stem}.png" for stem in stems]
    model = package.load(folders["TEXT"])
    samples = model.sample(["a red circle", "two green triangles"], n=2, seed=7, steps=2)
    assert np.array_equal(pixels("out/0009-two_green_triangles.png"), samples.uint8()[2])


def test_a_negative_text_and_a_temperature(text, folders):
    line = 'sample TEXT --prompt "a circle" --negative red blue --rule "perp-neg(3, [1, 2])" --temperature 0.8 --steps 2 -o out'
    assert text(line).code == 0
    asked = {"negative": ["red", "blue"], "rule": "perp-neg(3, [1, 2])", "temperature": 0.8, "steps": 2}
    samples = package.load(folders["TEXT"]).sample("a circle", **asked)
    assert np.array_equal(pixels("out/0000-a_circle.png"), samples.uint8()[0])
    info = Image.open("out/0000-a_circle.png").info["parameters"]
    assert info.startswith("a circle\nNegative prompt: red, blue\nSteps: 2, ")


@pytest.mark.filterwarnings("default")
def test_no_text_is_one_too(text):
    assert text("sample TEXT --n 2 --steps 1 -o none").code == 0
    assert text("sample TEXT --prompt '' --n 2 --steps 1 -o empty").code == 0
    assert names("none") == names("empty") == ["0000.png", "0001.png", "sheet.png"]
    assert np.array_equal(pixels("none/0001.png"), pixels("empty/0001.png"))


@pytest.mark.filterwarnings("default")
def test_long_texts_make_short_names(text):
    line = "a big blue square " * 9
    answer = text(f'sample TEXT --prompt "{line}" --steps 1 -o out')
    assert "note: 1 of 1 texts are longer" in answer.err
    assert answer.code == 0 and names("out") == ["0000-a_big_blue_square_a_big_blue_square_a_bi.png", "sheet.png"]
    assert read_record("out/sheet.png")["labels"][0].strip() == line.strip(), "the whole of it is in the record"
    stems = file_stems([1, 1], ["x" * 60 + "a", "x" * 60 + "b"])
    assert stems == ["0001-" + "x" * 40, "0001-" + "x" * 40 + ".2"]


def test_long_texts_fit_beside_their_rows():
    images = [Image.new("RGB", (64, 64), "red")] * 6
    long = (
        "a small red circle above a very large and slightly transparent blue square in the upper left corner of it all"
    )
    narrow = contact_sheet(images, ["cat"] * 3 + ["dog"] * 3, "")
    wide = contact_sheet(images, [long] * 3 + ["dog"] * 3, "")
    assert wide.height == narrow.height and wide.width < narrow.width + 220
    ink = (np.asarray(wide.convert("L")) < 120)[40:104, : wide.width - 3 * 68 - 16]
    lines = np.flatnonzero(np.diff(ink.any(1).astype(int)) == 1)
    assert len(lines) >= 3, "in several lines"
    assert not ink[:, :14].any() and not (np.asarray(wide.convert("L")) < 120)[104:107].any(), "within its row"


def test_an_upsampler_enlarges_what_was_sampled(text, folders):
    line = 'sample TEXT --prompt "a red circle" "no red" --upsampler LARGE --seed 3 --weight 2 --steps 2 -o'
    answer = text(f"{line} large")
    assert answer.code == 0, answer.err
    assert "enlarged by cfg(1)" in answer.out and "2 images of 16x16" in answer.out
    small = package.load(folders["TEXT"]).sample(["a red circle", "no red"], seed=3, rule=2.0, steps=2)
    seeds = [3 ^ OTHER_STREAM, 4 ^ OTHER_STREAM]
    wanted = package.load(folders["LARGE"]).sample(["a red circle", "no red"], seed=seeds, image=small.pil())
    assert np.array_equal(pixels("large/0004-no_red.png"), wanted.uint8()[1])
    record = read_record("large/0004-no_red.png")
    assert (record["size"], record["upsampler"]["temperature"]) == ([16, 16], 0.997)
    assert "Hires upscaler: large" in Image.open("large/0004-no_red.png").info["parameters"]
    assert record["weights"] != record["upsampler"]["weights"] and len(record["upsampler"]["weights"]) == 64


@pytest.fixture
def picture():
    numbers = np.random.default_rng(0)
    Image.fromarray(numbers.integers(256, size=(32, 32, 3), dtype=np.uint8)).save("picture.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 255
    Image.fromarray(mask).save("mask.png")


def test_pictures_are_completed_where_the_mask_is_white(text, picture):
    line = 'sample INPAINT --prompt "a red circle" --inpaint picture.png --repaint mask.png --steps 3'
    assert text(f"{line} --n 2 -o out").code == 0
    (known,) = of_size([Image.open("picture.png")], (8, 8))
    made = [pixels(f"out/000{seed}-a_red_circle.png").astype(int) for seed in (0, 1)]
    for each in made:
        assert np.abs(each[4:] - np.asarray(known)[4:]).max() <= 1, "what is black is kept"
    assert np.abs(made[0][:4] - made[1][:4]).max() > 10, "what is white is painted anew"


@pytest.mark.parametrize("first", ["INPAINT", "TEXT"])
def test_those_models_of_a_cascade_that_can_complete_the_picture(text, picture, first):
    more = "--inpaint picture.png --repaint mask.png --upsampler LARGE_INPAINT"
    answer = text(f'sample {first} --prompt "a red circle" {more} --steps 2 -o out')
    assert answer.code == 0, answer.err
    (known,) = of_size([Image.open("picture.png")], (16, 16))
    assert np.abs(pixels("out/0000-a_red_circle.png").astype(int)[8:] - np.asarray(known)[8:]).max() <= 1


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "words",
    [
        'TEXT --prompt "a red circle" "no red" --rule negative(3) --negative "blue square"',
        "TEXT --n 2 --temperature 0.7",
        'TEXT --prompt "a circle" "" --rule icg(2) --upsampler LARGE',
        'INPAINT --prompt "a circle" --n 2 --inpaint picture.png --repaint mask.png',
        'INPAINT --prompt "a circle" --n 2 --inpaint picture.png --repaint mask.png --upsampler LARGE_INPAINT',
        'TEXT --prompt "a circle" --n 2 --inpaint picture.png --repaint mask.png --upsampler LARGE_INPAINT',
    ],
)
def test_like_makes_it_again(text, picture, words):
    first = text(f"sample {words} --steps 2 --seed 4 -o out")
    assert first.code == 0, first.err
    one = next(name for name in names("out") if name.startswith("0005"))
    for name in (one, "sheet.png"):
        again = text(f"sample --like out/{name} -o again-{name}")
        assert again.code == 0 and "pixel for pixel" in again.out, again.out + again.err
        assert read_record(f"again-{name}/{name}") == read_record(f"out/{name}")


def test_pictures_are_found_from_elsewhere_and_a_changed_one_is_told(text, picture, tmp_path, monkeypatch):
    line = f'sample INPAINT --prompt "a circle" --inpaint picture.png --repaint {tmp_path}/mask.png --steps 2 -o out'
    assert text(line).code == 0
    digests = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("picture.png", "mask.png")}
    assert read_record("out/sheet.png")["pictures"] == {
        "picture.png": digests["picture.png"],
        f"{tmp_path}/mask.png": digests["mask.png"],
    }
    Path("elsewhere").mkdir()
    Path("out/0000-a_circle.png").rename("elsewhere/one.png")
    Path("mask.png").rename("elsewhere/mask.png")
    monkeypatch.chdir("elsewhere")
    again = text("sample --like one.png -o again")
    assert again.code == 0 and "pixel for pixel" in again.out and "note" not in again.err, again.out + again.err
    Image.new("RGB", (32, 32), "teal").save("../picture.png")
    other = text("sample --like one.png -o other")
    assert f"note: {tmp_path}/picture.png is another picture than one.png was made with" in other.err
    assert other.code == 0 and "not quite one.png" in other.out
    assert read_record("other/0000-a_circle.png")["pictures"] != read_record("one.png")["pictures"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("TEXT --inpaint picture.png --repaint mask.png", "completes no image"),
        ("TEXT --upsampler LARGE --inpaint picture.png --repaint mask.png", "completes no image"),
        ("INPAINT --inpaint picture.png", "give both, or neither"),
        ("INPAINT --inpaint nowhere.png --repaint mask.png", "there is no picture nowhere.png"),
        ("TEXT --upsampler TEXT", "enlarges no images"),
        ("TEXT --upsampler nowhere", "nowhere"),
        ("LARGE --prompt cat", "--image"),
        ("TEXT --prompt cat --negative dog", "no use for 'negative'"),
        ("TEXT --temperature 0 --prompt cat", "temperature"),
        ("MODEL --prompt 'a red circle'", "no class 'a red circle'"),
        ("--like x.png --temperature 1 --upsampler LARGE", "leave out --temperature, --upsampler"),
    ],
)
def test_bad_values_end_with_one_message_and_exit_code_2(text, picture, words, message):
    answer = text(f"sample {words}")
    assert answer.code == 2 and message in answer.err, answer.err
    assert answer.err.startswith("guidon: ") and answer.err.count("\n") == 1
    assert not Path("samples").exists()


def test_info_says_what_a_model_of_texts_is(text):
    out = text("info TEXT").out
    for line in ("text", "context", "vocabulary", "transformer"):
        assert line in out
