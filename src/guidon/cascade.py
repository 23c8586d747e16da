"""Two models one after the other: the first makes small images, the second enlarges them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guidon.conditioning.text import Texts
from guidon.errors import BadValue, GuidonWarning, ShapeMismatch
from guidon.model import Model
from guidon.model_request import Label
from guidon.tasks.generate import Samples, to_uint8

SHARED = ("batching", "max_batch", "precision", "on_step")  # settings of how to compute, which are for both
OTHER_STREAM = 0x2545F491  # the upsampler's noise is not that of the small images again
KEPT = ("model", "rule", "solver", "grid", "steps", "temperature", "nfe")


def cascade(
    base: Model,
    upsampler: Model,
    told: Label | Sequence[Label] | Texts = None,
    *,
    n: int | None = None,
    upsampler_settings: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Samples:
    """Sample small images and enlarge them, told the same.

    Args:
        base: makes the small images.
        upsampler: a super-resolution model for images of their size.
        told, n, settings: of the base, as `Model.sample` has them; what says how to compute is for both.
        upsampler_settings: of the upsampler, left out: its own defaults.

    Returns:
        The large images. The record is that of the base, with one of the upsampler in it; evaluations and times are of both. The
        seeds are those of the base: the upsampler's follow from them.

    Raises:
        BadValue: the upsampler enlarges nothing, or as `Model.sample` raises it.
        ShapeMismatch: it enlarges images of another size; raised before the first step.

    Source: Nichol et al., arXiv 2112.10741, section 2.1; the small images are rounded to 8 bits in between, as in the authors' notebooks.
    """
    check_cascade(base, upsampler)
    small = base.sample(told, n=n, **settings)
    shared = {name: settings[name] for name in SHARED if name in settings}
    with warnings.catch_warnings():
        if _read_alike(base, upsampler):
            warnings.simplefilter("ignore", GuidonWarning)  # which texts are cut was said of the first
        large = upsampler.sample(
            **_told_again(upsampler, small, told, n),
            seed=[seed ^ OTHER_STREAM for seed in small.seeds],
            image=as_shown(small.x),
            **{**shared, **(upsampler_settings or {})},
        )
    nfe = small.nfe + large.nfe
    second = {name: large.record[name] for name in KEPT} | {"low_res": small.record["size"]}
    second |= {name: large.record[name] for name in ("negative", "also", "partial") if name in large.record}
    return dataclasses.replace(
        large,
        seeds=small.seeds,
        labels=small.labels,
        record=small.record | {"size": large.record["size"], "nfe": nfe, "upsampler": second},
        nfe=nfe,
        forwards=small.forwards + large.forwards,
        seconds=small.seconds + large.seconds,
        trace=small.trace,
    )


def check_cascade(base: Model, upsampler: Model) -> None:
    """Refuse two models of which the second does not enlarge what the first gives; raises as `cascade` does."""
    (channels, height, width), (other, *_) = base.shape, upsampler.shape
    if upsampler.low_res is None:
        raise BadValue(f"{upsampler.name} enlarges no images; take a super-resolution model as upsampler")
    if (other, *upsampler.low_res) != (channels, height, width):
        raise ShapeMismatch(
            f"{upsampler.name} enlarges images of {upsampler.low_res[0]}x{upsampler.low_res[1]} with {other} channels, and {base.name}"
            f" makes {height}x{width} with {channels}; take two models that go together"
        )


def as_shown(small: Tensor) -> Tensor:
    """Return images as their files would have them: cut to [-1, 1] and rounded to 8 bits."""
    return to_uint8(small).float() / 127.5 - 1


def _read_alike(base: Model, upsampler: Model) -> bool:
    """Return whether both make the same rows of a text."""
    one, other = (model.config.text and model.config.text.tokenizer for model in (base, upsampler))
    return one == other


def _told_again(
    upsampler: Model, small: Samples, told: Label | Sequence[Label] | Texts, n: int | None
) -> dict[str, Any]:
    """Return what the second model is told: what the first was, image by image, where it can be told anything."""
    if upsampler.config.text is None and upsampler.classes is None:
        return {"n": len(small)}
    if isinstance(told, Texts):
        return {"told": told.take(torch.arange(len(told)).repeat_interleave(n or 1))}
    return {"told": small.record["labels"]}
