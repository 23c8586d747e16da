"""What the tiny pipelines give under every rule: asked by the tests, and by the table of what is supported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import guidon
from guidon import registry
from guidon.errors import GuidonError
from support.examples import dataclasses_of, plain
from support.tiny_pipelines import Family, run

AFTER = "cfg(3) | "
AT_ONCE = {
    "cads": "cads(0.01, 0.05)",
    "adaptive": "adaptive(-1)",
}  # which by themselves wait for times, or beliefs, that a few steps lack


def rules() -> dict[str, str]:
    """Return an example of every registered rule, and of every stage after cfg."""
    found = {name: registry.to_text(plain(name, member)) for name, member in dataclasses_of("rule")}
    stages = {name: AFTER + registry.to_text(plain(name, member)) for name, member in dataclasses_of("stage")}
    return {**found, **stages, **{name: AFTER + text for name, text in AT_ONCE.items()}}


def others_told(family: Family) -> dict[str, Any]:
    """Return what else a family can be told."""
    if "class_labels" in family.call:
        return {"negative": 9, "also": 5, "partial": 2}
    if "image_embeds" in family.call and "prompt" not in family.call:
        return {name: torch.full((32,), value) for name, value in (("negative", -0.5), ("also", 0.5), ("partial", 1.0))}
    return {"negative": "a blue cube", "also": "a bird", "partial": "an apple"}


def weaker(family: Family) -> Any:
    """Return a pipeline of the same family with noise in its weights."""
    pipe = family.make()
    generator = torch.Generator().manual_seed(7)
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            for parameter in component.parameters():
                parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return pipe


def log_p(x: Tensor, level: Any) -> Tensor:
    """Return the log probability of a classifier that likes what is large."""
    return x.square().flatten(1).mean(1)


@dataclass(frozen=True)
class Outcome:
    """What came of a rule in a pipeline.

    Args:
        refused: why it cannot be done; empty where it was.
        acts: the largest difference from the pipeline's own guidance at weight 3.
        images: what it gave.
        rows: network evaluations.
        forwards: of all networks.
    """

    refused: str = ""
    acts: float = 0.0
    images: Tensor | None = None
    rows: int = 0
    forwards: int = 0


def outcome(pipe: Any, family: Family, rule: str, weak: Any, usual: Tensor) -> Outcome:
    """Return what comes of a rule in a pipeline, which is told all that there is to tell."""
    told: Mapping[str, Any] = others_told(family)
    try:
        with guidon.steer(pipe, rule, weak=weak, classifier=log_p, **told) as steering:
            images = run(pipe, family)
    except GuidonError as error:
        return Outcome(str(error))
    return Outcome("", (images - usual).abs().max().item(), images, steering.rows, steering.forwards)
