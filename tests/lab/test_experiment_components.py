"""The components of linear guidance on images: what is exact about the pictures and tables."""

from __future__ import annotations

import math
import types

import pytest
import torch

from guidon import registry
from guidon.errors import BadValue, UnknownLabel
from guidon.guidance import CFG
from guidon.lab.experiments.components import Components
from guidon.lab.images import END, START, Ends, ImageWorld
from guidon.lab.linear import PARTS, Difference, LinearGuidance
from guidon.noise import EDM
from guidon.noise.grids import LogSNR

FEW = Components(classes=("1", "7"), steps=60, limit=800, axes=8)


@pytest.fixture(scope="module")
def world() -> ImageWorld:
    return ImageWorld.read("digits", 800, 8, ("1", "7"))


@pytest.fixture(scope="module")
def findings():
    return FEW.run()


def test_coordinates_are_those_of_the_leading_axes(world: ImageWorld) -> None:
    whole = ImageWorld.read("digits", 800, 3072, ("1",))
    assert whole.axes.shape == (64, 64) and math.isclose(whole.kept, 1.0)
    variances = whole.gaussians[-1].variances.flip(0)
    assert math.isclose(world.kept, float(variances[:8].sum() / variances.sum()), rel_tol=1e-9)
    assert 0.5 < world.kept < 0.9
    torch.testing.assert_close(world.gaussians[-1].variances.flip(0), variances[:8])
    torch.testing.assert_close(world.axes.T @ world.axes, torch.eye(8, dtype=torch.float64))
    assert world.images(torch.zeros(2, 8).double()).shape == (2, 1, 8, 8)
    assert torch.equal(world.images(torch.zeros(1, 8).double())[0], world.centre)
    assert torch.allclose(world.directions(torch.eye(8).double()).abs().amax((1, 2, 3)), torch.ones(8).double())


def test_all_parts_together_are_cfg_and_no_guidance_is_the_class(world: ImageWorld) -> None:
    levels = LogSNR(END, START).levels(EDM(), 61)[:-1]
    guided = Ends.of(world.gaussians, 7, CFG(3.0), levels)
    parts = Ends.of(world.gaussians, 7, LinearGuidance(Difference(world.gaussians, 7), 3.0, PARTS), levels)
    torch.testing.assert_close(guided.factor, parts.factor)
    torch.testing.assert_close(guided.mean, parts.mean)
    naive, one = Ends.of(world.gaussians, 7, CFG(1.0), levels), world.gaussians[7]
    stated = ((one.variances + END**2) / (one.variances + START**2)).sqrt() * START
    torch.testing.assert_close(naive.std(one.axes.T), stated, rtol=5e-3, atol=0)
    start = torch.stack(
        [torch.randn(8, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1)]
    )
    torch.testing.assert_close(naive.images[:2], naive.mean + start @ naive.factor)


def test_the_mean_shift_moves_all_alike(findings) -> None:
    for row in findings.tables["parts"]:
        if row["part"] == "mean":
            assert row["spread"] == 1 and row["change"] == row["change_of_mean"] > 0
        if row["part"] == "naive":
            assert row["spread"] == 1 and row["change"] == 0
        if row["part"] == "positive":
            assert row["spread"] > 1
        if row["part"] == "negative":
            assert row["spread"] < 1


def test_changes_are_counted_by_pixel(world: ImageWorld) -> None:
    seen = FEW._look(world, 1, LogSNR(END, START).levels(EDM(), 9)[:-1])
    rows, naive, mean = {row["part"]: row for row in seen.parts()}, seen.ends["naive"], seen.ends["mean"]
    images = world.images(torch.stack([naive.mean, mean.mean]))
    rms = float((images[0] - images[1]).square().mean().sqrt())
    assert math.isclose(rows["mean"]["change"], rms, abs_tol=1e-4)
    noise = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [world.images(end.mean + noise @ end.factor) for end in (naive, seen.ends["all"])]
    assert math.isclose(rows["all"]["change"], float((ends[0] - ends[1]).square().mean().sqrt()), rel_tol=0.03)


