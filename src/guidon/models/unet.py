"""The ADM UNet (Dhariwal & Nichol, arXiv:2105.05233), with a door for every part of a context.

Parameters are named as `Trunk` says. What is ``label_emb`` in openai/guided-diffusion is the label encoder's embedding here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidon.conditioning import Context
from guidon.errors import BadValue, NotSupported, UnknownName
from guidon.models.attention import Attention, offered
from guidon.models.inject import CrossAttention, FiLM, beside, coordinates
from guidon.models.layers import GroupNorm, Listener, Stage, zeroed
from guidon.models.perturb import Perturbed
from guidon.models.question import check_context, check_images, signal_of
from guidon.models.trunk import Trunk
from guidon.models.unet_config import UNetConfig
from guidon.registry import register


@register("network", "unet")
class UNet(Trunk):
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
    config: UNetConfig
    # what touches time and pixels: no hidden matrices
    ends = ("time_embed.0.", "input_blocks.0.", "out.", "inner_out.")

    def __init__(self, config: UNetConfig) -> None:
        if config.vector == "embedding" and config.vector_width not in (
            None,
            config.embedding_width,
        ):
            raise BadValue(
                f"a vector added to the embedding is {config.embedding_width} wide "
                f"(4 * model_channels), not {config.vector_width}; "
                'leave vector_width out, or choose vector="film"'
            )
        super().__init__(config, config.in_channels + config.spatial_channels + 2 * config.coordinates)
        blocks, skips, channels = config.blocks, list(self.skips), config.widths[-1]

        self.output_blocks = nn.ModuleList()
        after: list[tuple[int, int]] = []  # channels and downsampling after each stage on the way up
        for level, width in reversed(list(enumerate(config.widths))):
            for i in range(blocks[level] + 1):
                layers = [
                    self._res(channels + skips.pop(), width),
                    *self._attend(level, width, config.decoder_heads),
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
        check_images(self.config, x, time)
        check_context(self.config.doors, context, len(x))
        if context.spatial is not None:
            x = beside(x, context.spatial, self.config.spatial_channels)
        if self.config.coordinates:
            x = torch.cat([x, coordinates(x)], dim=1)

        added = self.config.vector == "embedding"
        signal = signal_of(self, self._embed(time, x), context, perturbed, added=added)
        h, skips = self._descend(x, signal)
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
        return offered(layers)

    def _places(self) -> Iterator[tuple[str, nn.Module]]:
        yield from ((f"down.{i}", stage) for i, stage in enumerate(self.input_blocks))
        yield "middle", self.middle_block
        yield from ((f"up.{i}", stage) for i, stage in enumerate(self.output_blocks))

    def _film(self, width: int) -> FiLM | None:
        return FiLM(self.config.doors["vector"], width) if self.config.vector == "film" else None

    def _attention(self, width: int, heads: int) -> list[nn.Module]:
        c = self.config
        appended = c.token_width if c.tokens == "append" else 0
        layers: list[nn.Module] = [
            Attention(width, heads, order=c.attention_order, groups=self._groups, tokens=appended)
        ]
        if c.tokens == "cross":
            layers.append(CrossAttention(width, heads, c.token_width, self._groups))
        return layers
