"""The lab: where the truth about guidance is known exactly, so that solvers and rules can be judged by it."""

from guidon.lab.affine import propagate
from guidon.lab.empirical import Empirical
from guidon.lab.gaussian import Gaussian, Gaussians, Pair
from guidon.lab.integrate import integrate
from guidon.lab.linear import Difference, LinearGuidance
from guidon.lab.mixture import NULL_LABEL, Exact, ExactClassifier, Mixture, Truth, told

__all__ = [
    "NULL_LABEL",
    "Difference",
    "Empirical",
    "Exact",
    "ExactClassifier",
    "Gaussian",
    "Gaussians",
    "LinearGuidance",
    "Mixture",
    "Pair",
    "Truth",
    "integrate",
    "propagate",
    "told",
]
