"""Along the way from noise to image: the estimate of the clean image at a few of the steps, as a strip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from guidon.errors import BadValue, NotSupported
from guidon.study.sheet import Sheet, tiled
from guidon.tasks.generate import OnStep, to_uint8

FRAMES = 10  # columns of a strip


@dataclass
class Film:
    """Collects what a run believes of the clean images; give `on_step` to ``Model.sample``.

    Args:
        images: how many of the first images to keep.
        frames: how many steps to show, spread evenly, the last one among them.

    Attributes:
        shots: by the step that was done, uint8 (N, C, H, W); the last evaluation of a step counts.
    """

    images: int = 4
    frames: int = FRAMES
    shots: dict[int, np.ndarray] = field(default_factory=dict)

    def on_step(self, done: int, steps: int, x0: Tensor) -> None:
        """Keep an estimate (N, C, H, W); raises `NotSupported` for latents."""
        if x0.shape[1] not in (1, 3):
            raise NotSupported(f"latents of {x0.shape[1]} channels are no images; leave the film out")
        if self.shots and done < max(self.shots):  # a second run, such as that of an upsampler
            self.shots.clear()
        self.shots[done] = to_uint8(x0[: self.images]).cpu().numpy()

    def beside(self, other: OnStep) -> OnStep:
        """Return what calls `on_step` and another."""

        def both(done: int, steps: int, x0: Tensor) -> None:
            self.on_step(done, steps, x0)
            other(done, steps, x0)

        return both

    def strip(self) -> tuple[list[int], np.ndarray]:
        """Return the numbers of the steps that are shown, and their images (frames, N, C, H, W)."""
        if not self.shots:
            raise BadValue("the film is empty; give its on_step to Model.sample first")
        known = sorted(self.shots)
        shown = np.unique(np.linspace(0, len(known) - 1, min(self.frames, len(known))).round().astype(int))
        return [known[i] for i in shown], np.stack([self.shots[known[i]] for i in shown])


def film_sheet(films: Mapping[str, Film], names: Sequence[str] = (), title: str = "") -> Sheet:
    """Lay films out: a row for each film and image, a column for each step.

    Args:
        films: by what they are of, such as a rule; all of the same number of steps.
        names: of the images; left out: their numbers.
        title: the line on top.

    Raises:
        BadValue: a film is empty, or they have other numbers of steps.
    """
    strips = {name: film.strip() for name, film in films.items()}
    steps = next(iter(strips.values()))[0]
    if any(other != steps for other, _ in strips.values()):
        raise BadValue("the films show other steps; sample all of them in as many steps")
    count = min(shots.shape[1] for _, shots in strips.values())
    tiles, rows = [], []
    for i in range(count):
        for name, (_, shots) in strips.items():
            label = names[i] if i < len(names) else f"image {i + 1}" if count > 1 else ""
            tiles.append(list(shots[:, i]))
            rows.append(", ".join(part for part in (label, name) if part))
    return tiled(tiles, rows, [f"step {step}" for step in steps], title)
