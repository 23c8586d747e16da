"""The tiny pipelines have something to be seen: the same numbers every time, and others at other weights and prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny_pipelines import Family, run
from support.zoo import EVERY
from torch import Tensor

OTHERWISE = {
    "prompt": lambda _: "seven blue cubes",
    "class_labels": lambda labels: [label + 1 for label in labels],
    "image_embeds": torch.neg,
    "image": lambda image: 1 - image,
}


def guided(pipe: Any, family: Family, weight: float, **more: Any) -> Tensor:
    """Return what a pipeline gives by itself at one weight."""
    return run(pipe, family, **dict.fromkeys(family.weight, weight), **more)


@pytest.mark.parametrize("family", EVERY.values(), ids=EVERY)
def test_a_tiny_pipeline_shows_what_it_is_given(family: Family) -> None:
    pipe = family.make()
    want = guided(pipe, family, 6.0)
    assert want.isfinite().all()
    assert torch.equal(guided(family.make(), family, 6.0), want)  # two that are made are one
    others = [guided(pipe, family, 1.5), guided(pipe, family, 6.0, seed=1)]
    for name in OTHERWISE.keys() & family.call.keys():
        others.append(guided(pipe, family, 6.0, **{name: OTHERWISE[name](family.call[name])}))
    assert len(others) > 2
    for other in others:
        assert other.shape == want.shape
        assert (other - want).norm() > 1e-4 * want.norm()
    assert torch.equal(guided(pipe, family, 6.0), want)  # and a call leaves nothing behind
