"""What a model that enlarges or completes images is shown of them while it learns: a small copy, or the image with parts erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guidon.conditioning import Condition, Context
from guidon.conditioning.images import enlarged
from guidon.model import Model
from guidon.training.batches import random_for
from guidon.training.objective import DenoisingLoss, Draw, Objective

ALL, NONE = 0.2, 0.1  # shares of the images that are erased altogether, and not at all
BOXES = 4  # rectangles that are erased of the others, at most


@dataclass(frozen=True)
class ShownDraw(Draw):
    """What chance decided for a batch of which a model is shown something.

    Args:
        known: (B, 1, H, W), 1 where a pixel is shown; None for a model that completes nothing.
        blurred: (B,) bool, whose small copy is blurred; None for a model that enlarges nothing.
    """

    known: Tensor | None = None
    blurred: Tensor | None = None

    def take(self, rows: slice) -> ShownDraw:
        known, blurred = (None if part is None else part[rows] for part in (self.known, self.blurred))
        return ShownDraw(**vars(super().take(rows)), known=known, blurred=blurred)


def draw_shown(model: Model, draw: Draw, *, seed: int, step: int) -> Draw:
    """Return a draw with what a model is shown of its images beside; as it is for a model that is shown nothing.

    Args:
        model: says what it is shown.
        draw: of the batch.
        seed, step: what everything here is a function of.
    """
    if not (model.config.inpaint or model.low_res):
        return draw
    size = len(draw.dropped)
    known = random_masks(size, model.shape[1:], random_for("masks", seed, step)) if model.config.inpaint else None
    blurred = torch.from_numpy(random_for("blur", seed, step).random(size) < 0.5) if model.low_res else None
    return ShownDraw(**vars(draw), known=known, blurred=blurred)


def random_masks(count: int, size: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Return which pixels are shown, (count, 1, H, W): all but one to four rectangles of random size and place.

    Of a share `ALL` of the images nothing is shown, so that a model still learns to make whole images; of a share `NONE` all is.

    Source: erasing random regions is how Nichol et al. (arXiv 2112.10741, section 2.4) train for inpainting; the regions are not told.
    """
    kind, boxes = rng.random(count), rng.integers(1, BOXES + 1, count)
    lengths = rng.uniform(1 / 8, 3 / 4, (count, BOXES, 2))
    starts = rng.random((count, BOXES, 2)) - lengths / 2  # their middles lie anywhere, so they may hang over the edges
    places = [(np.arange(side) + 0.5) / side for side in size]  # the middle of every row and column
    inside: list[np.ndarray] = [
        (starts[..., axis, None] <= where) & (where < (starts + lengths)[..., axis, None])
        for axis, where in enumerate(places)
    ]  # each (count, BOXES, H or W)
    used = np.arange(BOXES) < boxes[:, None]
    erased: np.ndarray = (inside[0][..., :, None] & inside[1][..., None, :] & used[..., None, None]).any(
        1
    )  # (count, H, W)
    erased[kind < ALL] = True
    erased[kind >= 1 - NONE] = False
    return torch.from_numpy(~erased).float()[:, None]


def small_of(images: Tensor, size: Sequence[int], blurred: Tensor | None = None, blur: float = 0.0) -> Tensor:
    """Return small copies of images, averaged over areas and rounded to 8 bits, as those are that are enlarged later.

    Args:
        images: (B, C, H, W) in [-1, 1].
        size: (h, w).
        blurred: (B,) bool, which copies are blurred too, so that a model learns to enlarge what is not sharp; None for none.
        blur: standard deviation of the Gaussian, in pixels of the copy.

    Source: training on blurred copies is that of Ho et al., arXiv 2106.15282, section 4.
    """
    small = F.interpolate(images, size=tuple(size), mode="area")
    if blurred is not None and blur > 0:
        places = torch.arange(-2, 3, dtype=small.dtype, device=small.device)
        kernel = torch.softmax(-places.square() / (2 * blur**2), 0)
        soft = F.pad(small.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate")  # (B C, 1, h + 4, w + 4)
        soft = F.conv2d(F.conv2d(soft, kernel.view(1, 1, 5, 1)), kernel.view(1, 1, 1, 5)).view_as(small)
        small = torch.where(blurred.to(small.device)[:, None, None, None], soft, small)
    return ((small + 1) * 127.5).round() / 127.5 - 1


class ShownLoss(DenoisingLoss):
    """The loss of a model that may be shown something of the images beside the noise.

    Args:
        model, objective: as of `DenoisingLoss`.
        blur: as of `small_of`.
    """

    def __init__(self, model: Model, objective: Objective, blur: float) -> None:
        super().__init__(model, objective)
        self.blur = blur

    def context(self, images: Tensor, given: Condition | None, draw: Draw) -> Context:
        context, parts = super().context(images, given, draw), []
        if isinstance(draw, ShownDraw) and draw.known is not None:
            known = draw.known.to(images.device)
            parts += [images * known, known]
        if isinstance(draw, ShownDraw) and self.model.low_res is not None:
            small = small_of(images, self.model.low_res, draw.blurred, self.blur)
            parts.append(enlarged(small, images.shape[2:], len(images)))
        return replace(context, spatial=torch.cat(parts, dim=1)) if parts else context
