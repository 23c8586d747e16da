"""How families of diffusers pipelines ask their networks, and what they do with the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from guidon.bridges.question import Question
from guidon.errors import NotSupported


@dataclass(frozen=True)
class Layout:
    """How a pipeline does classifier-free guidance by itself.

    Args:
        networks: the components that are guided, each with the scheduler that steps with what it says.
        calls: "joint" asks both branches in one batch, "twice" asks given, then null.
        given_first: whether a joint batch is [given, null], not [null, given].
        weights: the arguments that say how strongly the pipeline itself guides.
        asks: arguments without which the pipeline asks for one branch alone, and what they are then.
        keeps_norm: whether a pipeline that asks twice brings what it guided to the norm of what was said of given.
        channels: of the noisy state, where the input of the network holds others too; None: as many as there are.
        remark: what users should know.
    """

    networks: Mapping[str, str] = field(default_factory=lambda: {"unet": "scheduler"})
    calls: Literal["joint", "twice"] = "joint"
    given_first: bool = False
    weights: tuple[str, ...] = ("guidance_scale",)
    asks: Mapping[str, Any] = field(default_factory=dict)
    keeps_norm: bool = False
    channels: int | None = None
    remark: str = ""

    def halves(self, question: Question) -> tuple[Question, Question]:
        """Return given and null of a joint batch."""
        half = question.rows // 2
        first, second = question.take(slice(0, half)), question.take(slice(half, None))
        return (first, second) if self.given_first else (second, first)


TRANSFORMER = {"transformer": "scheduler"}
LAYOUTS: dict[str, Layout] = {
    r"StableDiffusion(XL)?(ControlNet)?(Img2Img|Inpaint)?Pipeline": Layout(),
    r"StableDiffusion3(ControlNet)?(Img2Img|Inpaint|Inpainting)?Pipeline": Layout(TRANSFORMER),
    r"Flux(ControlNet)?(Img2Img|Inpaint)?Pipeline": Layout(
        TRANSFORMER,
        calls="twice",
        weights=("true_cfg_scale",),
        asks={"negative_prompt": ""},
        remark="guidance_scale, which the network was distilled with, stays what it is: a rule acts on top of it",
    ),
    r"PixArt(Alpha|Sigma)Pipeline": Layout(TRANSFORMER),
    r"DiTPipeline": Layout(TRANSFORMER, given_first=True),
    r"IF(Img2Img|Inpainting)?Pipeline": Layout(channels=3),
    r"IF(Img2Img|Inpainting)?SuperResolutionPipeline": Layout(channels=3),
    r"KandinskyV22(Img2Img|Inpaint|Controlnet)?Pipeline": Layout(channels=4),
    r"KandinskyV22PriorPipeline": Layout({"prior": "scheduler"}),
    r"UnCLIPPipeline": Layout(
        {"prior": "prior_scheduler", "decoder": "decoder_scheduler"},
        weights=("prior_guidance_scale", "decoder_guidance_scale"),
        remark="prior and decoder are steered alike; the super-resolution networks are told no text",
    ),
    r"AuraFlowPipeline": Layout(TRANSFORMER),
    r"LTXPipeline": Layout(TRANSFORMER),
    r"SanaPipeline": Layout(TRANSFORMER, remark="its attention is linear: pag and seg change nothing and are refused"),
    r"CogVideoXPipeline": Layout(TRANSFORMER),
    r"HunyuanDiTPipeline": Layout(TRANSFORMER),
    r"LattePipeline": Layout(TRANSFORMER),
    r"KandinskyPipeline": Layout(channels=4),
    r"ChromaPipeline": Layout(TRANSFORMER, calls="twice"),
    r"QwenImagePipeline": Layout(
        TRANSFORMER,
        calls="twice",
        weights=("true_cfg_scale",),
        asks={"negative_prompt": " "},
        keeps_norm=True,
        remark="whatever the rule, the pipeline brings its answer to the norm of the given one",
    ),
    r"WanPipeline": Layout({"transformer": "scheduler", "transformer_2": "scheduler"}, calls="twice"),
}
"""By the name of the class of a pipeline."""


def layout_of(pipe: Any) -> Layout:
    """Return how a pipeline asks; raises `NotSupported` for one that nobody has looked at."""
    name = type(pipe).__name__
    for pattern, layout in LAYOUTS.items():
        if re.fullmatch(pattern, name):
            return layout
    known = ", ".join(LAYOUTS)
    raise NotSupported(
        f"nobody has said how {name} asks its network; say it with layout=guidon.bridges.layout.Layout(...). Known are: {known}"
    )
