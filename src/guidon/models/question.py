"""What a network is asked: images, a time for each, a context, rows to weaken; checked, and told to its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from guidon.conditioning import Context, Projected
from guidon.errors import NotSupported, ShapeMismatch
from guidon.models.layers import Listener, Signal
from guidon.models.perturb import Perturbed, by_layer, with_time_noise


class Takes(Protocol):
    """The part of a network's configuration that says which images it takes."""

    @property
    def in_channels(self) -> int:
        """Channels of an image."""

    @property
    def multiple(self) -> int:
        """What height and width must be divisible by."""


def check_images(config: Takes, x: Tensor, time: Tensor) -> None:
    """Refuse images ``x`` (B, C, H, W) of another kind than the network takes, and times that are not (B,).

    Raises:
        ShapeMismatch: says what fits.
    """
    if x.ndim != 4 or x.shape[1] != config.in_channels:
        raise ShapeMismatch(
            f"the network takes images (B, {config.in_channels}, H, W), not {tuple(x.shape)}; convert them"
        )
    height, width = x.shape[2:]
    if height % config.multiple or width % config.multiple:
        fitting = tuple(-(-side // config.multiple) * config.multiple for side in (height, width))
        raise ShapeMismatch(
            f"images of {height}x{width} do not divide by {config.multiple}, as patch and levels of the network ask; "
            f"resize or pad them to {fitting[0]}x{fitting[1]}, or build it with a smaller patch or fewer levels"
        )
    if time.shape != x.shape[:1]:
        raise ShapeMismatch(f"one time per image: {tuple(time.shape)} times for {len(x)} images")


def check_context(doors: Mapping[str, int], context: Context, images: int) -> None:
    """Refuse a context that does not fit the doors of a network.

    Args:
        doors: the parts that the network wants, with the width of each.
        context: what it is told.
        images: the number of images B that it is asked about.

    Raises:
        ShapeMismatch: it is for another number of images, or of another width.
        NotSupported: it lacks a part, or has one that the network has no door for.
    """
    if context.batch not in (None, images):
        raise ShapeMismatch(f"a context for {context.batch} images goes with {images}; give one row per image")
    for door in ("vector", "tokens", "spatial"):
        part: Tensor | None = getattr(context, door)
        if (part is None) == (door in doors):
            raise NotSupported(
                f"the network wants {sorted(doors) or 'no condition'}, "
                f"and the context {'lacks' if part is None else 'brings'} {door}; "
                "use the encoder the network was built with"
            )
        if part is not None and door != "spatial" and part.shape[-1] != doors[door]:
            raise ShapeMismatch(
                f"the {door} are {part.shape[-1]} wide where the network takes {doors[door]}; set the encoder's width"
            )


def signal_of(network: nn.Module, embedding: Tensor, context: Context, perturbed: Perturbed, *, added: bool) -> Signal:
    """Return what the layers of a network listen to.

    Args:
        network: offers perturbations; see `guidon.models.perturb.layers_of`.
        embedding: (B, E) of the time.
        context: the condition.
        perturbed: which rows of the batch are weakened, and how.
        added: whether the context's vector is added to the embedding.

    Raises:
        NotSupported: the network does not offer a perturbation.
    """
    weak = None
    if perturbed:
        weak = by_layer(network, perturbed)
        embedding = with_time_noise(embedding, perturbed)
    if added:
        assert context.vector is not None
        embedding = embedding + context.vector
    return Signal(embedding, context.vector, context.tokens, context.mask, context.projected, weak)


def prepared(network: nn.Module, context: Context) -> Context:
    """Return a context with the keys and values that a network's layers make of its tokens; one that none listens to stays as it is.

    Args:
        network: what will be told the context.
        context: for as many different conditions as there are.
    """
    if context.tokens is None:
        return context
    made = {layer.name: layer.keys_values(context.tokens) for layer in network.modules() if isinstance(layer, Listener)}
    layers = {name: said for name, said in made.items() if said is not None}
    if not layers:
        return context
    rows = torch.arange(len(context.tokens), device=context.tokens.device)
    return replace(context, projected=Projected(layers, rows))
