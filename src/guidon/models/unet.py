"""The ADM UNet (Dhariwal & Nichol, arXiv:2105.05233), with a door for every part of a context.

Parameters are named as in openai/guided-diffusion wherever the structure is the same. The only changes of shape are
the attention's ``qkv`` and ``proj_out``: linear maps (C', C) here, 1-wide convolutions (C', C, 1) there. What is
``label_emb`` there is the label encoder's embedding here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported, ShapeMismatch, UnknownName
from guidon.models.inject import CrossAttention, FiLM, beside
from guidon.models.layers import (
    Attention,
    Downsample,
    GroupNorm,
    Groups,
    Listener,
    ResBlock,
    Signal,
    Stage,
    Upsample,
    time_embedding,
    zeroed,
)
from guidon.models.perturb import Perturbed, by_layer, with_time_noise
from guidon.models.unet_config import UNetConfig
from guidon.registry import register


@register("network", "unet")
class UNet(nn.Module):
    """UNet with residual blocks, attention, and conditions through any of three doors.

    Args:
        config: its shape.

    Attributes:
        perturbations: for each perturbation that it offers (see `Perturbation`), the layers where it can act. Their names say
            where they are: "down.3.attention" stands in the fourth stage on the way down, "middle.block2" is the second block
            of the middle. "time-noise" acts on the time embedding and takes no layers.

    Raises:
        BadValue: the numbers of the config do not fit each other.
    """

    Config = UNetConfig
    # what touches time and pixels: no hidden matrices
    ends = ("time_embed.0.", "input_blocks.0.", "out.", "inner_out.")

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        blocks = config.blocks
        if config.vector == "embedding" and config.vector_width not in (
            None,
            config.embedding_width,
        ):
            raise BadValue(
                f"a vector added to the embedding is {config.embedding_width} wide "
                f"(4 * model_channels), not {config.vector_width}; "
                'leave vector_width out, or choose vector="film"'
            )
        if unknown := [f for f in config.attention if f not in [2**i for i in range(len(config.channel_mult))]]:
            raise BadValue(
                f"attention at downsampling {unknown}, but {len(config.channel_mult)} levels reach "
                f"1..{config.multiple // config.patch}; leave it out, or add levels"
            )
        widths = [int(m * config.model_channels) for m in config.channel_mult]
        self._groups = Groups(config.groups, config.group_channels)
        embedding, square = config.embedding_width, config.patch**2
        image_channels = (config.in_channels + config.spatial_channels) * square

        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )

        channels = widths[0]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(image_channels, channels, 3, padding=1))])
        skips = [channels]
        for level, width in enumerate(widths):
            for _ in range(blocks[level]):
                self.input_blocks.append(Stage(self._res(channels, width), *self._attend(level, width)))
                channels = width
                skips.append(channels)
            if level < len(widths) - 1:
                self.input_blocks.append(Stage(self._resize("down", channels)))
                skips.append(channels)

        self.middle_block = Stage(
            self._res(channels, channels),
            *self._attend(None, channels),
            self._res(channels, channels),
        )

        self.output_blocks = nn.ModuleList()
        after: list[tuple[int, int]] = []  # channels and downsampling after each stage on the way up
        for level, width in reversed(list(enumerate(widths))):
            for i in range(blocks[level] + 1):
                layers = [
                    self._res(channels + skips.pop(), width),
                    *self._attend(level, width, decoder=True),
                ]
                channels = width
                if level and i == blocks[level]:
                    layers.append(self._resize("up", channels))
                self.output_blocks.append(Stage(*layers))
                after.append((channels, 2 ** (level - 1 if level and i == blocks[level] else level)))

        self.out = self._head(channels, config.patch)
        # Halfway up: what lies below decides the structure, and some of the detail has come back over the skips, so this head errs
        # as the output does, only more. Right after the middle it would be blind to detail, further up almost the output itself.
        self._inner_stage = (len(after) - 1) // 2
        channels, factor = after[self._inner_stage]
        self._inner_patch = config.patch * factor  # every position says all the pixels it stands for
        self.inner_out = self._head(channels, self._inner_patch) if config.inner_head else None

        self.perturbations = self._name_layers()

    @property
    def has_inner(self) -> bool:
        """Whether there is an inner head to ask."""
        return self.inner_out is not None

    def suggested(self, perturbation: str) -> tuple[str, ...]:
        """Return the layers that a perturbation of this name weakens where none are named.

        Of attention the middle's, as in the papers: it decides the structure and leaves the detail alone. What is skipped is the
        middle's attention and the next two on the way up: three layers in a row as with SD3.5, and attention only, because the
        convolutions behind a skipped block have never seen such features. Raises `UnknownName`.
        """
        if perturbation not in self.perturbations:
            raise UnknownName("perturbation", perturbation, self.perturbations)
        attention = self.perturbations["attention-identity"]
        middle = attention.index("middle.attention")
        length = {"attention-identity": 1, "query-blur": 1, "skip": 3, "time-noise": 0}[perturbation]
        return attention[middle : middle + length]

    def forward(
        self, x: Tensor, time: Tensor, context: Context | None = None, perturbed: Perturbed = (), inner: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the raw output, or with ``inner`` the pair of the raw output and the inner head's.

        Args:
            x: (B, in_channels, H, W), H and W divisible by ``config.multiple``.
            time: (B,) the process's clock, about 0..1000; fractions are fine.
            context: the condition, with exactly the parts that ``config.doors`` names.
            perturbed: which rows of the batch are weakened, and how; the others are not touched.
            inner: whether the inner head is read too.

        Raises:
            ShapeMismatch: a size or a width does not fit.
            NotSupported: the context lacks a part, or has one that the network has no door for; a perturbation or the inner head
                is not offered.
        """
        if inner and self.inner_out is None:
            raise NotSupported("this network has no inner head; train one with architecture.inner_head: true")
        context = context if context is not None else Context()
        self._check(x, time, context)
        if context.spatial is not None:
            x = beside(x, context.spatial, self.config.spatial_channels)

        embedding = self.time_embed(time_embedding(time, self.config.model_channels).to(x.dtype))  # (B, E)
        weak = None
        if perturbed:
            weak = by_layer(self, perturbed)
            embedding = with_time_noise(embedding, perturbed)
        if self.config.vector == "embedding":
            embedding = embedding + context.vector
        signal = Signal(embedding, context.vector, context.tokens, context.mask, weak)

        h = F.pixel_unshuffle(x, self.config.patch)  # (B, C p², H/p, W/p)
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            h = stage(h, signal)
            skips.append(h)
        h = self.middle_block(h, signal)
        halfway = h
        for i, stage in enumerate(self.output_blocks):
            h = stage(torch.cat([h, skips.pop()], dim=1), signal)
            if i == self._inner_stage:
                halfway = h
        out = F.pixel_shuffle(self.out(h), self.config.patch)  # (B, out_channels, H, W)
        if not inner or self.inner_out is None:
            return out
        return out, F.pixel_shuffle(self.inner_out(halfway), self._inner_patch)

    def _head(self, channels: int, patch: int) -> nn.Sequential:
        """Return what turns features into pixels, patch x patch of them from every position."""
        pixels = zeroed(nn.Conv2d(channels, self.config.out_channels * patch**2, 3, padding=1))
        return nn.Sequential(GroupNorm(channels, self._groups), nn.SiLU(), pixels)

    def _name_layers(self) -> dict[str, tuple[str, ...]]:
        """Name the layers that listen by their place, and return for every perturbation those it can act on."""
        layers: dict[str, Listener] = {}
        for place, stage in self._places():
            kinds = Counter[str]()
            for layer in stage.children():
                if isinstance(layer, Listener):
                    kinds[layer.kind] += 1
                    count = kinds[layer.kind]
                    layer.name = f"{place}.{layer.kind}" + (str(count) if count > 1 else "")
                    layers[layer.name] = layer
        attention = tuple(name for name, layer in layers.items() if isinstance(layer, Attention))
        skippable = tuple(name for name, layer in layers.items() if layer.skippable)
        return {"attention-identity": attention, "query-blur": attention, "skip": skippable, "time-noise": ()}

    def _places(self) -> Iterator[tuple[str, nn.Module]]:
        yield from ((f"down.{i}", stage) for i, stage in enumerate(self.input_blocks))
        yield "middle", self.middle_block
        yield from ((f"up.{i}", stage) for i, stage in enumerate(self.output_blocks))

    def _res(self, channels: int, width: int, resample: Literal["up", "down"] | None = None) -> ResBlock:
        c = self.config
        film = FiLM(c.doors["vector"], width) if c.vector == "film" else None
        return ResBlock(
            channels,
            width,
            c.embedding_width,
            scale_shift=c.scale_shift,
            dropout=c.dropout,
            groups=self._groups,
            resample=resample,
            film=film,
        )

    def _resize(self, direction: Literal["up", "down"], channels: int) -> nn.Module:
        if self.config.resblock_updown:
            return self._res(channels, channels, direction)
        return (Upsample if direction == "up" else Downsample)(channels, self.config.conv_resample)

    def _attend(self, level: int | None, width: int, decoder: bool = False) -> list[nn.Module]:
        """Return the attention layers after a block of a level; None is the middle."""
        c = self.config
        if level is not None and 2**level not in c.attention:
            return []
        heads = (
            (c.decoder_heads if decoder and c.decoder_heads else c.heads)
            if c.head_channels is None
            else max(width // c.head_channels, 1)
        )
        appended = c.token_width if c.tokens == "append" else 0
        layers: list[nn.Module] = [
            Attention(width, heads, order=c.attention_order, groups=self._groups, tokens=appended)
        ]
        if c.tokens == "cross":
            layers.append(CrossAttention(width, heads, c.token_width, self._groups))
        return layers

    def _check(self, x: Tensor, time: Tensor, context: Context) -> None:
        c = self.config
        if x.ndim != 4 or x.shape[1] != c.in_channels:
            raise ShapeMismatch(
                f"the network takes images (B, {c.in_channels}, H, W), not {tuple(x.shape)}; convert them"
            )
        if x.shape[2] % c.multiple or x.shape[3] % c.multiple:
            fitting = tuple(-(-side // c.multiple) * c.multiple for side in x.shape[2:])
            raise ShapeMismatch(
                f"images of {x.shape[2]}x{x.shape[3]} do not divide by {c.multiple} "
                f"(patch {c.patch}, {len(c.channel_mult)} levels); "
                f"resize or pad them to {fitting[0]}x{fitting[1]}, or use fewer levels"
            )
        if time.shape != x.shape[:1]:
            raise ShapeMismatch(f"one time per image: {tuple(time.shape)} times for {len(x)} images")
        if context.batch not in (None, len(x)):
            raise ShapeMismatch(f"a context for {context.batch} images goes with {len(x)}; give one row per image")
        for door in ("vector", "tokens", "spatial"):
            part: Tensor | None = getattr(context, door)
            if (part is None) == (door in c.doors):
                raise NotSupported(
                    f"the network wants {sorted(c.doors) or 'no condition'}, "
                    f"and the context {'lacks' if part is None else 'brings'} {door}; "
                    "use the encoder the network was built with"
                )
            if part is not None and door != "spatial" and part.shape[-1] != c.doors[door]:
                raise ShapeMismatch(
                    f"the {door} are {part.shape[-1]} wide where the network takes {c.doors[door]}; "
                    "set the encoder's width"
                )
