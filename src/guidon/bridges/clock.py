"""Where a scheduler of diffusers is: the levels of its steps as the network sees them, and what its answers mean."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from guidon.errors import NotSupported
from guidon.guidance.rule import Moment
from guidon.noise.level import Level
from guidon.noise.prediction import EpsOutput, Output, VelocityOutput, VOutput, X0Output

OUTPUTS: dict[str, tuple[str, Output]] = {
    "epsilon": ("eps", EpsOutput()),
    "sample": ("x0", X0Output()),
    "v_prediction": ("v", VOutput()),
    "flow_prediction": ("velocity", VelocityOutput()),
}
SOLVERS = {  # schedulers whose step can keep noise and clean image apart: guidon's name, and whether the state is x0 + sigma eps
    "DDIMScheduler": ("ddim", False),
    "EulerDiscreteScheduler": ("euler", True),
    "EulerAncestralDiscreteScheduler": ("euler-ancestral", True),
    "DPMSolverMultistepScheduler": ("dpmpp-2m", False),
    "FlowMatchEulerDiscreteScheduler": ("euler", False),
}


class Clock:
    """Follows one scheduler through a run.

    Args:
        scheduler: of diffusers.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.position: int | None = None  # steps done; None before the first
        self._moments: list[Moment] = []

    def start(self, told: float) -> None:
        """Find the step at which a run begins.

        Args:
            told: the time that the network is told: that of a step, or that divided by the training steps, or one minus this.
        """
        levels = levels_of(self.scheduler)
        first = getattr(self.scheduler, "begin_index", None)
        if first is None:
            times = self.scheduler.timesteps.detach().double().cpu()
            training = self.scheduler.config.num_train_timesteps
            told_as = torch.tensor([told, told * training, (1 - told) * training], dtype=torch.float64)
            first = int((times[None] - told_as[:, None]).abs().amin(0).argmin())
        levels = levels[first:]
        steps = len(levels) - 1
        self._moments = [
            Moment(here, there, index, steps) for index, (here, there) in enumerate(itertools.pairwise(levels))
        ]
        self.position = 0

    def moments(self) -> list[Moment]:
        """Return every step of the run."""
        return self._moments

    def now(self) -> Moment:
        """Return the step that is to be done."""
        assert self.position is not None
        return self._moments[min(self.position, len(self._moments) - 1)]

    @property
    def solver(self) -> str:
        """The name of the solver of guidon that the scheduler is, empty where it is none that keeps noise and clean image apart."""
        name, _ = SOLVERS.get(type(self.scheduler).__name__, ("", False))
        config = self.scheduler.config
        if name == "dpmpp-2m" and (config.algorithm_type != "dpmsolver++" or config.solver_order > 2):
            return ""
        return name

    @property
    def clips(self) -> bool:
        """Whether a step clips the clean image that it is told."""
        config = self.scheduler.config
        return bool(getattr(config, "clip_sample", False) or getattr(config, "thresholding", False))

    def state_alpha(self, level: Level) -> float:
        """Return how much of the clean image is in the state of the scheduler."""
        return 1.0 if SOLVERS[type(self.scheduler).__name__][1] else float(level.alpha)

    def output(self) -> tuple[str, Output]:
        """Return what the network's answers mean, as the name of the view and its reader."""
        name, config = type(self.scheduler).__name__, self.scheduler.config
        if name.startswith("EDM"):
            raise NotSupported(f"{name} hands its network another input than the state; take EulerDiscreteScheduler")
        if "FlowMatch" in name:
            return OUTPUTS["flow_prediction"]
        kind = getattr(config, "prediction_type", "epsilon")
        if kind not in OUTPUTS:
            raise NotSupported(f"{name} reads {kind!r}, which is none of {', '.join(OUTPUTS)}")
        return OUTPUTS[kind]


def levels_of(scheduler: Any) -> list[Level]:
    """Return the level of every step of a scheduler, as its network sees it, and the level of the end."""
    times = [float(t) for t in scheduler.timesteps]
    training = scheduler.config.num_train_timesteps
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) == len(times) + 1:
        flow = "FlowMatch" in type(scheduler).__name__ or getattr(scheduler.config, "use_flow_sigmas", False)
        pairs = [_flow(float(s)) if flow else _vp(float(s)) for s in sigmas]
    else:
        if getattr(scheduler, "alphas_cumprod", None) is None:
            raise NotSupported(
                f"{type(scheduler).__name__} does not say how much noise its steps have; take another scheduler"
            )
        kept = [float(scheduler.alphas_cumprod[int(t)]) for t in times]
        kept.append(float(getattr(scheduler, "final_alpha_cumprod", 1.0)))
        pairs = [(a**0.5, (1 - a) ** 0.5) for a in kept]
    return [Level(t / training, *pair) for t, pair in zip([*times, 0.0], pairs, strict=True)]


def _flow(sigma: float) -> tuple[float, float]:
    return 1 - sigma, sigma


def _vp(noise_level: float) -> tuple[float, float]:
    alpha = (1 + noise_level**2) ** -0.5
    return alpha, noise_level * alpha
