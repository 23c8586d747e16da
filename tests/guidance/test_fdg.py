"""Frequency-decoupled guidance and its pyramid."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from support.beliefs import (
    LEVEL,
    believing,
    check_degenerate,
    check_images_apart,
    check_precisions,
    guide,
    moment,
    views,
)
from support.numbers import agree, normal
from torch import Tensor
from torch.nn import functional

from guidon.errors import BadValue, ShapeMismatch
from guidon.guidance import CFG, FDG, GIVEN, NULL, CosineWeight, Interval, LinearWeight, Moment, Rescale
from guidon.guidance.pyramid import collapse, laplacian
from guidon.noise import EDM
from guidon.noise.prediction import SPACES
from guidon.registry import parse

SIZES = [(8, 8), (7, 5), (12, 20), (1, 1), (2, 3), (1, 9), (33, 17)]
SHAPED = {"parallel": (0.2, 1.5), "rescale": (0.7, 0.3)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_the_bands_are_the_image(size: tuple[int, int], levels: int) -> None:
    image = normal(2, 3, *size)
    bands = laplacian(image, levels)
    assert len(bands) == levels
    assert bands[0].shape == image.shape
    agree(collapse(bands), image, "image")
    for finer, coarser in itertools.pairwise(bands):
        assert [(side + 1) // 2 for side in finer.shape[-2:]] == list(coarser.shape[-2:])


def test_the_pyramid_by_convolution() -> None:
    """Where all sides are even: the blur in two dimensions, and bilinear interpolation."""
    kernel = torch.tensor([1.0, 4, 6, 4, 1], dtype=torch.float64) / 16
    kernel = torch.outer(kernel, kernel)[None, None]

    def blurred(image: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(image, (2, 2, 2, 2), mode="reflect"), kernel)

    image = normal(2, 1, 12, 8)
    half = functional.interpolate(blurred(image), scale_factor=0.5, mode="bilinear")
    back = blurred(functional.interpolate(half, scale_factor=2, mode="bilinear"))
    for got, want in zip(laplacian(image, 2), (image - back, half), strict=True):
        agree(got, want, "band")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_flat_has_no_high_frequencies(size: tuple[int, int]) -> None:
    *high, low = laplacian(torch.full((1, 1, *size), 3.0, dtype=torch.float64), 3)
    assert all(band.abs().max() < 1e-12 for band in high)
    agree(low, torch.full_like(low, 3.0), "flat")


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_flat_and_fine_differences(size: tuple[int, int]) -> None:
    """A flat difference has the last weight; a chequered one nearly the first."""
    given = normal(2, 3, *size)
    guided, _ = guide(FDG((5.0, 2.0)), given, given - 0.25)
    agree(guided, given + (2 - 1) * 0.25, "flat")
    rows, columns = (torch.arange(side) for side in size)
    chequered = (1.0 - 2 * ((rows[:, None] + columns) % 2)).double().expand_as(given)
    guided, _ = guide(FDG((5.0, 2.0)), given, given - chequered)
    agree(((guided - given) * chequered).mean(), torch.tensor(4.0), "fine", rtol=0.02)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("options", [{}, SHAPED])
def test_laws(options: dict[str, Any], space: str) -> None:
    rule = FDG((4.0, 2.0), space=space, **options)
    check_images_apart(rule, space)
    check_precisions(rule, space)
    check_degenerate(rule, space)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("space", SPACES)
def test_equal_weights_are_cfg(size: tuple[int, int], space: str) -> None:
    given, null = views(2, 3, *size)
    for weights in ((3.0,), (3.0, 3.0), (3.0, 3.0, 3.0)):
        agree(guide(FDG(weights), given, null, space)[0], null + 3 * (given - null), "cfg", atol=1e-10)
    got, _ = guide(FDG((3.0, 3.0), parallel=(1.0, 1.0), rescale=(0.0, 0.0)), given, null, space)
    agree(got, null + 3 * (given - null), "cfg", atol=1e-10)


@pytest.mark.parametrize("options", [{}, SHAPED])
def test_neutral_weights(options: dict[str, Any]) -> None:
    given, null = views()
    for weight, branch, want in ((1.0, GIVEN, given), (0.0, NULL, null)):
        rule = FDG((weight, weight), **options)
        assert rule.branches(moment(), None) == (branch,)
        assert torch.equal(guide(rule, given, null)[0], want)


def test_all_views_agree() -> None:
    given, null = views()
    rule = FDG((5.0, 2.0))
    of_x0, _ = guide(rule, given, null)
    eps = [(normal(*given.shape, seed=9) - LEVEL.alpha * view) / LEVEL.sigma for view in (of_x0, given, null)]
    agree(guide(rule, eps[1], eps[2], "eps")[0], eps[0], "noise")


def test_bands_have_intervals_and_weights_for_each_image() -> None:
    given, null = views(2, 3, 8, 8)
    inside, outside = (Moment(EDM().level(tau), EDM().clean) for tau in (1.0, 0.4))
    rule = FDG((5.0, 2.0), when=Interval(0.5, 2.0))
    assert (len(rule.branches(inside, None)), len(rule.branches(outside, None))) == (2, 1)
    each, _ = guide(FDG(((5.0, 3.0), 2.0)), given, null)
    for i, weight in enumerate((5.0, 3.0)):
        agree(each[i], guide(FDG((weight, 2.0)), given, null)[0][i], "image")
    first, _ = guide(FDG((LinearWeight(1, 5), 2.0)), given, null, at=moment(0, 5))
    agree(first, guide(FDG((1.0, 2.0)), given, null)[0], "schedule")


def test_rescaled_bands_have_the_deviation_of_the_given_ones() -> None:
    given, null = views()
    guided, _ = guide(FDG((6.0, 3.0), rescale=(1.0, 1.0)), given, null)
    assert not torch.allclose(guided, given)
    one, _ = guide(FDG((6.0,), rescale=(0.7,)), given, null)
    agree(one, guide(CFG(6.0) | Rescale(0.7, "x0"), given, null)[0], "one band is the whole image")


def test_each_band_by_its_own_settings() -> None:
    given, null = views()
    guided, _ = guide(FDG((6.0, 3.0), **SHAPED), given, null)
    bands = []
    for own, other, weight, kept, mix in zip(
        laplacian(given, 2), laplacian(null, 2), (6.0, 3.0), SHAPED["parallel"], SHAPED["rescale"], strict=True
    ):
        axes = (1, 2, 3)
        share = ((own - other) * own).sum(axes, keepdim=True) / (own * own).sum(axes, keepdim=True) * own
        band = own + (weight - 1) * (own - other - share + kept * share)
        bands.append(mix * band * own.std(axes, keepdim=True) / band.std(axes, keepdim=True) + (1 - mix) * band)
    agree(guided, collapse(bands), "guided")


def test_images_whose_bands_all_weigh_0_are_null() -> None:
    for weights, zeros in (
        ((0.0, 0.0), True),
        ((0.0, 2.0), False),
        ((1.0, 1.0), False),
        (((0.0, 3.0), 0.0), (True, False)),
        (((0.0, 0.0, 3.0), (0.0, 2.0, 0.0)), (True, False, False)),
        (((0.0, 3.0), 1.0), (False, False)),
    ):
        assert FDG(weights).zeros(moment()) == zeros
    assert FDG((0.0, 0.0), when=Interval(90.0)).zeros(moment()) is False
    told = {
        branch: dataclasses.replace(believing(view), variance_fraction=torch.full_like(view, share))
        for branch, view, share in zip((GIVEN, NULL), views(2, 1, 6, 6), (0.1, 0.2), strict=True)
    }
    guided, _ = FDG(((0.0, 3.0), 0.0)).combine(told, moment(), None)
    agree(guided.x0[0], told[NULL].x0[0], "null")
    assert guided.variance_fraction is not None
    assert guided.variance_fraction[:, 0, 0, 0].tolist() == [0.2, 0.1]


def test_text_form() -> None:
    assert parse("rule", "fdg([10, 5])") == FDG((10.0, 5.0)) == FDG([10, 5])  # type: ignore[arg-type]
    schedule = parse("rule", "fdg([cosine(1, 4), 2])")  # there is a process cosine too
    assert schedule == FDG((CosineWeight(1, 4), 2.0))


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (((),), {}, "each band"),
        ((3.0,), {}, "each band"),
        (((3.0, 2.0),), {"parallel": (1.0,)}, "2 bands, and parallel"),
        (((3.0, 2.0),), {"rescale": (1.0, 1.0, 0.0)}, "2 bands, and rescale"),
        (((3.0,),), {"rescale": (1.5,)}, "shares"),
        (((3.0,),), {"space": "pixels"}, "no space"),
    ],
)
def test_refused(args: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        FDG(*args, **options)


def test_only_for_images() -> None:
    with pytest.raises(ShapeMismatch, match="images"):
        guide(FDG((3.0, 2.0)), *views(3, 7))
