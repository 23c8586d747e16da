"""How much signal and how much noise: processes, levels, grids, and what a network's output means."""

from guidon.noise.level import Level
from guidon.noise.prediction import EDMOutput, EpsOutput, Output, Prediction, VelocityOutput, VOutput, X0Output
from guidon.noise.process import EDM, Cosine, Flow, Process
from guidon.noise.sde import VE, VP
from guidon.noise.tables import VPTable

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Cosine",
    "EDMOutput",
    "EpsOutput",
    "Flow",
    "Level",
    "Output",
    "Prediction",
    "Process",
    "VOutput",
    "VPTable",
    "VelocityOutput",
    "X0Output",
]
