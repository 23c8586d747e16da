"""CLIP: what images show and what is said of them, in one space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guidon.measure.networks.network import (
    FeatureNetwork,
    NetworkObserver,
    absent,
    coloured,
    need_transformers,
    pretrained,
)
from guidon.measure.networks.resizing import cropped, normalised
from guidon.registry import register

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@register("features", "clip")
@dataclass(frozen=True)
class Clip(FeatureNetwork):
    """A CLIP of the hub: the projected image (D = 768 of the large one) and, of images with captions, the projected text.

    Images are prepared as CLIP's authors do: the shorter side resized by PIL's bicubic filter, the middle cropped. A caption too long
    for it is cut; of an image without a caption the text is NaN. Source: Radford et al., arXiv 2103.00020.

    Args:
        source: a hub id, or a folder.
    """

    name: ClassVar[str] = "clip"

    source: str = "openai/clip-vit-large-patch14"

    def open(self, device: torch.device | str = "cpu") -> ClipObserver:
        network = pretrained("CLIPModel", self.source)
        try:
            tokenizer = need_transformers().AutoTokenizer.from_pretrained(os.path.expanduser(self.source))  # noqa: PTH111
        except Exception as error:  # as `pretrained`
            raise absent(self.source, error) from error
        return ClipObserver(network, tokenizer, device)


class ClipObserver(NetworkObserver):
    """Sees "clip/features" (B, D), and "clip/text" (B, D) where there are captions.

    Args:
        network: a `CLIPModel`.
        tokenizer: its own.
        device: where it computes.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, device: torch.device | str = "cpu") -> None:
        config: Any = network.config
        self.size, self.length = config.vision_config.image_size, config.text_config.max_position_embeddings
        vocabulary = sorted(tokenizer.get_vocab().items())
        super().__init__(Clip.name, network, device, "PIL bicubic", self.size, MEAN, DEVIATION, vocabulary)
        self.tokenizer = tokenizer

    def see(self, images: Tensor, captions: Sequence[str] | None) -> dict[str, Tensor]:
        network: Any = self.network
        shown = normalised(cropped(coloured(images), self.size), MEAN, DEVIATION, self.device)
        seen = {"features": network.visual_projection(network.vision_model(pixel_values=shown).pooler_output)}
        if captions is not None:
            tokens = self.tokenizer(
                list(captions), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
            ).to(self.device)
            text = network.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
            silent = torch.tensor([not caption.strip() for caption in captions], device=self.device)
            seen["text"] = network.text_projection(text.pooler_output).masked_fill(silent[:, None], torch.nan)
        return seen
