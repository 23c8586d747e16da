"""A finite set of images as if it were all there is: the denoiser that memorises it, exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from guidon.errors import BadValue, DataError, ShapeMismatch
from guidon.lab.mixture import NULL_LABEL, rows
from guidon.noise import Level
from guidon.noise.level import Number

MOST = 2**25  # numbers in the largest table of states against images, 256 MB


class Empirical:
    """The density with a point mass at each image of a set, whose beliefs are softmax averages of the images.

    Args:
        images: (N, *shape), N >= 1; kept in float64.
        labels: (N,), whole numbers from 0.

    Raises:
        DataError: there are no images.
        ShapeMismatch: not one label for each image.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if len(images) == 0:
            raise DataError("there are no images to know; give at least one")
        if labels.shape != images.shape[:1]:
            raise ShapeMismatch(f"{len(images)} images need as many labels, got {tuple(labels.shape)}")
        self.shape = images.shape[1:]
        order = torch.argsort(labels, stable=True)  # so that each class is one stretch of rows
        self.points = images.flatten(1)[order].double()
        self.half_squares = self.points.square().sum(1) / 2
        classes, counts = labels.unique(return_counts=True)
        ends = counts.cumsum(0)
        self._stretch = {
            int(label): slice(int(end - count), int(end))
            for label, count, end in zip(classes, counts, ends, strict=True)
        }
        self._stretch[NULL_LABEL] = slice(0, len(images))

    def believe(self, x: Tensor, alpha: Number, sigma: Number, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and E[eps | x] at states (B, *shape), in the type of ``x``, given labels (B,); -1 is no class.

        Raises:
            BadValue: there is no noise, or no image of a label.
        """
        a, s = (rows(value, x, 2).expand(len(x), 1) for value in (alpha, sigma))
        flat = x.double().flatten(1)
        x0 = torch.empty_like(flat)
        for label in labels.unique().tolist():
            stretch = self._of(int(label))
            mine = torch.nonzero(labels == label).flatten().to(x.device)
            for part in mine.split(max(1, MOST // (stretch.stop - stretch.start))):
                logits = self._logits(flat[part], a[part], s[part], stretch)
                x0[part] = torch.softmax(logits, 1) @ self.points[stretch]
        eps = (flat - a * x0) / s
        return x0.reshape(x.shape).to(x.dtype), eps.reshape(x.shape).to(x.dtype)

    def log_posterior(self, x: Tensor, level: Level, labels: Tensor) -> Tensor:
        """Return log p(class | x_t), float64 (B,), differentiable in ``x``; classes weigh as many as they have images."""
        a, s = (rows(value, x, 2).expand(len(x), 1) for value in (level.alpha, level.sigma))
        flat, known = x.double().flatten(1), []
        stretches = [self._of(int(label)) for label in labels.tolist()]
        size = max(1, MOST // len(self.points))
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            logits = self._logits(flat[part], a[part], s[part], self._stretch[NULL_LABEL])
            mine = torch.stack(
                [row[stretch].logsumexp(0) for row, stretch in zip(logits, stretches[part], strict=True)]
            )
            known.append(mine - logits.logsumexp(1))
        return torch.cat(known)

    def _of(self, label: int) -> slice:
        if label not in self._stretch:
            raise BadValue(f"there is no image with the label {label}; there are: {sorted(self._stretch)}")
        return self._stretch[label]

    def _logits(self, x: Tensor, a: Tensor, s: Tensor, stretch: slice) -> Tensor:
        """Return log p(x | image) up to a number for each state, (B, images of the stretch)."""
        if bool((s == 0).any()):
            raise BadValue("without noise a finite set says nothing between its images; ask at a noise level > 0")
        return (a * (x @ self.points[stretch].T) - a**2 * self.half_squares[stretch]) / s**2