def test_directions_are_those_of_the_difference_of_beliefs(world: ImageWorld) -> None:
    seen = FEW._look(world, 7, LogSNR(END, START).levels(EDM(), 5)[:-1])
    given, null = (
        one.axes @ (one.variances / (one.variances + FEW.noise_level**2)).diag() @ one.axes.T
        for one in (world.gaussians[7], world.gaussians[-1])
    )
    for row in seen.directions:
        vector = seen.leading[row["sign"]][row["rank"] - 1]
        torch.testing.assert_close((given - null) @ vector, row["value"] * vector, atol=2e-5, rtol=0)
    for sign in ("positive", "negative"):
        sizes = [abs(row["value"]) for row in seen.directions if row["sign"] == sign]
        assert sizes == sorted(sizes, reverse=True)


def test_predicted_gains_are_the_theorem(findings) -> None:
    rows = findings.tables["directions"]
    assert {(row["class"], row["sign"]) for row in rows} == {
        (name, s) for name in ("1", "7") for s in ("positive", "negative")
    }
    for row in rows:
        own, every = row["variance"], row["variance_all"]
        h = (own + END**2) * (every + START**2) / ((own + START**2) * (every + END**2))
        assert math.isclose(row["gain_predicted"], h ** ((FEW.weight - 1) / 2), rel_tol=2e-3, abs_tol=1e-4)
        assert (row["value"] > 0) == (row["sign"] == "positive")


def test_the_theorem_holds_where_axes_are_shared(world: ImageWorld) -> None:
    levels = LogSNR(END, START).levels(EDM(), FEW.steps + 1)[:-1]
    for label in (1, 7):
        assert 0 < FEW._look(world, label, levels).off < 0.01


def test_the_sentences_say_what_the_tables_say(findings) -> None:
    apart = {row["part"]: row["distance"] for row in findings.tables["between_classes"]}
    assert f"Without guidance the classes are {apart['naive']:.2f} apart" in findings.sees[4]
    assert apart["mean"] > apart["naive"]
    assert findings.sees[0].startswith("The 8 axes hold") and set(findings.figures) == {"", "directions", "gains"}


def test_one_class_has_no_distances_and_strong_guidance_no_zeros() -> None:
    found = Components(classes=("1",), weight=40.0, limit=800, axes=8).run()
    assert set(found.tables) == {"parts", "directions"} and len(found.sees) == 4
    assert all(row["gain"] > 0 and row["gain_predicted"] > 0 for row in found.tables["directions"])
    least = min(row["gain_predicted"] for row in found.tables["directions"])
    assert least < 1e-5  # which would be zero to five decimals


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((0.2702, 0.2699, 0.1), "positive and mean shift change images most: by 0.270"),
        ((0.28, 0.27, 0.1), "positive changes images most: by 0.280"),
    ],
)
def test_what_changes_as_much_is_not_ranked(world: ImageWorld, findings, sizes: tuple[float, ...], said: str) -> None:
    change = dict(zip(("positive", "mean", "negative"), sizes, strict=True))
    seen = FEW._look(world, 1, LogSNR(END, START).levels(EDM(), 9)[:-1])
    parts = [{**row, "change": change.get(row["part"], row["change"])} for row in seen.parts()]
    fixed = types.SimpleNamespace(parts=lambda: parts, directions=seen.directions, off=seen.off)
    assert said in FEW._sees(world, [fixed], [])[1]


def test_settings_have_a_text_form_and_bad_ones_are_refused() -> None:
    made = registry.parse("experiment", """components(classes=["1", "7"], axes=8)""")
    assert made == Components(classes=("1", "7"), axes=8)
    assert registry.parse("experiment", registry.to_text(made)) == made
    with pytest.raises(UnknownLabel, match="cat"):
        Components(classes=("cat",), limit=100, axes=4, steps=2).run()
    with pytest.raises(BadValue, match="every class once"):
        Components(classes=("3", "3"), limit=100, axes=4, steps=2).run()
    with pytest.raises(BadValue, match="weight from 0 to 100"):
        Components(weight=1000.0)
    with pytest.raises(BadValue, match="axes >= 2"):
        Components(axes=1)
