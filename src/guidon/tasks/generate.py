"""From noise and conditions to images: the joint between networks, rules and solvers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from guidon.errors import NotSupported
from guidon.guidance.rule import Rule
from guidon.noise.level import Level
from guidon.noise.process import Process
from guidon.sampling.engine import Denoises, Engine
from guidon.sampling.known import Known
from guidon.sampling.randomness import PerImageNoise
from guidon.sampling.trace import Trace
from guidon.sampling.trajectory import Told, Trajectory
from guidon.solvers.solver import Solver

# conditions are blurred with noise of their own, so that it changes nothing in that of the images
OTHER_STREAM = 0x5BD1E995

OnStep = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class Samples:
    """Images, and all that is needed to make them again.

    Args:
        x: (N, C, H, W) float32, nominally in [-1, 1], not clipped.
        seeds: one per image.
        labels: class id per image, None where there is no class.
        record: what was asked for; JSON-able.
        nfe: network evaluations per image; a mean, where some images needed fewer than others.
        forwards: forwards that were run for all images together.
        seconds: wall-clock time of the sampling.
        trace: what guidance did at each step, where that was asked for.
    """

    x: Tensor
    seeds: tuple[int, ...]
    labels: tuple[int | None, ...]
    record: dict[str, Any] = field(default_factory=dict)
    nfe: int | float = 0
    forwards: int = 0
    seconds: float = 0.0
    trace: Trace | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def latent(self) -> bool:
        """Whether these are no images but what an autoencoder makes images of."""
        return self.x.shape[1] not in (1, 3)

    def uint8(self) -> NDArray[np.uint8]:
        """Return the images as (N, H, W, C) of 0 to 255; raises `NotSupported` for latents."""
        if self.latent:
            raise NotSupported(
                f"these are latents of {self.x.shape[1]} channels, no images; decode samples.x with the model's autoencoder"
            )
        return to_uint8(self.x).permute(0, 2, 3, 1).cpu().numpy()

    def pil(self) -> list[Image.Image]:
        """Return the images as PIL images, grey or RGB; raises `NotSupported` for latents."""
        return [Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels) for pixels in self.uint8()]


def to_uint8(x: Tensor) -> Tensor:
    """Turn images in [-1, 1] into 0 to 255, rounded and clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def generate(
    networks: Mapping[str, Denoises],
    contexts: Mapping[str, Told],
    *,
    process: Process,
    levels: Sequence[Level],
    solver: Solver,
    rule: Rule,
    seeds: Sequence[int],
    shape: Sequence[int],
    temperature: float = 1.0,
    known: Known | None = None,
    device: torch.device | str = "cpu",
    batching: str = "joint",
    max_batch: int | None = None,
    precision: str = "fp32",
    on_step: OnStep | None = None,
    trace: bool = False,
) -> Samples:
    """Sample one batch of images.

    Args:
        networks: by the names that the rule's branches use; "main" is the model.
        contexts: by the names that the rule's branches use, each for as many images as there are seeds.
        process: whose levels these are.
        levels: from a `Grid`.
        solver, rule: how to move and how to guide.
        seeds: one per image.
        shape: of one image, (C, H, W).
        temperature: what the noise that sampling starts from is multiplied by.
        known: pixels that stay what they are; None where nothing is known.
        device: where the state lives.
        batching, max_batch, precision: see `Engine`.
        on_step: called after each evaluation with (steps done, steps, the guided estimate of the images).
        trace: whether to record what guidance does.

    Returns:
        The images, without a record.
    """
    started = time.perf_counter()
    noise = PerImageNoise(seeds, shape, device)
    row_noise = PerImageNoise([seed ^ OTHER_STREAM for seed in seeds], shape, device).of_shape
    x = noise() * (temperature * process.start_scale(levels[0]))
    engine = Engine(networks, batching=batching, max_batch=max_batch, precision=precision)
    seen = Trace() if trace else None
    look_on = seen.look_on if seen else None
    trajectory = Trajectory(x, levels, solver, rule, contexts, noise, row_noise=row_noise, known=known, look_on=look_on)
    if seen is not None:
        seen.most = sum(not branch.inner for branch in trajectory.most)
    engine.join(trajectory)
    while not trajectory.done:
        engine.round()
        if on_step is not None:
            on_step(trajectory.index, trajectory.steps, trajectory.x0)
    seconds = time.perf_counter() - started
    return Samples(
        trajectory.x,
        tuple(seeds),
        (None,) * len(seeds),
        nfe=trajectory.nfe,
        forwards=engine.forwards,
        seconds=seconds,
        trace=seen,
    )
