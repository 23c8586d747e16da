"""The independent judge's eyes: a small convolutional classifier trained on a data set's real images.

It never sees a generated image while it learns. Afterwards it says which class a sample looks like, and its pooled last
layer is the space in which sets of images are compared (`distances`, `manifold`). Both sides of a comparison go through the
same 8-bit rounding, so a sample gains nothing by holding values that no image file could hold.

Numbers measured with one such classifier compare with each other only: they are not Inception FIDs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guidon.checkpoints.native import read_checkpoint, write_checkpoint
from guidon.errors import BadValue, DamagedCheckpoint, DataError, ShapeMismatch


@dataclass(frozen=True)
class ClassifierConfig:
    """What a `FeatureClassifier` is made of.

    Args:
        classes: how many classes it tells apart.
        channels: image channels, 1 or 3.
        size: side of the square images in pixels.
        widths: channels of the stem and of each stage; every stage halves the side, the last width is the feature dimension.
        stride: the stem divides the side by this, which makes large images affordable.
        names: of the classes; none where nobody knows them.
    """

    classes: int
    channels: int
    size: int
    widths: tuple[int, ...]
    stride: int = 1
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "names", tuple(self.names))
        if self.classes < 2:
            raise BadValue(f"a classifier needs at least two classes, not {self.classes}")
        if self.names and len(self.names) != self.classes:
            raise BadValue(f"{len(self.names)} names for {self.classes} classes; give one for each, or none")
        if len(self.widths) < 2 or self.stride < 1 or (self.size // self.stride) >> (len(self.widths) - 1) < 1:
            raise BadValue(
                f"widths {self.widths} with stride {self.stride} do not fit {self.size}x{self.size} images: "
                "the stem divides the side by the stride and every width after the first halves it; use fewer or a smaller stride"
            )

    @classmethod
    def for_images(cls, classes: int, channels: int, size: int) -> ClassifierConfig:
        """Choose a network that suits the image size: the stem brings any image to about 16x16."""
        return cls(
            classes, channels, size, (32, 64, 128) if size < 16 else (32, 64, 128, 256), stride=max(1, round(size / 16))
        )


class FeatureClassifier(nn.Module):
    """A classifier whose penultimate layer serves as the feature space of all measurements.

    A stem that shrinks, then stages that halve, each a convolution and a residual one; then a global mean and a linear head.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        first, *rest = config.widths
        self.stem = _Stage(config.channels, first, shrink=config.stride)
        self.stages = nn.Sequential(*(_Stage(a, b, halve=True) for a, b in zip(config.widths, rest, strict=False)))
        self.head = nn.Linear(config.widths[-1], config.classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return the class logits (B, classes) of images (B, C, H, W) in [-1, 1]."""
        logits: Tensor = self.head(self.embed(x))
        return logits

    def embed(self, x: Tensor) -> Tensor:
        """Return the features (B, D) of images (B, C, H, W) in [-1, 1], with gradients where they are on."""
        h = self.stages(self.stem(x))  # (B, D, h, w)
        pooled: Tensor = h.float().mean((2, 3))  # (B, D)
        return pooled

    @property
    def dim(self) -> int:
        """The feature dimension D."""
        return self.config.widths[-1]

    def features(self, images: Tensor, *, batch: int = 250) -> Tensor:
        """Return the features (N, D) in float64 of images (N, C, H, W), uint8 or float in [-1, 1]."""
        return self._map(self.embed, images, batch).double()

    def logits(self, images: Tensor, *, batch: int = 250) -> Tensor:
        """Return the class logits (N, classes) of images (N, C, H, W), uint8 or float in [-1, 1]."""
        return self._map(self, images, batch)

    def predict(self, images: Tensor, *, batch: int = 250) -> Tensor:
        """Return the most likely class (N,) of each image."""
        return self.logits(images, batch=batch).argmax(1)

    def accuracy(self, images: Tensor, labels: Tensor | Sequence[int], *, batch: int = 250) -> float:
        """Return the share of images that are recognised as their label, in [0, 1]."""
        wanted = torch.as_tensor(labels)
        if wanted.shape != (len(images),):
            raise ShapeMismatch(
                f"{len(images)} images came with labels of shape {tuple(wanted.shape)}; give one label an image"
            )
        return (self.predict(images, batch=batch) == wanted).double().mean().item()

    @torch.inference_mode()
    def _map(self, function: Callable[[Tensor], Tensor], images: Tensor, batch: int) -> Tensor:
        expected = (self.config.channels, self.config.size, self.config.size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ShapeMismatch(
                f"the classifier reads images (N, {expected[0]}, {expected[1]}, {expected[2]}), not {tuple(images.shape)}"
            )
        if len(images) == 0:
            raise DataError("there are no images to look at; give at least one")
        self.eval()
        where = self.head.weight.device
        rounded = (
            quantise(part.to(where)).contiguous(memory_format=torch.channels_last) for part in images.split(batch)
        )
        return torch.cat([function(part).cpu() for part in rounded])

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, whole or not at all; raises `SaveFailed`."""
        write_checkpoint(folder, asdict(self.config), self.state_dict())

    @classmethod
    def load(cls, folder: str | Path) -> FeatureClassifier:
        """Read a classifier that `save` wrote; raises `MissingFile` or `DamagedCheckpoint`."""
        config, tensors = read_checkpoint(folder)
        try:
            model = cls(ClassifierConfig(**config))
            model.load_state_dict(tensors)
        except (TypeError, RuntimeError) as error:
            raise DamagedCheckpoint(f"{folder} holds no classifier of guidon's ({error}); train it again") from error
        return model.eval()


class _ConvNorm(nn.Sequential):
    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        kernel, padding = (3, 1) if stride == 1 else (2 * stride, stride // 2)
        convolution = nn.Conv2d(inner, outer, kernel, stride, padding, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outer), nn.ReLU())


class _Stage(nn.Module):
    """Convolve to a new width, then once more beside a skip; ``shrink`` strides the first, ``halve`` pools before it."""

    def __init__(self, inner: int, outer: int, *, shrink: int = 1, halve: bool = False) -> None:
        super().__init__()
        self.halve = nn.MaxPool2d(2) if halve else nn.Identity()
        self.widen = _ConvNorm(inner, outer, shrink)
        self.refine = _ConvNorm(outer, outer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(self.halve(x))  # (B, outer, h, w)
        x = x + self.refine(x)
        return x


def quantise(images: Tensor) -> Tensor:
    """Return images as float32 in [-1, 1] on the 256 levels of an 8-bit file; uint8 images are read as those levels."""
    levels = images.float() if images.dtype == torch.uint8 else ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return levels / 127.5 - 1


def train_classifier(
    images: Tensor,
    labels: Tensor | Sequence[int],
    classes: int,
    *,
    epochs: int = 10,
    batch: int = 128,
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    flip: bool = True,
    pad: int | None = None,
    seed: int = 0,
    precision: str = "bf16",
    config: ClassifierConfig | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> FeatureClassifier:
    """Train a classifier on real images and return it ready to judge.

    SGD with Nesterov momentum under a one-cycle learning rate, label smoothing 0.1, random crops and mirror images. The
    result is a function of the arguments alone: no global random state is read.

    Args:
        images: (N, C, S, S), uint8, or float in [-1, 1].
        labels: (N,) integers in [0, classes).
        classes: how many classes there are.
        epochs: passes over the images.
        batch: images a step.
        lr: peak learning rate.
        weight_decay: of the convolutions and the head.
        flip: mirror half of the images. Right for photographs, wrong for digits and letters.
        pad: random crops move an image by up to this many pixels; an eighth of the side by default.
        seed: of the initial weights, the order and the augmentation.
        precision: "bf16" (automatic mixed precision) or "fp32".
        config: the network; by default chosen from the image size.
        on_epoch: called after every epoch with (epoch, mean loss).
    """
    wanted = torch.as_tensor(labels, dtype=torch.long)
    _check(images, wanted, classes, precision)
    _, channels, size, _ = images.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FeatureClassifier(config or ClassifierConfig.for_images(classes, channels, size))
    model.train()
    generator = torch.Generator().manual_seed(seed)
    reach = size // 8 if pad is None else pad
    padded = F.pad(quantise(images), [reach] * 4, mode="reflect") if reach else quantise(images)

    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    steps = max(1, len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=epochs * steps + 1, pct_start=0.25, cycle_momentum=False
    )
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for index in order[: steps * batch].split(min(batch, len(images))):
            x = _augment(padded[index], size, reach, flip, generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = F.cross_entropy(model(x).float(), wanted[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if on_epoch is not None:
            on_epoch(epoch, total / steps)
    return model.eval()


def _augment(padded: Tensor, size: int, reach: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Cut a window of (size, size) at a random place out of every padded image and mirror half of them."""
    n = len(padded)
    if reach:
        y, x = torch.randint(0, 2 * reach + 1, (2, n, 1), generator=generator)  # (N, 1) each
        rows, columns = y + torch.arange(size), x + torch.arange(size)  # (N, S)
        picked = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (N, S, S, C)
        padded = picked.permute(0, 3, 1, 2)
    if flip:
        mirror = torch.rand(n, generator=generator) < 0.5
        padded = torch.where(mirror[:, None, None, None], padded.flip(3), padded)
    return padded


def _check(images: Tensor, labels: Tensor, classes: int, precision: str) -> None:
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ShapeMismatch(
            f"the classifier trains on square images (N, C, S, S), not {tuple(images.shape)}; crop them first"
        )
    if labels.shape != (len(images),):
        raise ShapeMismatch(
            f"{len(images)} images came with labels of shape {tuple(labels.shape)}; give one label an image"
        )
    if len(images) < 2 * classes:
        raise DataError(
            f"{len(images)} images are too few to learn {classes} classes from; give at least {2 * classes}"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise BadValue(
            f"labels must lie in 0..{classes - 1}, these reach from {int(labels.min())} to {int(labels.max())}"
        )
    if precision not in ("bf16", "fp32"):
        raise BadValue(f"precision is 'bf16' or 'fp32', not {precision!r}")
