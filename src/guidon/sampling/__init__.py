"""The conversation between solvers, rules and networks."""

from guidon.sampling.engine import Denoises, Engine
from guidon.sampling.randomness import PerImageNoise, RecordedNoise, RecordingNoise
from guidon.sampling.trajectory import Query, Trajectory

__all__ = ["Denoises", "Engine", "PerImageNoise", "Query", "RecordedNoise", "RecordingNoise", "Trajectory"]
