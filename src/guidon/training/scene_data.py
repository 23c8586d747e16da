"""Training data without end or files: captioned scenes of shapes, drawn anew for every step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch

from guidon.errors import BadRecipe
from guidon.scenes.draw import draw
from guidon.scenes.render import SMALLEST, render
from guidon.scenes.scene import Scene
from guidon.training.batches import SOME, Batch, TrainingData, ahead, decoding_threads, random_for
from guidon.training.records import Skipped, Uncaptioned

PART = 256  # scenes that are drawn at once to learn their language


class SceneData(TrainingData):
    """Captioned scenes; nothing is drawn twice, nothing is kept.

    Args:
        side: height and width of the images.
        seed: decides the scenes and what is said of them.
        held_out: how many scenes to draw for ``held_out``, to measure on; 0 for none.

    Raises:
        BadRecipe: images on which shapes cannot be told apart.
    """

    def __init__(self, side: int = 32, *, seed: int = 0, held_out: int = 0) -> None:
        if side < SMALLEST:
            raise BadRecipe(f"data.size {side} is too small for shapes; set it to {SMALLEST} or more")
        common: dict[str, Any] = {
            "size": None,
            "classes": None,
            "skipped": Skipped(),
            "flip": False,
            "uncaptioned": Uncaptioned(),
        }
        super().__init__(shape=(3, side, side), seed=seed, **common)
        if held_out:
            self.held_out = self._drawn("held out scenes", 0, held_out, slice(None))

    def wordings(self) -> Iterator[str]:
        return (text for step in range(math.ceil(SOME / PART)) for _, text in self._scenes("scenes", step, PART))

    def _batches(self, batch_size: int, start_step: int, part: slice) -> Iterator[Batch]:
        jobs = (partial(self._drawn, "scenes", step, batch_size, part) for step in count(start_step))
        return ahead(jobs, workers := decoding_threads(), 2 * workers)

    def _drawn(self, purpose: str, step: int, batch_size: int, part: slice) -> Batch:
        scenes = self._scenes(purpose, step, batch_size)[part]
        pixels = np.stack([render(scene, self.shape[1]) for scene, _ in scenes]).transpose(0, 3, 1, 2)
        captions = [((caption,),) for _, caption in scenes]
        return self._batch(step, batch_size, part, torch.from_numpy(np.ascontiguousarray(pixels)), None, captions)

    def _scenes(self, purpose: str, step: int, count: int) -> list[tuple[Scene, str]]:
        """Return the scenes of a step with their captions; nothing is painted yet."""
        rng = random_for(purpose, self.seed, step)
        return [draw(rng) for _ in range(count)]
